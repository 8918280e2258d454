import type { Clock } from '../contract/environment.js';

/** Others are asked first for so long: one whose disk hangs makes one read of each such time wait, and not all of them. */
const rememberedMs = 30_000;
/** More stores than a cluster has. */
const maxStores = 10_000;

/** Stores that kept somebody waiting who read: their disks hang, perhaps. */
export class LateStores {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Until when, on the monotonic clock. */
  readonly #untilMs = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  note(storeId: string): void {
    if (this.#untilMs.size >= maxStores) this.#untilMs.clear();
    this.#untilMs.set(storeId, this.#clock.monotonicMs() + rememberedMs);
  }

  has(storeId: string): boolean {
    const untilMs = this.#untilMs.get(storeId);
    if (untilMs === undefined) return false;
    if (this.#clock.monotonicMs() < untilMs) return true;
    this.#untilMs.delete(storeId);
    return false;
  }
}
