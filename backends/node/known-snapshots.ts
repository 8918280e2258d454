import type { RefSnapshot } from '../contract/objects.js';

/**
 * Snapshots by repository and digest, the least recently used forgotten first. Kept on both sides of the wire, so that
 * of 50,000 refs only those travel that changed. Snapshots of one repository share what they have in common.
 */
export class KnownSnapshots {
  readonly #maxRefs: number;
  /** In order of last use. */
  readonly #snapshots = new Map<string, RefSnapshot>();
  #refs = 0;

  /** `maxRefs` in all: entries of lists, 8 bytes each, where snapshots share them; some 200 bytes where they do not. */
  constructor(maxRefs: number) {
    this.#maxRefs = maxRefs;
  }

  get(repositoryId: string, digest: string): RefSnapshot | undefined {
    const key = `${repositoryId} ${digest}`;
    const snapshot = this.#snapshots.get(key);
    if (snapshot !== undefined) {
      this.#snapshots.delete(key);
      this.#snapshots.set(key, snapshot);
    }
    return snapshot;
  }

  add(repositoryId: string, digest: string, snapshot: RefSnapshot): void {
    const key = `${repositoryId} ${digest}`;
    this.#forget(key);
    this.#snapshots.set(key, snapshot);
    this.#refs += costOf(snapshot);
    for (const oldest of this.#snapshots.keys()) {
      if (this.#refs <= this.#maxRefs) return;
      this.#forget(oldest);
    }
  }

  #forget(key: string): void {
    const snapshot = this.#snapshots.get(key);
    if (snapshot === undefined) return;
    this.#snapshots.delete(key);
    this.#refs -= costOf(snapshot);
  }
}

/** An empty snapshot takes room too. */
function costOf(snapshot: RefSnapshot): number {
  return snapshot.refs.length + 10;
}
