import type { Clock } from '../contract/environment.js';

/** A process that saw nothing for so long cannot say who was away meanwhile. */
const maxGapMs = 10_000;

/** For how long stores have been away, as far as this process saw. It has to be shown the living about every second. */
export class AwayTimes {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Monotonic time when a store was seen alive last. */
  readonly #seenMs = new Map<string, number>();
  /** Since when the living are shown without a gap. */
  #sinceMs: number;
  #shownMs: number;

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
    this.#shownMs = this.#sinceMs;
  }

  /** These live now, and no others. */
  show(alive: Iterable<string>): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#shownMs > maxGapMs) {
      this.#seenMs.clear();
      this.#sinceMs = nowMs;
    }
    this.#shownMs = nowMs;
    for (const storeId of alive) this.#seenMs.set(storeId, nowMs);
  }

  /** Of a store that does not answer now. */
  of(storeId: string): number {
    return this.#shownMs - (this.#seenMs.get(storeId) ?? this.#sinceMs);
  }
}
