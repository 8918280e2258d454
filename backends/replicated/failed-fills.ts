import type { Clock } from '../contract/environment.js';

/** Repositories with copies that cannot be filled; what is beyond has its time begin anew with each try. */
const maxKnown = 10_000;

/** For how long copies could not be filled, as far as this process tried. */
export class FailedFills {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Monotonic time of the first failure since it was filled, by repository and store. */
  readonly #sinceMs = new Map<string, Map<string, number>>();

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

  filled(repositoryId: string, storeId: string): void {
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
    if (repositoryId === undefined) this.#sinceMs.clear();
    else this.#sinceMs.delete(repositoryId);
  }
}
