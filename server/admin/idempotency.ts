import { createHash } from 'node:crypto';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Principal } from '../auth/principal.js';
import type { Reply } from './endpoint.js';

/** A client that tries again does so within minutes. */
const keptMs = 3_600_000;
/** Answers are some hundred bytes each. */
const maxKept = 10_000;

interface Kept {
  readonly request: string;
  readonly reply: Promise<Reply | undefined>;
  readonly untilMs: number;
}

/**
 * Answers of requests that came with an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), for the same
 * request coming again: it gets the same answer, and nothing is done twice. Kept in memory for an hour, since answers
 * may hold a new token's secret; after a restart a repeated request is a new one.
 */
export class RepeatedRequests {
  readonly #clock: Clock;
  readonly #kept = new Map<string, Kept>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * The answer of `run`, or the one that the same request got before. Keys are of one principal and one of its tokens:
   * a lesser one must not read what another was given. A failure is not kept. Throws `already-exists` when the key was
   * used for another request.
   */
  async once(
    of: {
      readonly key: string;
      readonly principal: Principal;
      readonly path: string;
      readonly input: unknown;
    },
    run: () => Promise<Reply | undefined>,
  ): Promise<{ readonly reply: Reply | undefined; readonly repeated: boolean }> {
    if (!/^[\x21-\x7e]{1,255}$/.test(of.key)) {
      throw new QuorateError(
        'invalid-argument',
        'Idempotency-Key has to be 1 to 255 printable characters without spaces',
      );
    }
    const nowMs = this.#clock.monotonicMs();
    this.#forget(nowMs);
    const place = digest([of.principal, of.key]);
    const request = digest([of.path, of.input ?? null]);
    const known = this.#kept.get(place);
    if (known !== undefined) {
      if (known.request !== request) {
        throw new QuorateError(
          'already-exists',
          'this Idempotency-Key was used for another request',
        );
      }
      const reply = await known.reply;
      if (reply !== undefined) return { reply, repeated: true };
      throw new QuorateError(
        'failed-precondition',
        'a request with this Idempotency-Key is at work',
      );
    }
    const reply = run();
    this.#kept.set(place, { request, reply, untilMs: nowMs + keptMs });
    try {
      const answered = await reply;
      // A stream cannot be told again.
      if (answered === undefined) this.#kept.delete(place);
      return { reply: answered, repeated: false };
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

function digest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64');
}
