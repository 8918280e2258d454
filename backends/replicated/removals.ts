import type { Compare, Coordinator, Operation } from '../contract/coordinator.js';
import type { Logger } from '../contract/environment.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { damageGone } from './damage.js';
import { evicted } from './evictions.js';
import { goneForGood } from './gone-stores.js';
import { readNodeMarks } from './node-marks.js';
import type { Pools } from './pools.js';
import {
  copiesOf,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

export interface RemovalsDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly pools: Pools;
  readonly logger: Logger;
}

/** The record was put once: the repository did not come to be, and nobody buried it. */
export function stillBeingMade(id: string): Compare {
  return { key: keys.repo(id), target: 'version', op: '=', operand: 1 };
}

/** What follows a deletion: the files go, on every store, and the tombstone when they are gone. */
export class Removals {
  readonly #dependencies: RemovalsDependencies;
  /** Those under way, so that close can wait for them. */
  readonly #running = new Set<Promise<void>>();
  #left = 0;

  constructor(dependencies: RemovalsDependencies) {
    this.#dependencies = dependencies;
  }

  /** How often something could not be removed, or may be there to be removed, and waits for a sweep. */
  get left(): number {
    return this.#left;
  }

  /** Something may be left that only a sweep can find. */
  suspect(): void {
    this.#left += 1;
  }

  /** Removes the files of a buried repository in the background. */
  begin(tombstone: RepositoryRecord): void {
    const removal = this.#remove(tombstone)
      .catch((error: unknown) => {
        this.#left += 1;
        this.#dependencies.logger.error(
          { component: 'registry', repo: tombstone.id, err: error },
          'files of a deleted repository stay until the next sweep',
        );
      })
      .finally(() => this.#running.delete(removal));
    this.#running.add(removal);
  }

  /**
   * Makes the record of a repository that is being made a tombstone, durably, and removes the files; of a tombstone, it
   * removes the files. Nothing happens to one that came to be meanwhile, whose record is returned then: whoever made it
   * was only taken for dead, or was not told of it.
   */
  async bury(record: RepositoryRecord): Promise<RepositoryRecord | undefined> {
    try {
      return await this.#bury(record);
    } catch (error) {
      this.#left += 1;
      throw error;
    }
  }

  async #bury(record: RepositoryRecord): Promise<RepositoryRecord | undefined> {
    const { coordinator } = this.#dependencies;
    const tombstone: RepositoryRecord = { ...record, state: 'deleted' };
    if (record.state === 'creating') {
      const key = keys.repo(record.id);
      const { succeeded, results } = await coordinator.transaction({
        compares: [stillBeingMade(record.id)],
        success: [{ type: 'put', key, value: encodeRepository(tombstone) }],
        failure: [{ type: 'get', key }],
      });
      const [now] = results.flatMap((one) => (one.type === 'get' ? one.entries : []));
      const found = succeeded || now === undefined ? undefined : decodeRepository(now);
      if (found?.state === 'active') return found;
    }
    await this.#remove(tombstone);
    return undefined;
  }

  async close(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Files first, then the records: a crash in between finds the tombstone again. */
  async #remove(tombstone: RepositoryRecord): Promise<void> {
    const { coordinator } = this.#dependencies;
    const { id, pool } = tombstone;
    const words = await this.#removeFiles(id, copiesOf(tombstone));
    await coordinator.transaction({
      compares: [],
      success: [
        { type: 'delete', key: keys.repo(id) },
        { type: 'delete', key: keys.head(id) },
        { type: 'delete', key: keys.log(id), rangeEnd: prefixEnd(keys.log(id)) },
        { type: 'delete', key: keys.outbox(id, ''), rangeEnd: prefixEnd(keys.outbox(id, '')) },
        damageGone(id),
        ...(pool === undefined
          ? []
          : [{ type: 'delete', key: keys.poolMember(pool, id) } as const]),
        ...words,
      ],
      failure: [],
    });
    if (pool !== undefined) await this.#collect(pool);
  }

  /**
   * On every store that can be reached. One that is gone for good is not waited for; should it come back all the same,
   * a word of its own tells it, in the tombstone's place, to remove what it has. For any other the tombstone stays.
   */
  async #removeFiles(id: string, members: readonly Voter[]): Promise<readonly Operation[]> {
    const { coordinator, replicas } = this.#dependencies;
    const lost = members.filter(({ storeId }) => replicas.find(storeId) === undefined);
    const marks = lost.length === 0 ? new Map() : await readNodeMarks(coordinator);
    const gone = lost.filter((member) => goneForGood(member, replicas.nodes(), marks));
    await Promise.all(
      members
        .filter((member) => !gone.includes(member))
        .map(async ({ storeId }) => {
          const replica = replicas.find(storeId);
          if (replica === undefined) throw nobodyReachable(replicas, members);
          await replica.destroy(id);
        }),
    );
    return gone.map(({ storeId }) => evicted(id, storeId));
  }

  /** The repository is gone whatever becomes of its pool. */
  async #collect(poolId: string): Promise<void> {
    try {
      await this.#dependencies.pools.collect(poolId);
    } catch (error) {
      this.#dependencies.logger.warn(
        { component: 'registry', pool: poolId, err: error },
        'an object pool is kept until the next sweep',
      );
    }
  }
}
