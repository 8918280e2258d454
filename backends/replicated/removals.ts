import type { Compare, Coordinator, Operation } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { incarnationName } from '../coordination/cluster-record.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { HeadRecord } from '../contract/repository.js';
import type { StoredRecord } from './basis.js';
import { damageGone } from './damage.js';
import { evicted } from './evictions.js';
import { goneForGood } from './gone-stores.js';
import { readNodeMarks } from './node-marks.js';
import type { Pools } from './pools.js';
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import { mostCommitted } from './unfinished.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

export interface RemovalsDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly pools: Pools;
  readonly pipeline: Pick<PushPipeline, 'repositoryGone'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A sweep waits so long for one removal: files may have readers for hours, and a disk may hang. */
const patienceMs = 3_000;
/** Removals under way beyond which a sweep begins no more: nearly all of them wait for readers, or for a disk. */
const maxUnderWay = 200;

/** As it was put, or found. */
interface FoundTombstone {
  /** What stores may hold, where it is not known whether this copy of the coordinator put the tombstone. */
  readonly head: HeadRecord | undefined;
  readonly revision: number;
  /** Somebody deleted it, and no older copy was put back since. */
  readonly isWanted: boolean;
}

/** The record was put once: the repository did not come to be, and nobody buried it. */
export function stillBeingMade(id: string): Compare {
  return { key: keys.repo(id), target: 'version', op: '=', operand: 1 };
}

/** The record of what somebody deletes. */
export async function tombstoneOf(
  coordinator: Coordinator,
  record: RepositoryRecord,
): Promise<RepositoryRecord> {
  const deletedIn = incarnationName(await coordinator.get(keys.cluster));
  return { ...record, state: 'deleted', ...(deletedIn === undefined ? {} : { deletedIn }) };
}

/** Nothing is committed to it until then. `failed-precondition` when something was before. */
export async function neverPushed(
  coordinator: Coordinator,
  { id, name }: RepositoryRecord,
): Promise<Compare> {
  const key = keys.head(id);
  const head = await coordinator.get(key);
  if (head !== undefined && decodeHead(head).generation > 0) {
    throw new QuorateError('failed-precondition', `${name} is not deleted: it was pushed to`);
  }
  return { key, target: 'modRevision', op: '=', operand: head?.modRevision ?? 0 };
}

/** What follows a deletion: the files go, on every store, and the tombstone when they are gone. */
export class Removals {
  readonly #dependencies: RemovalsDependencies;
  /** Those under way, by repository: close waits for them, and a sweep begins none of them again. */
  readonly #running = new Map<string, Promise<void>>();
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

  /**
   * Removes the files of a repository that somebody deleted just now, in the background. They may have readers for
   * hours: what is kept about it elsewhere goes at once, else with its record. Never rejects.
   */
  async begin({ record: tombstone, revision }: StoredRecord): Promise<{ isForgotten: boolean }> {
    const { id, name } = tombstone;
    const removal = this.#finish(tombstone, { head: undefined, revision, isWanted: true }).catch(
      (error: unknown) => {
        this.#left += 1;
        this.#dependencies.logger.error(
          { component: 'registry', repo: id, err: error },
          'files of a deleted repository stay until the next sweep',
        );
      },
    );
    this.#run(id, removal);
    try {
      await this.#dependencies.pipeline.repositoryGone({ id, name });
      return { isForgotten: true };
    } catch (error) {
      this.#dependencies.logger.warn(
        { component: 'registry', repo: id, err: error },
        'what is kept about a deleted repository goes later',
      );
      return { isForgotten: false };
    }
  }

  /**
   * As `bury`, for a sweep. Resolves when it is over, or goes on in the background when that takes long. Never rejects;
   * what could not be removed is logged.
   */
  async sweep(record: RepositoryRecord): Promise<void> {
    const { id } = record;
    if (this.#running.has(id)) return;
    if (this.#running.size >= maxUnderWay) {
      this.#left += 1;
      return;
    }
    const removal = this.bury(record).then(
      () => undefined,
      (error: unknown) => {
        // One repository in trouble is no reason not to serve the others.
        this.#dependencies.logger.error(
          { component: 'registry', repo: id, err: error },
          'a repository could not be swept',
        );
      },
    );
    this.#run(id, removal);
    const over = new AbortController();
    const late = this.#dependencies.clock.sleep(patienceMs, over.signal);
    await Promise.race([removal, late]);
    over.abort('over');
  }

  /** `removal` never rejects. */
  #run(id: string, removal: Promise<void>): void {
    const running = removal.finally(() => {
      if (this.#running.get(id) === running) this.#running.delete(id);
    });
    this.#running.set(id, running);
  }

  /**
   * Makes the record of a repository that is being made a tombstone, durably, and removes the files; of a tombstone, it
   * removes the files. Nothing happens to one that came to be meanwhile, whose record is returned then: whoever made it
   * was only taken for dead, or was not told of it. `failed-precondition` when a store holds more than was committed by
   * what the coordinator says: that is an older copy then, and a recovery is to find the repository.
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
    const { id } = record;
    if (record.state === 'creating') {
      const key = keys.repo(id);
      try {
        await this.#refuseAhead(record, undefined);
      } catch (error) {
        // It may have come to be, and have been pushed to, since its record was read.
        const now = await coordinator.get(key);
        const living = now === undefined ? undefined : decodeRepository(now);
        if (living?.state === 'active') return living;
        throw error;
      }
      const tombstone = encodeRepository({ ...record, state: 'deleted' });
      const { succeeded, results } = await coordinator.transaction({
        binding: true,
        compares: [stillBeingMade(id)],
        success: [{ type: 'put', key, value: tombstone }],
        failure: [{ type: 'get', key }],
      });
      const [now] = results.flatMap((one) => (one.type === 'get' ? one.entries : []));
      const found = succeeded || now === undefined ? undefined : decodeRepository(now);
      if (found?.state === 'active') return found;
      // Put twice, since the answer to the first was lost: whoever makes it fails by that, too.
      if (found?.state === 'creating' && now !== undefined) {
        const { succeeded: buried } = await coordinator.transaction({
          binding: true,
          compares: [{ key, target: 'modRevision', op: '=', operand: now.modRevision }],
          success: [{ type: 'put', key, value: tombstone }],
          failure: [],
        });
        if (!buried) throw recovered(record);
      }
    }
    await this.#remove(id);
    return undefined;
  }

  async close(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  /**
   * Removes what was buried or deleted before. The tombstone is read in a transaction that an older copy of the
   * coordinator is not trusted with.
   */
  async #remove(id: string): Promise<void> {
    const { coordinator } = this.#dependencies;
    const { results } = await coordinator.transaction({
      binding: true,
      compares: [],
      success: [
        { type: 'get', key: keys.repo(id) },
        { type: 'get', key: keys.head(id) },
        { type: 'get', key: keys.cluster },
      ],
      failure: [],
    });
    const [stored, head, cluster] = results.map((one) =>
      one.type === 'get' ? one.entries[0] : undefined,
    );
    // Somebody else has removed it.
    if (stored === undefined) return;
    const tombstone = decodeRepository(stored);
    if (tombstone.state !== 'deleted') throw recovered(tombstone);
    const known = head === undefined ? undefined : decodeHead(head);
    const { deletedIn } = tombstone;
    const isWanted = deletedIn !== undefined && deletedIn === incarnationName(cluster);
    if (!isWanted) await this.#refuseAhead(tombstone, known);
    await this.#finish(tombstone, { head: known, revision: stored.modRevision, isWanted });
  }

  /** Files first, then what is kept about it elsewhere, then the records: a crash in between finds the tombstone again. */
  async #finish(tombstone: RepositoryRecord, found: FoundTombstone): Promise<void> {
    const { coordinator, pipeline } = this.#dependencies;
    const { id, name, pool, creator } = tombstone;
    const key = keys.repo(id);
    const words = await this.#removeFiles(tombstone, found);
    // For one that never came to be nothing was set.
    if (creator === undefined) await pipeline.repositoryGone({ id, name });
    const { succeeded } = await coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: found.revision }],
      success: [
        { type: 'delete', key },
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
    if (!succeeded && (await coordinator.get(key)) !== undefined) throw recovered(tombstone);
    if (pool !== undefined) await this.#collect(pool);
  }

  /**
   * Nothing goes while a store that answers holds more than the coordinator says was ever committed: an older copy of it
   * may say of what lives that it was deleted, or is half-made. Of what people
   * deleted, a copy that cannot be read goes all the same; of what is taken for half-made, it may be the latest.
   */
  async #refuseAhead(
    record: RepositoryRecord,
    head: HeadRecord | undefined,
    members: readonly Voter[] = copiesOf(record),
  ): Promise<void> {
    const { replicas } = this.#dependencies;
    const { id, name } = record;
    const states = await Promise.all(
      members.map(async ({ storeId }) => {
        const asked = replicas.find(storeId)?.state(id);
        return head === undefined ? asked : asked?.catch(() => undefined);
      }),
    );
    const generation = Math.max(0, ...states.map((state) => state?.generation ?? 0));
    if (generation <= mostCommitted(record, head)) return;
    throw new QuorateError(
      'failed-precondition',
      `stores hold pushes to ${name} of which the coordinator, an older copy, does not know: nothing of it is removed; ` +
        'quorate recover shows it, and --apply makes it whole',
      { details: { id, generation } },
    );
  }

  /**
   * On every store that can be reached. One that is gone for good is not waited for; should it come back all the same,
   * a word of its own tells it, in the tombstone's place, to remove what it has. For any other the tombstone stays.
   */
  async #removeFiles(
    tombstone: RepositoryRecord,
    { head, isWanted }: FoundTombstone,
  ): Promise<readonly Operation[]> {
    const { coordinator, replicas } = this.#dependencies;
    const { id } = tombstone;
    const members = copiesOf(tombstone);
    const lost = members.filter(({ storeId }) => replicas.find(storeId) === undefined);
    const marks = lost.length === 0 ? new Map() : await readNodeMarks(coordinator);
    const gone = lost.filter((member) => goneForGood(member, replicas.nodes(), marks));
    await Promise.all(
      members
        .filter((member) => !gone.includes(member))
        .map(async (member) => {
          const replica = replicas.find(member.storeId);
          if (replica === undefined) throw nobodyReachable(replicas, members);
          // It may have been away when all were asked.
          if (!isWanted) await this.#refuseAhead(tombstone, head, [member]);
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

function recovered({ id }: RepositoryRecord): QuorateError {
  return new QuorateError('aborted', 'a repository that was being removed lives again', {
    details: { id },
  });
}
