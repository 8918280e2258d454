import { copyFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import type { ReplicaFork } from '../contract/replica.js';
import { digestOf } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import { linkObjects } from '../git/link-objects.js';
import { removeAllLeftovers } from '../git/maintenance.js';
import {
  alternatesOf,
  borrowFrom,
  handOverBitmap,
  poolNeedsRepack,
  removeHalfLinked,
  repackPool,
  stopBorrowing,
  twins,
} from '../git/object-pool.js';
import type { ObjectReader } from '../git/object-reader.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { packedRefs } from '../git/ref-view.js';
import {
  createRepositoryFiles,
  isMissing,
  type ObjectStoreStats,
  readObjectStoreStats,
  removeTree,
} from '../git/repository-files.js';
import { InterruptibleQueue } from './interruptible-queue.js';
import type { OpenRepository } from './open-repository.js';
import { namesIn } from './quarantine.js';
import { createState, readState } from './state-file.js';
import { isPoolId, type Store } from './store.js';
import { writeWholePack } from './whole-pack-record.js';

export interface PoolDependencies {
  readonly store: Store;
  readonly git: GitRunner;
  readonly objects: Pick<ObjectReader, 'release'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * git looks for alternates when it starts. One that started before its repository borrowed, and that may run for as
 * long as this, needs the packs where they were. It ends with this process: by no clock on the wall is told how long
 * that is.
 */
const unawareMs = 60 * 60_000;

type Borrower = Pick<OpenRepository, 'maintenanceQueue' | 'objectsDirectory'>;

/** What a repository shares, in bytes; its own objects less those that the pool has, too. */
export interface Shared {
  readonly sharedBytes: number;
  readonly own: ObjectStoreStats;
}

/**
 * The object pools of this store. A pool is a bare repository without refs; source and forks borrow its objects. Packs
 * are linked into it and merged, and no object is ever removed from it: it goes as a whole once nobody borrows.
 * The queue of a repository comes before that of its pool.
 */
export class ObjectPools {
  readonly #dependencies: PoolDependencies;
  /** Object directories that began to borrow in this process: when, on the monotonic clock. */
  readonly #borrowingSince = new Map<string, number>();
  readonly #queues = new Map<string, { readonly queue: InterruptibleQueue; users: number }>();

  constructor(dependencies: PoolDependencies) {
    this.#dependencies = dependencies;
  }

  /** What a process that is gone left half-done in pools. Before anything runs in them. */
  async removeLeftovers(): Promise<void> {
    const { store } = this.#dependencies;
    for (const poolId of await store.pools()) {
      await store.removeHalfMade(store.poolDirectory(poolId));
      if (!(await namesIn(store.poolDirectory(poolId))).includes('git')) continue;
      await removeAllLeftovers(store.poolGitDirectory(poolId));
      await removeHalfLinked(this.#objectsOf(poolId));
    }
  }

  /** See `Replica.fork`. */
  async fork(source: OpenRepository, fork: ReplicaFork): Promise<void> {
    if (await this.#isMade(fork)) return;
    await source.maintenanceQueue.runShort(async () => {
      refuseUnlessPinned(source, fork);
      await this.#lend(source, fork);
    });
    // Those that run know of no pool yet.
    await this.#dependencies.objects.release(source.gitDirectory);
    await this.#makeFiles(source, fork);
  }

  /** See `Replica.leavePool`. */
  async leave(repository: OpenRepository, poolId: string): Promise<void> {
    const { objectsDirectory, gitDirectory } = repository;
    await repository.maintenanceQueue.runShort(async () => {
      if ((await this.#poolOf(objectsDirectory)) === poolId) {
        await this.#takeBack(objectsDirectory, poolId);
      }
    });
    await this.#dependencies.objects.release(gitDirectory);
  }

  /**
   * Gives a copy that is about to be put aside what it borrows: nobody is to need the pool for it, which goes with the
   * last member, and by the path to the pool it would not be found from there. Nobody uses the copy. What cannot be
   * given is logged: the copy has to make way.
   */
  async makeWhole(repositoryId: string): Promise<void> {
    const { store, logger } = this.#dependencies;
    const objectsDirectory = store.objectsDirectory(repositoryId);
    try {
      const poolId = await this.#poolOf(objectsDirectory);
      if (poolId !== undefined) await this.#takeBack(objectsDirectory, poolId);
    } catch (error) {
      logger.warn(
        { component: 'store', repo: repositoryId, err: error },
        'a copy is put aside without the objects that it shares with forks: they are in store/pools',
      );
    }
  }

  async #takeBack(objectsDirectory: string, poolId: string): Promise<void> {
    await this.#inPool(poolId, (queue) =>
      queue.runShort(() => linkObjects(this.#objectsOf(poolId), objectsDirectory)),
    );
    await stopBorrowing(objectsDirectory);
  }

  /**
   * See `Replica.destroyPool`. A copy that counts for nothing any more, of a store that was away for example, may still
   * borrow: it gets its objects first, since it may count again one day. `leave` opens it and calls `leave` here.
   */
  async destroy(poolId: string, leave: (repositoryId: string) => Promise<void>): Promise<void> {
    for (const id of await this.#dependencies.store.borrowers(poolId)) {
      const objectsDirectory = this.#dependencies.store.objectsDirectory(id);
      if ((await this.#poolOf(objectsDirectory)) !== poolId) continue;
      try {
        await leave(id);
      } catch (error) {
        // One that cannot be opened is not maintained either: nothing is in the way.
        const { code } = asQuorateError(error);
        if (code !== 'data-corrupt' && code !== 'not-found') throw error;
        await this.#takeBack(objectsDirectory, poolId);
      }
    }
    await this.#inPool(poolId, (queue) =>
      queue.runShort(() => this.#dependencies.store.destroyPool(poolId)),
    );
  }

  /** Merges the packs of the pool that the repository borrows from, if they are many. */
  async maintain(repository: OpenRepository, signal: AbortSignal): Promise<void> {
    const poolId = await this.#poolOf(repository.objectsDirectory);
    if (poolId === undefined || !(await poolNeedsRepack(this.#objectsOf(poolId)))) return;
    const { git, store } = this.#dependencies;
    const gitDir = store.poolGitDirectory(poolId);
    await this.#inPool(poolId, (queue) =>
      queue.runLong(
        (ended) => repackPool({ git, gitDir, signal: AbortSignal.any([signal, ended]) }),
        signal,
      ),
    );
  }

  /** Runs what reads a repository while nothing repacks it, nor the pool that it borrows from; see `runLong`. */
  still<T>(
    { maintenanceQueue, objectsDirectory }: Borrower,
    read: (ended: AbortSignal) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    return maintenanceQueue.runLong(async (ended) => {
      const either = AbortSignal.any([signal, ended]);
      const poolId = await this.#poolOf(objectsDirectory);
      if (poolId === undefined) return read(either);
      return this.#inPool(poolId, (queue) =>
        queue.runLong((endedToo) => read(AbortSignal.any([either, endedToo])), either),
      );
    }, signal);
  }

  async needsMaintenance(objectsDirectory: string): Promise<boolean> {
    const poolId = await this.#poolOf(objectsDirectory);
    return poolId !== undefined && (await poolNeedsRepack(this.#objectsOf(poolId)));
  }

  /** Packs that maintenance has to leave where they are, for what runs since before the repository borrowed. */
  async packsToKeep(objectsDirectory: string): Promise<readonly string[]> {
    this.#forgetOldBorrowers();
    const poolId = await this.#poolOf(objectsDirectory);
    if (poolId === undefined || !this.#borrowingSince.has(objectsDirectory)) return [];
    return (await twins(objectsDirectory, this.#objectsOf(poolId))).packs;
  }

  async stats(objectsDirectory: string): Promise<Shared> {
    const own = await readObjectStoreStats(objectsDirectory);
    const poolId = await this.#poolOf(objectsDirectory);
    if (poolId === undefined) return { own, sharedBytes: 0 };
    const pool = this.#objectsOf(poolId);
    const { packs, sizeBytes } = await twins(objectsDirectory, pool);
    return {
      own: {
        ...own,
        packCount: Math.max(0, own.packCount - packs.length),
        sizeBytes: Math.max(0, own.sizeBytes - sizeBytes),
      },
      sharedBytes: (await readObjectStoreStats(pool)).sizeBytes,
    };
  }

  /** Puts what the source has into the pool, and lets it borrow from there. */
  async #lend(source: OpenRepository, fork: ReplicaFork): Promise<void> {
    const { poolId, objectFormat } = fork;
    const { objectsDirectory } = source;
    const pool = this.#objectsOf(poolId);
    const before = await this.#poolOf(objectsDirectory);
    // Of a pool that the coordinator knows no more, since an older copy of it was put back.
    if (before !== undefined && before !== poolId) await this.#takeBack(objectsDirectory, before);
    const borrows = await alternatesOf(objectsDirectory);
    if (borrows.some((directory) => directory !== pool)) {
      throw new QuorateError(
        'failed-precondition',
        'the repository borrows objects from elsewhere (objects/info/alternates); forks could lose them',
      );
    }
    await this.#inPool(poolId, (queue) =>
      queue.runShort(async () => {
        await this.#makePool(poolId, objectFormat);
        await this.#dependencies.store.noteBorrowers(poolId, [source.id, fork.repositoryId]);
        await linkObjects(objectsDirectory, pool);
        await handOverBitmap(objectsDirectory, pool);
      }),
    );
    if (borrows.length > 0) return;
    this.#forgetOldBorrowers();
    this.#borrowingSince.set(objectsDirectory, this.#dependencies.clock.monotonicMs());
    await borrowFrom(objectsDirectory, pool);
  }

  #forgetOldBorrowers(): void {
    const beforeMs = this.#dependencies.clock.monotonicMs() - unawareMs;
    for (const [directory, sinceMs] of this.#borrowingSince) {
      if (sinceMs < beforeMs) this.#borrowingSince.delete(directory);
    }
  }

  async #makePool(poolId: string, objectFormat: ObjectFormat): Promise<void> {
    const { store, git } = this.#dependencies;
    const gitDir = store.poolGitDirectory(poolId);
    await store.makePoolDirectory(poolId);
    if ((await namesIn(store.poolDirectory(poolId))).includes('git')) return;
    await createRepositoryFiles({ git, gitDir, objectFormat, head: 'refs/heads/none' });
    await store.removeHalfMade(store.poolDirectory(poolId));
  }

  async #isMade({ repositoryId, refs, head }: ReplicaFork): Promise<boolean> {
    const { store } = this.#dependencies;
    try {
      const { generation, digest } = await readState(store.repositoryDirectory(repositoryId));
      return generation > 1 || digest === forkDigest(refs, head);
    } catch (error) {
      if (error instanceof QuorateError && error.code === 'not-found') return false;
      throw error;
    }
  }

  async #makeFiles(source: OpenRepository, fork: ReplicaFork): Promise<void> {
    const { store, git } = this.#dependencies;
    const { repositoryId, objectFormat, head, refs } = fork;
    const directory = store.repositoryDirectory(repositoryId);
    await store.makeRepositoryDirectory(repositoryId);
    // Without a state it was never whole.
    await removeTree(store.gitDirectory(repositoryId));
    await createRepositoryFiles({
      git,
      gitDir: store.gitDirectory(repositoryId),
      objectFormat,
      head,
      fill: async (building) => {
        await borrowFrom(join(building, 'objects'), this.#objectsOf(fork.poolId));
        if (refs.length > 0) await writeFile(join(building, 'packed-refs'), packedRefs(refs));
        await copyShallow(source.gitDirectory, building);
      },
    });
    await store.removeHalfMade(directory);
    const digest = forkDigest(refs, head);
    const whole = source.wholePack;
    if (whole?.generation === fork.sourceGeneration && whole.digest === digest) {
      await writeWholePack(store.wholePackPath(repositoryId), { ...whole, generation: 1 });
    }
    await createState(store.repositoryDirectory(repositoryId), {
      objectFormat,
      generation: 1,
      digest,
    });
  }

  /** The pool that a repository borrows from. What administrators let it borrow from is none of ours. */
  async #poolOf(objectsDirectory: string): Promise<string | undefined> {
    const [directory, ...more] = await alternatesOf(objectsDirectory);
    if (directory === undefined || more.length > 0) return undefined;
    const poolId = basename(dirname(dirname(directory)));
    return isPoolId(poolId) && this.#objectsOf(poolId) === directory ? poolId : undefined;
  }

  #objectsOf(poolId: string): string {
    return resolve(this.#dependencies.store.poolGitDirectory(poolId), 'objects');
  }

  async #inPool<T>(poolId: string, use: (queue: InterruptibleQueue) => Promise<T>): Promise<T> {
    const slot = this.#queues.get(poolId) ?? { queue: new InterruptibleQueue(), users: 0 };
    this.#queues.set(poolId, slot);
    slot.users++;
    try {
      return await use(slot.queue);
    } finally {
      slot.users--;
      if (slot.users === 0) this.#queues.delete(poolId);
    }
  }
}

/** Where the history of the source itself is cut off, so is that of its fork. */
async function copyShallow(from: string, to: string): Promise<void> {
  await copyFile(join(from, 'shallow'), join(to, 'shallow')).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
  });
}

/** Digest of a fork's refs at its first generation. */
function forkDigest(refs: ReplicaFork['refs'], symref: string): string {
  return digestOf(createRefSnapshot({ generation: 1, head: { symref }, refs }));
}

/** The objects of a retained generation are all there, and nothing is pruned while the caller holds the queue. */
function refuseUnlessPinned(source: OpenRepository, fork: ReplicaFork): void {
  const pinned = source.retained.find(({ generation }) => generation === fork.sourceGeneration);
  const same = fork.refs.every(({ name, oid }) => pinned?.find(name)?.oid === oid);
  if (pinned !== undefined && same) return;
  throw new QuorateError('aborted', 'the source moved on while it was forked; try again');
}
