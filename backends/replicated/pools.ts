import type { Compare, Coordinator, KeyValue, Operation } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { deleted } from './basis.js';
import { evicted } from './evictions.js';
import { goneForGood } from './gone-stores.js';
import { readNodeMarks } from './node-marks.js';
import {
  copiesOf,
  decodePool,
  decodeRepository,
  encodeRecord,
  encodeRepository,
  type PoolRecord,
  type RepositoryRecord,
  scan,
} from './records.js';
import type { ReplicaDirectory } from './voters.js';

export interface PoolsDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A lost compare-and-swap means that somebody else's went through; this many in a row do not happen by chance. */
const maxRaces = 30;

/**
 * So long it counts as known how many share a pool: whoever measures thousands of forks of one repository asks for each
 * of them. What this process changes is seen at once; the number is for dividing what they share, and for showing.
 */
const sizeKnownMs = 10_000;
/** Pools of which that is remembered. */
const maxSizes = 1_000;

/** What a fork starts from. */
export interface Enrolment {
  readonly source: RepositoryRecord;
  /** Its record, state `creating`, is stored, and the pool cannot go while it is. */
  readonly fork: RepositoryRecord;
  readonly poolId: string;
}

/**
 * Object pools, as the coordinator knows them: `pools/{id}`, and a key for each member, which is put in the transaction
 * that makes a repository a member and deleted with its record, when its files are gone. A pool is given up in a
 * transaction that sees at most one member, which has taken its objects back by then; its files go after that.
 */
export class Pools {
  readonly #dependencies: PoolsDependencies;
  /** The oldest first; when it was asked for, on the monotonic clock. */
  readonly #sizes = new Map<string, { readonly count: Promise<number>; readonly atMs: number }>();

  constructor(dependencies: PoolsDependencies) {
    this.#dependencies = dependencies;
  }

  /**
   * Records a fork that is about to be made, and makes it and its source members of one pool. `record` is what is known
   * of the fork before its source was read.
   */
  async enrol(
    sourceId: string,
    record: (source: RepositoryRecord) => RepositoryRecord,
  ): Promise<Enrolment> {
    const { coordinator } = this.#dependencies;
    for (let race = 0; race < maxRaces; race++) {
      const stored = await coordinator.get(keys.repo(sourceId));
      const source = stored === undefined ? undefined : decodeRepository(stored);
      if (stored === undefined || source?.state !== 'active') throw deleted(sourceId);
      if (source.pool === undefined) {
        await this.#found(stored, source);
        continue;
      }
      const poolId = source.pool;
      const pool = await coordinator.get(keys.pool(poolId));
      if (pool === undefined || decodePool(pool).state !== 'active') continue;
      const fork: RepositoryRecord = { ...record(source), pool: poolId };
      const wider = widened(decodePool(pool), fork.voters);
      const { succeeded } = await coordinator.transaction({
        compares: [unchanged(stored), unchanged(pool)],
        success: [
          { type: 'put', key: keys.repo(fork.id), value: encodeRepository(fork) },
          member(poolId, fork.id),
          ...(wider === undefined
            ? []
            : [{ type: 'put', key: keys.pool(poolId), value: encodeRecord(wider) } as const]),
        ],
        failure: [],
      });
      if (!succeeded) continue;
      this.#sizes.delete(poolId);
      return { source, fork, poolId };
    }
    throw new QuorateError('aborted', 'the repository is being changed by others; try again');
  }

  /** Repositories that share the pool; what other processes changed in the last ten seconds may be missing. */
  size(poolId: string): Promise<number> {
    const nowMs = this.#dependencies.clock.monotonicMs();
    const known = this.#sizes.get(poolId);
    if (known !== undefined && nowMs - known.atMs < sizeKnownMs) return known.count;
    const count = this.#count(poolId);
    this.#sizes.delete(poolId);
    this.#sizes.set(poolId, { count, atMs: nowMs });
    const [oldest] = this.#sizes.keys();
    if (this.#sizes.size > maxSizes && oldest !== undefined) this.#sizes.delete(oldest);
    // Who asks next asks anew.
    count.catch(() => {
      if (this.#sizes.get(poolId)?.count === count) this.#sizes.delete(poolId);
    });
    return count;
  }

  async #count(poolId: string): Promise<number> {
    let count = 0;
    const prefix = keys.poolMembers(poolId);
    for await (const { version } of scan(this.#dependencies.coordinator, prefix, {
      keysOnly: true,
    })) {
      if (version > 0) count++;
    }
    return count;
  }

  /** Gives a pool up that at most one repository is a member of. Does nothing to others; may be tried at any time. */
  async collect(poolId: string): Promise<void> {
    const { coordinator } = this.#dependencies;
    // Whoever left it may be why this is tried.
    this.#sizes.delete(poolId);
    const stored = await coordinator.get(keys.pool(poolId));
    if (stored === undefined) return;
    const pool = decodePool(stored);
    if (pool.state === 'deleted') return this.#remove(poolId, pool);
    const prefix = keys.poolMembers(poolId);
    const { entries, revision } = await coordinator.range(prefix, {
      rangeEnd: prefixEnd(prefix),
      limit: 2,
      keysOnly: true,
    });
    const [last] = entries;
    if (entries.length > 1) return;
    const release = last === undefined ? nothing : await this.#release(poolId, last);
    if (release === undefined) return;
    const tombstone: PoolRecord = { ...pool, state: 'deleted' };
    const { succeeded } = await coordinator.transaction({
      compares: [
        unchanged(stored),
        // Nobody became a member since.
        {
          key: prefix,
          rangeEnd: prefixEnd(prefix),
          target: 'createRevision',
          op: '<',
          operand: revision + 1,
        },
        ...release.compares,
      ],
      success: [
        { type: 'put', key: keys.pool(poolId), value: encodeRecord(tombstone) },
        ...release.operations,
      ],
      failure: [],
    });
    if (succeeded) await this.#remove(poolId, tombstone);
  }

  /** Finishes what a crash interrupted. Runs once the repositories are recovered. */
  async sweep(): Promise<void> {
    const { coordinator, logger } = this.#dependencies;
    for await (const { key } of scan(coordinator, keys.pools, { keysOnly: true })) {
      try {
        await this.collect(key.slice(keys.pools.length));
      } catch (error) {
        logger.warn({ component: 'pools', key, err: error }, 'an object pool is kept for now');
      }
    }
  }

  /** The first fork of a repository: it becomes the first member of a new pool. A lost race is the caller's to see. */
  async #found(stored: KeyValue, source: RepositoryRecord): Promise<void> {
    const { coordinator, clock, random } = this.#dependencies;
    const poolId = Buffer.from(random.bytes(16)).toString('hex');
    const pool: PoolRecord = {
      state: 'active',
      voters: source.voters,
      createdAtMs: clock.nowMs(),
    };
    const founded: RepositoryRecord = { ...source, pool: poolId, epoch: source.epoch + 1 };
    await coordinator.transaction({
      compares: [unchanged(stored)],
      success: [
        { type: 'put', key: keys.pool(poolId), value: encodeRecord(pool) },
        { type: 'put', key: keys.repo(source.id), value: encodeRepository(founded) },
        member(poolId, source.id),
      ],
      failure: [],
    });
  }

  /** Lets the last member take its objects back, on every store. Undefined when it is not its time. */
  async #release(
    poolId: string,
    { key }: KeyValue,
  ): Promise<{ compares: readonly Compare[]; operations: readonly Operation[] } | undefined> {
    const { coordinator } = this.#dependencies;
    const id = key.slice(keys.poolMembers(poolId).length);
    const stored = await coordinator.get(keys.repo(id));
    const record = stored === undefined ? undefined : decodeRepository(stored);
    // One that is being made or removed comes back here by itself.
    if (stored === undefined || record?.state !== 'active') return undefined;
    const { pool: _left, ...rest } = record;
    for (const replica of this.#replicasOf(copiesOf(record))) {
      await replica.leavePool(id, poolId).catch(unlessAbsent);
    }
    const released = { ...rest, epoch: record.epoch + 1 };
    return {
      compares: [unchanged(stored)],
      operations: [
        { type: 'put', key: keys.repo(id), value: encodeRepository(released) },
        { type: 'delete', key },
      ],
    };
  }

  /** Files first, then the record: a crash in between finds the tombstone again. */
  async #remove(poolId: string, tombstone: PoolRecord): Promise<void> {
    const { coordinator, replicas } = this.#dependencies;
    const marks = await readNodeMarks(coordinator);
    const isGone = (member: PoolRecord['voters'][number]): boolean =>
      goneForGood(member, replicas.nodes(), marks) !== undefined;
    const gone = tombstone.voters.filter(isGone);
    const left = tombstone.voters.filter((member) => !isGone(member));
    for (const replica of this.#replicasOf(left)) await replica.destroyPool(poolId);
    const lost = [...new Set(gone.map(({ storeId }) => storeId))];
    await coordinator.transaction({
      compares: [],
      success: [
        { type: 'delete', key: keys.pool(poolId) },
        // Should it come back all the same.
        ...lost.map((storeId) => evicted(poolId, storeId, { pool: true })),
      ],
      failure: [],
    });
  }

  /** Each of the stores once. `unavailable` when one cannot be reached: it is tried again at the next occasion. */
  #replicasOf(voters: PoolRecord['voters']) {
    const storeIds = [...new Set(voters.map(({ storeId }) => storeId))];
    return storeIds.map((storeId) => {
      const replica = this.#dependencies.replicas.find(storeId);
      if (replica !== undefined) return replica;
      throw new QuorateError('unavailable', 'a store that has the object pool cannot be reached');
    });
  }
}

/** The pool's record with stores that it did not have; undefined when it has them all. */
function widened(pool: PoolRecord, voters: PoolRecord['voters']): PoolRecord | undefined {
  const known = new Set(pool.voters.map(({ storeId }) => storeId));
  const more = voters.filter(({ storeId }) => !known.has(storeId));
  return more.length === 0 ? undefined : { ...pool, voters: [...pool.voters, ...more] };
}

const nothing = { compares: [], operations: [] };

function member(poolId: string, id: string): Operation {
  return { type: 'put', key: keys.poolMember(poolId, id), value: encodeRecord({}) };
}

function unchanged({ key, modRevision }: KeyValue): Compare {
  return { key, target: 'modRevision', op: '=', operand: modRevision };
}

/** A store that was to get a copy and has none borrows nothing. */
function unlessAbsent(error: unknown): void {
  if (!(error instanceof QuorateError && error.code === 'not-found')) throw error;
}
