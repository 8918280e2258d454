import { createHash } from 'node:crypto';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Principal } from '../auth/principal.js';
import type { Reply } from './endpoint.js';
import { keyOfAnother, rememberedMs, type RequestRecords } from './request-records.js';

/** Answers are some hundred bytes each. */
const maxKept = 10_000;

interface Kept {
  readonly request: string;
  readonly answer: Promise<Answer>;
  readonly untilMs: number;
}

export interface Answer {
  readonly reply: Reply | undefined;
  /** It was given before. */
  readonly repeated: boolean;
}

/**
 * Answers of requests that came with an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), for the same
 * request coming again: it gets the same answer, and nothing is done twice. What must not be lost is in the coordinator
 * (`request-records.ts`); this process keeps whole answers besides, with a new token's secret, which is stored nowhere.
 */
export class RepeatedRequests {
  readonly #clock: Clock;
  readonly #records: RequestRecords;
  readonly #kept = new Map<string, Kept>();

  constructor(parts: { readonly clock: Clock; readonly requestRecords: RequestRecords }) {
    this.#clock = parts.clock;
    this.#records = parts.requestRecords;
  }

  /**
   * The answer of `run`, or the one that the same request got before. Keys are of one principal and one of its tokens:
   * a lesser one must not read what another was given. A failure is not kept. Errors as `RequestRecords.once` says.
   */
  async once(
    of: {
      readonly key: string;
      readonly principal: Principal;
      readonly path: string;
      readonly input: unknown;
      readonly requestId: string;
      readonly secrets: readonly string[];
    },
    run: () => Promise<Reply | undefined>,
  ): Promise<Answer> {
    if (!/^[\x21-\x7e]{1,255}$/.test(of.key)) {
      throw new QuorateError(
        'invalid-argument',
        'Idempotency-Key has to be 1 to 255 printable characters without spaces',
      );
    }
    const nowMs = this.#clock.monotonicMs();
    this.#forget(nowMs);
    const place = digest([identityOf(of.principal), of.key]);
    const request = digest([of.path, of.input ?? null]);
    const known = this.#kept.get(place);
    if (known !== undefined) {
      if (known.request !== request) throw keyOfAnother();
      const { reply } = await known.answer;
      if (reply !== undefined) return { reply, repeated: true };
      throw new QuorateError(
        'failed-precondition',
        'a request with this Idempotency-Key is at work',
      );
    }
    const answer = this.#records.once({ ...of, place, request }, run);
    this.#kept.set(place, { request, answer, untilMs: nowMs + rememberedMs });
    try {
      const answered = await answer;
      // A stream cannot be told again.
      if (answered.reply === undefined) this.#kept.delete(place);
      return answered;
    } catch (error) {
      this.#kept.delete(place);
      throw error;
    }
  }

  /** The map is in the order of time. */
  #forget(nowMs: number): void {
    for (const [place, { untilMs }] of this.#kept) {
      if (untilMs > nowMs && this.#kept.size < maxKept) return;
      this.#kept.delete(place);
    }
  }
}

/** Who, and with what: not what they may do, which may change from one request to the next. */
function identityOf(principal: Principal): readonly string[] {
  if (principal.kind !== 'user') return [principal.kind, 'name' in principal ? principal.name : ''];
  const { name, via } = principal;
  return ['user', name, via.type === 'token' ? via.tokenId : via.fingerprint];
}

function digest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
