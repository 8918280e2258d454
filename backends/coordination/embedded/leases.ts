import { randomBytes } from 'node:crypto';
import type { Lease, LeaseId, LeaseLeft } from '../../contract/coordinator.js';
import type { Clock } from '../../contract/environment.js';

interface Holding {
  readonly ttlMs: number;
  readonly lost: AbortController;
  deadlineMs: number;
}

/**
 * The leases of this process. They live in memory only: their ids carry a random boot id, so that none outlives the
 * process. Each is renewed every third of its time to live; one that could not be renewed in time, because the event
 * loop stood still or the machine slept, has ended: `lost` aborts first, and its keys are deleted before the next
 * transaction runs.
 */
export class LeaseTable {
  readonly #clock: Clock;
  readonly #onEnded: () => void;
  readonly #bootId = randomBytes(6).toString('hex');
  readonly #live = new Map<LeaseId, Holding>();
  /** Ended, but their keys may still be there. */
  readonly #unsettled = new Set<LeaseId>();
  #granted = 0;

  constructor(clock: Clock, onEnded: () => void) {
    this.#clock = clock;
    this.#onEnded = onEnded;
  }

  grant(ttlMs: number, revoke: (id: LeaseId) => Promise<void>): Lease {
    this.#granted += 1;
    const id = `${this.#bootId}-${String(this.#granted)}`;
    const lost = new AbortController();
    const holding = { ttlMs, lost, deadlineMs: this.#clock.monotonicMs() + ttlMs };
    this.#live.set(id, holding);
    void this.#keepAlive(id, holding);
    return { id, ttlMs, lost: lost.signal, revoke: () => revoke(id) };
  }

  lives(id: LeaseId): boolean {
    return this.#live.has(id);
  }

  left(id: LeaseId): LeaseLeft | undefined {
    const holding = this.#live.get(id);
    if (holding === undefined) return undefined;
    return { ttlMs: holding.ttlMs, leftMs: holding.deadlineMs - this.#clock.monotonicMs() };
  }

  end(id: LeaseId): void {
    const holding = this.#live.get(id);
    if (holding === undefined) return;
    this.#live.delete(id);
    this.#unsettled.add(id);
    holding.lost.abort();
    this.#onEnded();
  }

  endAll(): void {
    for (const id of this.#live.keys()) this.end(id);
  }

  /** Ends what is past its deadline. To be called before transactions run. */
  endOverdue(): void {
    const now = this.#clock.monotonicMs();
    for (const [id, holding] of this.#live) {
      if (now >= holding.deadlineMs) this.end(id);
    }
  }

  unsettled(): readonly LeaseId[] {
    return [...this.#unsettled];
  }

  /** The keys of these leases are gone, durably. */
  settle(ids: readonly LeaseId[]): void {
    for (const id of ids) this.#unsettled.delete(id);
  }

  async #keepAlive(id: LeaseId, holding: Holding): Promise<void> {
    while (this.#live.has(id)) {
      await this.#clock.sleep(holding.ttlMs / 3, holding.lost.signal);
      const now = this.#clock.monotonicMs();
      if (now >= holding.deadlineMs) this.end(id);
      else holding.deadlineMs = now + holding.ttlMs;
    }
  }
}
