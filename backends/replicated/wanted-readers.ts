import type { Clock } from '../contract/environment.js';

/** When a repository gets copies that are only read. */
export interface ReadReplicaSettings {
  /** Of a repository; 0: none gets any. */
  readonly max: number;
  /** Reads per second that one copy is to serve. */
  readonly ratePerCopy: number;
  /** How long a repository has to be calm before it loses one. */
  readonly coolDownMs: number;
}

export const noReadReplicas: ReadReplicaSettings = { max: 0, ratePerCopy: 1, coolDownMs: 0 };

/** How many readers each repository is to have: as many as its reads ask for, and no fewer soon after that. */
export class WantedReaders {
  readonly #settings: ReadReplicaSettings;
  readonly #clock: Clock;
  /** Monotonic time since when a repository has more than it needs. */
  readonly #calmSince = new Map<string, number>();
  #rates: ReadonlyMap<string, number> = new Map();

  constructor(settings: ReadReplicaSettings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
  }

  /** Reads per second, by repository; absent ones have hardly any. */
  see(rates: ReadonlyMap<string, number>): void {
    this.#rates = rates;
  }

  /** It is gone: nobody looks at it any more. */
  forget(repositoryId: string): void {
    this.#calmSince.delete(repositoryId);
  }

  /** Repositories that are read more than their voters alone are to serve, or were lately. */
  get busy(): readonly string[] {
    return [...new Set([...this.#rates.keys(), ...this.#calmSince.keys()])];
  }

  of({
    id,
    voters,
    readers = [],
  }: {
    readonly id: string;
    readonly voters: readonly unknown[];
    readonly readers?: readonly unknown[];
  }): number {
    const { max, ratePerCopy, coolDownMs } = this.#settings;
    const copies = Math.ceil((this.#rates.get(id) ?? 0) / ratePerCopy);
    const wanted = Math.min(max, Math.max(0, copies - voters.length));
    if (wanted >= readers.length || max === 0) {
      this.#calmSince.delete(id);
      return wanted;
    }
    const nowMs = this.#clock.monotonicMs();
    const sinceMs = this.#calmSince.get(id) ?? nowMs;
    this.#calmSince.set(id, sinceMs);
    return nowMs - sinceMs >= coolDownMs ? wanted : readers.length;
  }
}
