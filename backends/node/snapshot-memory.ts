import type { Oid, RefSnapshot } from '../contract/objects.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter } from '../git/digest.js';
import { isZero } from '../git/ref-commands.js';
import { nextSnapshot } from '../git/ref-snapshot.js';
import { KnownSnapshots } from './known-snapshots.js';

export interface RememberedSnapshot {
  readonly digest: string;
  readonly snapshot: RefSnapshot;
}

/** Generations of one repository that are offered to a node: the last ones seen. */
const perRepository = 4;
/** Repositories of which the last generations are noted; the snapshots themselves are bounded by their refs. */
const maxRepositories = 50_000;
/** 2,000,000 refs of which nothing is shared take some 400 MB. */
const maxRefs = 2_000_000;

/** Snapshots that a process has got from storage nodes, for all of its connections to them. */
export class SnapshotMemory {
  readonly #snapshots = new KnownSnapshots(maxRefs);
  /** Digests by repository, newest last. */
  readonly #digests = new Map<string, readonly string[]>();
  /** By store and repository. */
  readonly #first = new Map<string, Promise<unknown>>();

  /** The snapshot of a generation, when it is known. */
  find(
    repositoryId: string,
    head: { generation: number; digest: string },
  ): RefSnapshot | undefined {
    const snapshot = this.#snapshots.get(repositoryId, head.digest);
    return snapshot?.generation === head.generation ? snapshot : undefined;
  }

  /** What is known of a repository, newest first. */
  known(repositoryId: string): readonly RememberedSnapshot[] {
    return (this.#digests.get(repositoryId) ?? []).toReversed().flatMap((digest) => {
      const snapshot = this.#snapshots.get(repositoryId, digest);
      return snapshot === undefined ? [] : [{ digest, snapshot }];
    });
  }

  add(repositoryId: string, digest: string, snapshot: RefSnapshot): void {
    this.#snapshots.add(repositoryId, digest, snapshot);
    const before = this.#digests.get(repositoryId) ?? [];
    const digests = [...before.filter((other) => other !== digest), digest].slice(-perRepository);
    this.#digests.delete(repositoryId);
    this.#digests.set(repositoryId, digests);
    if (this.#digests.size <= maxRepositories) return;
    const [oldest] = this.#digests.keys();
    if (oldest !== undefined) this.#digests.delete(oldest);
  }

  /**
   * Notes the refs that a commit of this process made of refs that are known, so that no store has to be asked for
   * them. What other refs than branches name may have a peeled value, which only a store can look up.
   */
  advance(repositoryId: string, { generation, digest, updates, ...more }: LogEntry): void {
    const { head, after, updatesDigest } = more;
    if (head !== undefined || after !== undefined || updatesDigest !== undefined) return;
    if (!updates.every(({ ref, newOid }) => isZero(newOid) || isBranch(ref))) return;
    const base = this.known(repositoryId).find(
      (one) =>
        one.snapshot.generation === generation - 1 && digestAfter(one.digest, updates) === digest,
    );
    if (base === undefined) return;
    const peeled = new Map<Oid, Oid>();
    this.add(repositoryId, digest, nextSnapshot(base.snapshot, { generation, updates, peeled }));
  }

  /**
   * Runs `read` of a store. While nothing is known of a repository, others wait for the first at that store to end,
   * whatever becomes of it: a hundred clones that come at once do not move all refs a hundred times. Not for one at
   * another store, whose disk may hang.
   */
  async oneAtFirst<T>(
    { repositoryId, storeId }: { readonly repositoryId: string; readonly storeId: string },
    read: () => Promise<T>,
  ): Promise<T> {
    const key = `${storeId}/${repositoryId}`;
    const first = this.#first.get(key);
    if (first !== undefined) await first.catch(() => undefined);
    if (this.#first.has(key) || this.known(repositoryId).length > 0) return read();
    const reading = read();
    this.#first.set(key, reading);
    try {
      return await reading;
    } finally {
      this.#first.delete(key);
    }
  }
}

function isBranch(ref: string): boolean {
  return ref.startsWith('refs/heads/');
}
