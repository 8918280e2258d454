/** As many pushes as may well be on their way at once; each takes three blocks of the disk. */
const maxSpares = 64;

/**
 * Quarantines whose pushes are applied, kept for other pushes. To make and to remove directories and marks frees blocks
 * and inodes, which costs a journaling disk, and most of all one that discards what is freed, more than all else of a
 * push. A spare quarantine is renamed into its place and out of it; its mark is written over, and says itself whose it
 * is.
 *
 * Known in memory only: what an earlier process left is removed, and what is not known to have its usual form is never
 * used again.
 */
export class SpareQuarantines {
  readonly #directory: string;
  readonly #spares: string[] = [];
  /** Quarantines that have a mark, of this push or another, and whose names within are on the disk. */
  readonly #marked = new Set<string>();
  /** Quarantines that others may have written into, or still do. */
  readonly #open = new Set<string>();
  #made = 0;

  /** `directory` is for them alone, and empty. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** One that is the caller's from now on. */
  take(): string | undefined {
    return this.#spares.pop();
  }

  /** Where a quarantine may go whose push is applied; undefined when it is to be removed. */
  placeFor(quarantine: string): string | undefined {
    const isUsual = this.#marked.has(quarantine) && !this.#open.has(quarantine);
    this.forget(quarantine);
    if (!isUsual || this.#spares.length >= maxSpares) return undefined;
    this.#made += 1;
    return `${this.#directory}/${this.#made}`;
  }

  /** It is there, and holds nothing but a mark. */
  add(spare: string): void {
    this.#spares.push(spare);
  }

  /** It has a mark, of this push or another, and the names within it are on the disk. */
  marked(quarantine: string): void {
    this.#marked.add(quarantine);
  }

  isMarked(quarantine: string): boolean {
    return this.#marked.has(quarantine);
  }

  /** Programs of others, which may write into it, are told where it is: it is not used again. */
  opened(quarantine: string): void {
    if (this.#marked.has(quarantine)) this.#open.add(quarantine);
  }

  /** It is on its way out. */
  forget(quarantine: string): void {
    this.#marked.delete(quarantine);
    this.#open.delete(quarantine);
  }
}
