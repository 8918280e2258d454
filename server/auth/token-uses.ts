import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { keys } from '../../backends/contract/keys.js';
import { decodeRecord, encodeRecord, readAll, tokenUseRecord } from './account-records.js';

/** How exact the time of the last use is; also keeps writes far below what a token's requests are. */
const resolutionMs = 60_000;
/** Tokens remembered as just noted: 1 MB. One that was forgotten costs a read, seldom a write. */
const maxRemembered = 10_000;
/** Notes being written. More uses than that at once are noted at their next one. */
const maxWriting = 8;

/**
 * When tokens were last used. A use is noted behind the back of the request, at most once a minute for each token, also
 * with several servers; a note that cannot be written is dropped. Never in the way of a request, and never a reason to
 * refuse one.
 */
export class TokenUses {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  /** Token hash -> monotonic time of the last note, oldest first. */
  readonly #noted = new Map<string, number>();
  #writing = 0;

  constructor(coordinator: Coordinator, clock: Clock) {
    this.#coordinator = coordinator;
    this.#clock = clock;
  }

  /** The token was used now. */
  note(hash: string): void {
    const nowMs = this.#clock.monotonicMs();
    const notedMs = this.#noted.get(hash);
    if (notedMs !== undefined && nowMs - notedMs < resolutionMs) return;
    if (this.#writing >= maxWriting) return;
    this.#noted.delete(hash);
    this.#noted.set(hash, nowMs);
    const [oldest] = this.#noted.keys();
    if (this.#noted.size > maxRemembered && oldest !== undefined) this.#noted.delete(oldest);
    this.#writing++;
    // A lost note is made good by the next use.
    void this.#write(hash)
      .catch(() => undefined)
      .finally(() => this.#writing--);
  }

  /** Token hash -> time of the last use, milliseconds since the epoch. */
  async all(): Promise<ReadonlyMap<string, number>> {
    const entries = await readAll(this.#coordinator, keys.tokenUses);
    return new Map(
      entries.map((entry) => [
        entry.key.slice(keys.tokenUses.length),
        decodeRecord(tokenUseRecord, entry).atMs,
      ]),
    );
  }

  async #write(hash: string): Promise<void> {
    const key = keys.tokenUse(hash);
    const atMs = this.#clock.nowMs();
    const stored = await this.#coordinator.get(key);
    if (stored !== undefined) {
      const sinceMs = atMs - decodeRecord(tokenUseRecord, stored).atMs;
      // Another server has noted it. A time in the future is of a clock that was set back.
      if (sinceMs >= 0 && sinceMs < resolutionMs) return;
    }
    await this.#coordinator.transaction({
      // Not after the token was revoked, or the note would stay for ever.
      compares: [{ key: keys.token(hash), target: 'createRevision', op: '>', operand: 0 }],
      success: [{ type: 'put', key, value: encodeRecord({ atMs }) }],
      failure: [],
    });
  }
}
