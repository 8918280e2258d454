import type { ObjectStore } from './library.js';

/**
 * Stores that stay open: more than the repositories that are pushed to within a minute on most servers. Each maps the
 * indexes of its packs, which maintenance keeps below some twenty.
 */
const maxKept = 128;
/**
 * How long one stays open. Alternates are read when a store is opened, and what a repository gave to a pool stays in
 * its own packs for an hour; and packs that maintenance removed keep their room while they are open.
 */
const maxAgeMs = 60_000;
/** Resident memory of the whole process above which none stays: well below where a worker is replaced. */
const maxResidentBytes = 160 * 1024 ** 2;

export interface KeptStoresOptions {
  readonly open: (objectsDir: string) => ObjectStore;
  readonly nowMs: () => number;
}

interface Kept {
  readonly store: ObjectStore;
  readonly openedMs: number;
}

/**
 * Object databases of repositories, kept open from one pack to the next: to open one reads the pack directory and looks
 * at four files for each pack, and to find the first object maps the indexes. What came since is found, since libgit2
 * looks again before it says that an object is not there. That one shows an object does not prove that it is still
 * there, no more than with a store opened just now: whoever relies on it asks whether a ref has it (`PackClosure`).
 */
export class KeptStores {
  readonly #options: KeptStoresOptions;
  /** In the order of last use. */
  readonly #kept = new Map<string, Kept>();

  constructor(options: KeptStoresOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Stays open until the next call at least; not the caller's to close. */
  get(objectsDir: string): ObjectStore {
    const nowMs = this.#options.nowMs();
    this.#closeOlderThan(nowMs - maxAgeMs);
    const kept = this.#kept.get(objectsDir) ?? {
      store: this.#options.open(objectsDir),
      openedMs: nowMs,
    };
    this.#kept.delete(objectsDir);
    this.#kept.set(objectsDir, kept);
    const [leastUsed] = this.#kept.keys();
    if (this.#kept.size > maxKept && leastUsed !== undefined) this.drop(leastUsed);
    return kept.store;
  }

  /** Something was wrong with it, or with what it was asked: the next one is opened anew. */
  drop(objectsDir: string): void {
    this.#kept.get(objectsDir)?.store.close();
    this.#kept.delete(objectsDir);
  }

  /** Lets go of all when the process has become large. */
  trim(residentBytes: number): void {
    if (residentBytes > maxResidentBytes) this.#closeOlderThan(Infinity);
  }

  #closeOlderThan(openedMs: number): void {
    for (const [objectsDir, kept] of this.#kept) {
      if (kept.openedMs < openedMs) this.drop(objectsDir);
    }
  }
}
