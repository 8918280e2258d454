import type { Clock } from '../contract/environment.js';

/** Others are asked first for so long: one whose disk hangs makes one read of each such time wait, and not all of them. */
const rememberedMs = 30_000;
/** More stores than a cluster has; repositories that are slow are few. */
const maxKnown = 10_000;

/**
 * Stores that kept somebody waiting who read: their disks hang, perhaps. One that answered others meanwhile is late with
 * that repository alone.
 */
export class LateStores {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Until when, on the monotonic clock, by store, or by store and repository. */
  readonly #untilMs = new Map<string, number>();
  /** When a store answered last. */
  readonly #answeredMs = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /** A read of a repository has waited so long. */
  note(
    storeId: string,
    { repositoryId, waitedMs }: { repositoryId: string; waitedMs: number },
  ): void {
    const nowMs = this.#clock.monotonicMs();
    const answeredMs = this.#answeredMs.get(storeId) ?? -Infinity;
    const name = answeredMs > nowMs - waitedMs ? `${storeId} ${repositoryId}` : storeId;
    remember(this.#untilMs, name, nowMs + rememberedMs);
  }

  /** A store has answered what it had to ask its disk for; what it has in memory it says with any disk. */
  answered(storeId: string): void {
    remember(this.#answeredMs, storeId, this.#clock.monotonicMs());
  }

  has(storeId: string, repositoryId: string): boolean {
    return this.#isLate(storeId) || this.#isLate(`${storeId} ${repositoryId}`);
  }

  #isLate(name: string): boolean {
    const untilMs = this.#untilMs.get(name);
    if (untilMs === undefined) return false;
    if (this.#clock.monotonicMs() < untilMs) return true;
    this.#untilMs.delete(name);
    return false;
  }
}

function remember(times: Map<string, number>, name: string, ms: number): void {
  if (times.size >= maxKnown && !times.has(name)) times.clear();
  times.set(name, ms);
}
