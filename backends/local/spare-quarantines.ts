import { join } from 'node:path';
import type { TakeFileSteps } from '../git/file-steps.js';

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
  readonly #take: TakeFileSteps;
  readonly #spares: string[] = [];
  /** Quarantines that have a mark, of this push or another: resolves when all their names are on the disk. */
  readonly #marked = new Map<string, Promise<void>>();
  /** Quarantines that others may have written into, or still do. */
  readonly #open = new Set<string>();
  #made = 0;

  /** `directory` is for them alone, and empty. */
  constructor(directory: string, take: TakeFileSteps) {
    this.#directory = directory;
    this.#take = take;
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
    return join(this.#directory, String(this.#made));
  }

  /** It is there, and holds nothing but a mark. */
  add(spare: string): void {
    this.#spares.push(spare);
  }

  /** A spare one has been given this name, which is put on the disk while a pack is being indexed in it. */
  reused(quarantine: string): void {
    const named = this.#take([{ do: 'sync', path: join(quarantine, '..') }]);
    // Whoever relies on the name waits for it.
    named.catch(() => undefined);
    this.#marked.set(quarantine, named);
  }

  /** A new one has been marked, and all its names are on the disk. */
  marked(quarantine: string): void {
    this.#marked.set(quarantine, Promise.resolve());
  }

  /** Of a quarantine with a mark that can be written over: resolves when its names are on the disk. */
  namesOf(quarantine: string): Promise<void> | undefined {
    return this.#marked.get(quarantine);
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
