import type { Clock } from '../contract/environment.js';
import { pauseMs, quietMs } from './fill-patience.js';

/** Repositories with copies that cannot be filled; what is beyond has its time begin anew with each try. */
const maxKnown = 10_000;

/** A copy whose fill was given up, since nothing came of it. */
export interface GivenUpFill {
  readonly repositoryId: string;
  readonly storeId: string;
  /** How often, one after the other. */
  readonly times: number;
  readonly reason: string;
}

/** For how long copies could not be filled, as far as this process tried. */
export class FailedFills {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Monotonic time of the first failure since it was filled, by repository and store. */
  readonly #sinceMs = new Map<string, Map<string, number>>();

  /** By repository and store. */
  readonly #givenUp = new Map<
    string,
    Map<string, GivenUpFill & { readonly pausedUntilMs: number }>
  >();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  failed(repositoryId: string, storeId: string): void {
    const known = this.#sinceMs.get(repositoryId);
    if (known === undefined && this.#sinceMs.size >= maxKnown) return;
    const stores = known ?? new Map<string, number>();
    if (!stores.has(storeId)) stores.set(storeId, this.#clock.monotonicMs());
    this.#sinceMs.set(repositoryId, stores);
  }

  /** It stalled: it is not tried again for a while, which is longer each time, and then given more time. */
  givenUp(repositoryId: string, storeId: string, reason: string): void {
    this.failed(repositoryId, storeId);
    const known = this.#givenUp.get(repositoryId);
    if (known === undefined && this.#givenUp.size >= maxKnown) return;
    const stores = known ?? new Map<string, GivenUpFill & { readonly pausedUntilMs: number }>();
    const times = (stores.get(storeId)?.times ?? 0) + 1;
    const pausedUntilMs = this.#clock.monotonicMs() + pauseMs(times);
    stores.set(storeId, { repositoryId, storeId, times, reason, pausedUntilMs });
    this.#givenUp.set(repositoryId, stores);
  }

  /** The stores whose copies of a repository are not to be filled yet. */
  paused(repositoryId: string): readonly string[] {
    const nowMs = this.#clock.monotonicMs();
    return [...(this.#givenUp.get(repositoryId)?.values() ?? [])].flatMap((one) =>
      one.pausedUntilMs > nowMs ? [one.storeId] : [],
    );
  }

  /** For how long nothing need be heard of the next try, in ms. */
  quietMs(repositoryId: string, storeId: string): number {
    return quietMs(this.#givenUp.get(repositoryId)?.get(storeId)?.times ?? 0);
  }

  /** Those that were given up and not filled since, at most `limit`. */
  list(limit: number): readonly GivenUpFill[] {
    const found: GivenUpFill[] = [];
    for (const stores of this.#givenUp.values()) {
      for (const { pausedUntilMs: _until, ...one } of stores.values()) {
        if (found.length >= limit) return found;
        found.push(one);
      }
    }
    return found;
  }

  filled(repositoryId: string, storeId: string): void {
    const givenUp = this.#givenUp.get(repositoryId);
    givenUp?.delete(storeId);
    if (givenUp?.size === 0) this.#givenUp.delete(repositoryId);
    const stores = this.#sinceMs.get(repositoryId);
    stores?.delete(storeId);
    if (stores?.size === 0) this.#sinceMs.delete(repositoryId);
  }

  /** In ms; 0: it can, or it is not known. */
  forMs(repositoryId: string, storeId: string): number {
    const sinceMs = this.#sinceMs.get(repositoryId)?.get(storeId);
    return sinceMs === undefined ? 0 : this.#clock.monotonicMs() - sinceMs;
  }

  /** Of one repository, whose copies are all as they should be; of all, without. */
  forget(repositoryId?: string): void {
    if (repositoryId === undefined) {
      this.#sinceMs.clear();
      this.#givenUp.clear();
    } else {
      this.#sinceMs.delete(repositoryId);
      this.#givenUp.delete(repositoryId);
    }
  }
}
