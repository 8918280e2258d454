/** Repositories that are counted; when there are more, the one that began longest ago is forgotten. */
const maxRepositories = 10_000;

interface Missed {
  readonly generation: number;
  readonly count: number;
}

/**
 * Clones of everything for which no stored pack was at hand, so that git made one: for how many of one generation, by
 * repository. Kept in memory only: it decides nothing but when a repack pays.
 */
export class MissedClones {
  readonly #missed = new Map<string, Missed>();

  /** Notes one more; returns their number at this generation. */
  note(repositoryId: string, generation: number): number {
    const known = this.#missed.get(repositoryId);
    const count = known?.generation === generation ? known.count + 1 : 1;
    this.#missed.set(repositoryId, { generation, count });
    const [oldest] = this.#missed.keys();
    if (this.#missed.size > maxRepositories && oldest !== undefined) this.#missed.delete(oldest);
    return count;
  }

  of(repositoryId: string): number {
    return this.#missed.get(repositoryId)?.count ?? 0;
  }

  /** After a repack, or when the repository is gone. */
  forget(repositoryId: string): void {
    this.#missed.delete(repositoryId);
  }
}
