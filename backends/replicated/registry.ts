import type { Clock, Logger, Random } from '../contract/environment.js';
import { asQuorateError, noRetry, QuorateError } from '../contract/errors.js';
import type { Compare, Coordinator, Operation } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PushPipeline, RepositoryChange } from '../contract/pipeline.js';
import type { LogReader } from '../contract/replica.js';
import type {
  HeadRecord,
  NewFork,
  NewRepository,
  RepositoryPatch,
} from '../contract/repository.js';
import type { StoredSettings } from '../contract/settings.js';
import { emptyDigest } from '../git/digest.js';
import { deleted, type StoredRecord } from './basis.js';
import { evicted } from './evictions.js';
import { makeFirstCopies } from './first-copies.js';
import { makeForkFiles } from './fork.js';
import { ancestors, idOf, nameFree, taken, RecalledIds } from './names.js';
import { Pools } from './pools.js';
import { neverPushed, Removals, stillBeingMade, tombstoneOf } from './removals.js';
import {
  decodeRepository,
  encodeRecord,
  encodeRepository,
  rememberedRecords,
  rememberingDecoder,
  type RepositoryRecord,
  scan,
  type Voter,
} from './records.js';
import { changeBetween, putRepositoryEvent, type RepositoryEvents } from './repository-events.js';
import { listRepositories, type NamePage } from './repository-pages.js';
import { placed, type ReplicaDirectory } from './voters.js';

export interface RegistryDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly log: LogReader;
  /** Stores that a new repository is put on. */
  readonly replicationFactor: number;
  /** The name of this front-end in the coordinator. */
  readonly frontEnd: () => Promise<string>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly events: RepositoryEvents;
  readonly pipeline: Pick<PushPipeline, 'repositoryGone'>;
}

/** A change of one record, with what has to be true and done together with it. */
interface Swap {
  readonly record: RepositoryRecord;
  readonly compares: readonly Compare[];
  readonly operations: readonly Operation[];
  /** What is told of it, if anything. */
  readonly change: RepositoryChange | undefined;
}

/** The files of a new repository. */
interface Made {
  readonly head: HeadRecord;
  /** Stores that have them. */
  readonly voters: Voter[];
}

/** A lost compare-and-swap means that somebody else's went through; this many in a row do not happen by chance. */
const maxRaces = 30;
/** Removals that a sweep waits for at a time. */
const sweptAtATime = 8;

/** Names and configurations of repositories: the coordinator's `names/` and `repos/`. */
export class Registry {
  readonly #dependencies: RegistryDependencies;
  readonly #pools: Pools;
  readonly #removals: Removals;
  readonly #decodeRecord = rememberingDecoder(decodeRepository, rememberedRecords);
  readonly #decodePointer = rememberingDecoder(idOf, rememberedRecords);
  readonly #ids = new RecalledIds();
  /** Repositories that this process is making now. */
  readonly #made = new Set<string>();

  constructor(dependencies: RegistryDependencies) {
    this.#dependencies = dependencies;
    this.#pools = new Pools(dependencies);
    this.#removals = new Removals({ ...dependencies, pools: this.#pools });
  }

  /** How often something that a sweep removes could not be removed yet. */
  get left(): number {
    return this.#removals.left;
  }

  /**
   * Three durable steps: a record in state `creating`, the files, then name, head and state `active` in one
   * transaction. A crash in between leaves a record that `sweep` turns into a tombstone; absence never deletes files.
   * `outcome-unknown` is an answer while the coordinator cannot be asked only.
   */
  async create(repository: NewRepository, by?: string): Promise<RepositoryRecord> {
    const { coordinator } = this.#dependencies;
    await this.#refuseTaken(repository.name);
    const { defaultBranch, ...stored } = repository;
    const newborn = await this.#newborn();
    const record: RepositoryRecord = {
      ...stored,
      ...newborn,
      voters: await this.#place(newborn.id),
      learners: [],
    };
    const makeFiles = async (): Promise<Made> => {
      const head = `refs/heads/${defaultBranch}`;
      const { objectFormat } = repository;
      const voters = await makeFirstCopies(this.#dependencies, record, { objectFormat, head });
      return { head: { generation: 0, digest: emptyDigest({ symref: head }) }, voters };
    };
    return this.#making(record.id, async () => {
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'put', key: keys.repo(record.id), value: encodeRepository(record) }],
        failure: [],
      });
      return this.#establish(record, makeFiles, by);
    });
  }

  /** As `create`; the record and the membership in the source's pool are one transaction. */
  async fork(
    sourceId: string,
    { name, access, visible }: NewFork,
    by?: string,
  ): Promise<RepositoryRecord> {
    await this.#refuseTaken(name);
    const newborn = await this.#newborn();
    return this.#making(newborn.id, async () => {
      const enrolment = await this.#pools.enrol(sourceId, ({ objectFormat, voters }) => ({
        ...newborn,
        name,
        access,
        objectFormat,
        settings: {},
        voters: voters.map(({ nodeId, storeId }) => ({ nodeId, storeId, joinedEpoch: 1 })),
        learners: [],
      }));
      const makeFiles = (): Promise<Made> => makeForkFiles(this.#dependencies, enrolment, visible);
      return this.#establish(enrolment.fork, makeFiles, by);
    });
  }

  /** Nothing of this repository is left behind by this process while this runs; afterwards a sweep removes it. */
  async #making<T>(id: string, make: () => Promise<T>): Promise<T> {
    this.#made.add(id);
    try {
      return await make();
    } catch (error) {
      // Its record may be there, or come yet.
      if (asQuorateError(error).code === 'outcome-unknown') this.#removals.suspect();
      throw error;
    } finally {
      this.#made.delete(id);
    }
  }

  async #newborn(): Promise<
    Pick<RepositoryRecord, 'id' | 'createdAtMs' | 'epoch' | 'state' | 'creator'>
  > {
    const { clock, random, frontEnd } = this.#dependencies;
    return {
      id: Buffer.from(random.bytes(16)).toString('hex'),
      createdAtMs: clock.nowMs(),
      epoch: 1,
      state: 'creating',
      creator: await frontEnd(),
    };
  }

  /** Makes the files of a stored record in state `creating`, then takes its name. Buries it when that fails. */
  async #establish(
    record: RepositoryRecord,
    makeFiles: () => Promise<Made>,
    by = 'system',
  ): Promise<RepositoryRecord> {
    const { coordinator } = this.#dependencies;
    const { id, name } = record;
    try {
      const { head, voters } = await makeFiles();
      const { creator: _done, ...made } = record;
      const active: RepositoryRecord = { ...made, voters, state: 'active' };
      // It may have the files, and only its answer was lost.
      const leftOut = record.voters.filter((one) =>
        voters.every(({ storeId }) => storeId !== one.storeId),
      );
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [...nameFree(name), stillBeingMade(id)],
        success: [
          { type: 'put', key: keys.name(name), value: encodeRecord({ id }) },
          { type: 'put', key: keys.repo(id), value: encodeRepository(active) },
          { type: 'put', key: keys.head(id), value: encodeRecord(head) },
          ...leftOut.map(({ storeId }) => evicted(id, storeId)),
          this.#told(active, { action: 'created' }, by),
        ],
        failure: [],
      });
      if (!succeeded) throw await this.#takenError(name);
      this.#dependencies.events.notify();
      return active;
    } catch (error) {
      return this.#settle(record, error);
    }
  }

  /**
   * What became of a repository whose making failed. Where that is not known, the transaction that would bury it finds
   * out, or decides it. What cannot be settled now is settled by a sweep.
   */
  async #settle(record: RepositoryRecord, error: unknown): Promise<RepositoryRecord> {
    let made: RepositoryRecord | undefined;
    try {
      made = await this.#removals.bury(record);
    } catch (left) {
      this.#dependencies.logger.warn(
        { component: 'registry', repo: record.id, err: left },
        'a repository that could not be created is removed by a sweep',
      );
      throw error;
    }
    if (made === undefined) {
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      const why = 'the repository was not made, since the coordinator did not answer; try again';
      throw new QuorateError('unavailable', why, { cause: error });
    }
    this.#dependencies.events.notify();
    return made;
  }

  async #place(id: string): Promise<Voter[]> {
    const { replicas, replicationFactor: count, clock } = this.#dependencies;
    // With fewer a majority of the wanted stores could never hold a push; the missing ones are made up for later.
    const least = Math.floor(count / 2) + 1;
    const stores = await placed(replicas, id, { count, least, clock });
    if (stores.length >= least) return stores.map((voter) => ({ ...voter, joinedEpoch: 1 }));
    throw new QuorateError(
      'unavailable',
      `a repository is put on ${count} storage nodes, and only ${stores.length} can take one now; start more, or lower replication.factor`,
      { details: { ...noRetry } },
    );
  }

  /** The id that had this name when it was looked up last: a guess. */
  recalledId(name: string): string | undefined {
    return this.#ids.get(name);
  }

  async get(name: string): Promise<RepositoryRecord | undefined> {
    return (await this.lookUp(name))?.record;
  }

  /** As `get`, with the revision of what was read. */
  async lookUp(name: string): Promise<StoredRecord | undefined> {
    const { coordinator } = this.#dependencies;
    for (let race = 0; race < maxRaces; race++) {
      // Both at once, by what the name was last; whether it still is, the pointer says.
      const guess = this.#ids.get(name);
      const [pointer, guessed] = await Promise.all([
        coordinator.get(keys.name(name)),
        guess === undefined ? undefined : coordinator.get(keys.repo(guess)),
      ]);
      if (pointer === undefined) return undefined;
      const id = this.#decodePointer(pointer);
      this.#ids.set(name, id);
      const stored = id === guess ? guessed : await coordinator.get(keys.repo(id));
      const record = stored === undefined ? undefined : this.#decodeRecord(stored);
      // Renamed or deleted between the two reads: look again.
      if (stored === undefined || record?.state !== 'active' || record.name !== name) continue;
      return { record, revision: stored.modRevision };
    }
    throw new QuorateError('aborted', `${name} is being renamed; try again`);
  }

  /** See `RepositoryRegistry.list`. */
  list(page: NamePage): Promise<readonly RepositoryRecord[]> {
    return listRepositories(this.#dependencies.coordinator, page);
  }

  async update(
    id: string,
    change: (current: RepositoryRecord) => RepositoryPatch,
    by?: string,
  ): Promise<RepositoryRecord> {
    const { record: updated } = await this.#swap(
      id,
      (current) => {
        const patch = change(current);
        const record = {
          ...current,
          settings: patchSettings(current.settings, patch.settings),
          access: patch.access ?? current.access,
        };
        return { record, compares: [], operations: [], change: changeBetween(current, record) };
      },
      by,
    );
    return updated;
  }

  /** The new name may lie inside the old one or the other way round: the old one is given up with it. */
  async rename(id: string, name: string, by?: string): Promise<RepositoryRecord> {
    const { record: renamed } = await this.#swap(
      id,
      async (current) => {
        await this.#refuseTaken(name, current.name);
        if (name === current.name) throw taken(name, name);
        return {
          record: { ...current, name },
          compares: nameFree(name, current.name),
          operations: [
            { type: 'delete', key: keys.name(current.name) },
            { type: 'put', key: keys.name(name), value: encodeRecord({ id }) },
          ],
          change: { action: 'renamed', from: current.name },
        };
      },
      by,
    );
    return renamed;
  }

  /** The tombstone and the freed name are durable on return; the files go in the background. */
  async delete(
    id: string,
    by?: string,
    { unlessPushed = false }: { readonly unlessPushed?: boolean } = {},
  ): Promise<{ readonly isForgotten: boolean }> {
    const tombstone = await this.#swap(
      id,
      async (current) => ({
        record: await tombstoneOf(this.#dependencies.coordinator, current),
        compares: unlessPushed ? [await neverPushed(this.#dependencies.coordinator, current)] : [],
        operations: [{ type: 'delete', key: keys.name(current.name) }],
        change: { action: 'deleted' },
      }),
      by,
    ).catch((error: unknown) => this.#tombstoneAfter(id, error));
    return this.#removals.begin(tombstone);
  }

  /** That of a deletion whose answer was lost. One that may come yet is found by a sweep. */
  async #tombstoneAfter(id: string, error: unknown): Promise<StoredRecord> {
    if (asQuorateError(error).code !== 'outcome-unknown') throw error;
    this.#removals.suspect();
    const stored = await this.#dependencies.coordinator.get(keys.repo(id)).catch(() => undefined);
    const record = stored === undefined ? undefined : decodeRepository(stored);
    if (stored === undefined || record?.state !== 'deleted') throw error;
    this.#dependencies.events.notify();
    return { record, revision: stored.modRevision };
  }

  /** Finishes what a crash interrupted: half-made repositories are buried, buried ones removed. Counts the living. */
  async sweep(): Promise<number> {
    let active = 0;
    const attended = new Set<Promise<void>>();
    for await (const entry of scan(this.#dependencies.coordinator, keys.repos)) {
      try {
        const record = decodeRepository(entry);
        if (record.state === 'active') active++;
        else if (!(await this.#isBeingMade(record))) {
          const removal = this.#removals.sweep(record).finally(() => attended.delete(removal));
          attended.add(removal);
          if (attended.size >= sweptAtATime) await Promise.race(attended);
        }
      } catch (error) {
        // One repository in trouble is no reason not to serve the others.
        this.#dependencies.logger.error(
          { component: 'registry', key: entry.key, err: error },
          'a repository could not be swept',
        );
      }
    }
    await Promise.all(attended);
    return active;
  }

  /** Repositories that share objects with this one, itself included; undefined when it is in no pool. */
  async sharedBy(id: string): Promise<number | undefined> {
    const stored = await this.#dependencies.coordinator.get(keys.repo(id));
    const pool = stored === undefined ? undefined : this.#decodeRecord(stored).pool;
    return pool === undefined ? undefined : this.#pools.size(pool);
  }

  /** Once repositories are recovered: pools that nobody shares any more are given up. */
  async sweepPools(): Promise<void> {
    await this.#pools.sweep();
  }

  async close(): Promise<void> {
    await this.#removals.close();
  }

  async #isBeingMade({ id, state, creator }: RepositoryRecord): Promise<boolean> {
    if (state !== 'creating' || creator === undefined) return false;
    const { coordinator, frontEnd } = this.#dependencies;
    if (this.#made.has(id)) return true;
    // What this process began and does not make any more is nobody's.
    if (creator === (await frontEnd())) return false;
    return (await coordinator.get(keys.frontEnd(creator))) !== undefined;
  }

  /** Compare-and-swap of one record, with its epoch advanced. */
  async #swap(
    id: string,
    change: (current: RepositoryRecord) => Swap | Promise<Swap>,
    by = 'system',
  ): Promise<StoredRecord> {
    const { coordinator, events } = this.#dependencies;
    for (let race = 0; race < maxRaces; race++) {
      const stored = await coordinator.get(keys.repo(id));
      const current = stored === undefined ? undefined : decodeRepository(stored);
      if (stored === undefined || current?.state !== 'active') throw deleted(id);
      const { record, compares, operations, change: told } = await change(current);
      const next = { ...record, epoch: current.epoch + 1 };
      const { succeeded, revision } = await coordinator.transaction({
        binding: true,
        compares: [
          { key: keys.repo(id), target: 'modRevision', op: '=', operand: stored.modRevision },
          ...compares,
        ],
        success: [
          { type: 'put', key: keys.repo(id), value: encodeRepository(next) },
          ...operations,
          ...(told === undefined ? [] : [this.#told(next, told, by)]),
        ],
        failure: [],
      });
      if (succeeded) {
        if (told !== undefined) events.notify();
        return { record: next, revision };
      }
    }
    throw new QuorateError('aborted', 'the repository is being changed by others; try again');
  }

  /** In the same transaction as the change: it is told of if and only if it happened. */
  #told(record: RepositoryRecord, change: RepositoryChange, actor: string): Operation {
    const atMs = this.#dependencies.clock.nowMs();
    const { id: repositoryId, name, epoch } = record;
    return putRepositoryEvent({ repositoryId, name, epoch, actor, atMs, change });
  }

  /** `except` is a name that is about to be given up. */
  async #refuseTaken(name: string, except?: string): Promise<void> {
    const { coordinator } = this.#dependencies;
    const below = await coordinator.range(keys.name(`${name}/`), {
      rangeEnd: prefixEnd(keys.name(`${name}/`)),
      limit: 2,
      keysOnly: true,
    });
    const nested = below.entries
      .map(({ key }) => key.slice(keys.names.length))
      .find((other) => other !== except);
    if (nested !== undefined) throw taken(name, nested);
    for (const candidate of [name, ...ancestors(name)]) {
      if (candidate === except) continue;
      if ((await coordinator.get(keys.name(candidate))) !== undefined) throw taken(name, candidate);
    }
  }

  async #takenError(name: string): Promise<unknown> {
    try {
      await this.#refuseTaken(name);
    } catch (error) {
      return error;
    }
    return new QuorateError(
      'aborted',
      `${name} was taken and given up just now, or this server was taken for dead; try again`,
    );
  }
}

function patchSettings(
  current: StoredSettings,
  patch: RepositoryPatch['settings'] = {},
): StoredSettings {
  const merged = Object.entries({ ...current, ...patch });
  return Object.fromEntries(merged.filter(([, value]) => value !== null));
}
