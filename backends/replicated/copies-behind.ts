import { lacksMoreThanLog, type SetView } from './reconcile.js';

/** Repositories of which it is known; what is beyond is filled all the same. */
const maxKnown = 10_000;
/** Nodes that others are told of: a disk that was put back is one node's trouble, or that of a few. */
const maxNodesTold = 50;

/**
 * Voters that lack what the push log holds no more, or have no copy, as they were seen last: their disks were put back
 * to an older copy, or lost files. The log does not tell of them, since it is empty.
 */
export class CopiesBehind {
  /** Their nodes, by repository. */
  readonly #nodes = new Map<string, readonly string[]>();

  get repositories(): ReadonlySet<string> {
    return new Set(this.#nodes.keys());
  }

  get count(): number {
    let count = 0;
    for (const nodes of this.#nodes.values()) count += nodes.length;
    return count;
  }

  /** How many copies, by node. */
  get byNode(): Readonly<Record<string, number>> {
    const counts = new Map<string, number>();
    for (const nodes of this.#nodes.values()) {
      for (const nodeId of nodes) counts.set(nodeId, (counts.get(nodeId) ?? 0) + 1);
    }
    const told = [...counts].sort(([, a], [, b]) => b - a).slice(0, maxNodesTold);
    return Object.fromEntries(told);
  }

  /** How the set of a repository is now. */
  see(repositoryId: string, view: SetView): void {
    const nodes = view.record.voters.flatMap(({ nodeId, storeId }) => {
      const store = view.stores.get(storeId);
      return store !== undefined && lacksMoreThanLog(view, store) ? [nodeId] : [];
    });
    if (nodes.length === 0) this.#nodes.delete(repositoryId);
    else if (this.#nodes.has(repositoryId) || this.#nodes.size < maxKnown) {
      this.#nodes.set(repositoryId, nodes);
    }
  }

  /** Of one repository, which is gone; of all, without. */
  forget(repositoryId?: string): void {
    if (repositoryId === undefined) this.#nodes.clear();
    else this.#nodes.delete(repositoryId);
  }
}
