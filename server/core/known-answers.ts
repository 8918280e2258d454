import type { KnownAnswer } from './git-request.js';
import type { RefView } from './ref-view.js';

/** A request for some branches is a few hundred bytes. */
export const maxKnownRequestBytes = 2048;
/** Up to this size text is cheaper to send than bytes, and most answers are one line. */
const maxAnswerBytes = 16 * 1024;
/** What an answer takes beside its bytes. */
const overheadBytes = 200;

/**
 * Answers to `ls-refs` that were made before, by what they depend on: the refs that may be seen, of one generation,
 * and the request's very bytes. Gone with the snapshot; all of them when the budget is spent, since making one anew
 * costs a fraction of a millisecond.
 */
export class KnownAnswers {
  readonly #budgetBytes: number;
  #byView = new WeakMap<RefView, Map<string, KnownAnswer>>();
  #bytes = 0;

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  get(view: RefView, request: string): KnownAnswer | undefined {
    return this.#byView.get(view)?.get(request);
  }

  /** `request` are all bytes of the request as latin1; nothing is kept when one of the two is large. */
  keep(view: RefView, request: string, answer: KnownAnswer): void {
    if (request.length > maxKnownRequestBytes || answer.text.length > maxAnswerBytes) return;
    this.#bytes += request.length + answer.text.length + overheadBytes;
    if (this.#bytes > this.#budgetBytes) {
      this.#byView = new WeakMap();
      this.#bytes = request.length + answer.text.length + overheadBytes;
    }
    const answers = this.#byView.get(view) ?? new Map<string, KnownAnswer>();
    this.#byView.set(view, answers.set(request, answer));
  }
}
