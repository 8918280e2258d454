import { rm } from 'node:fs/promises';
import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Head, RefCommand, RefSnapshot } from '../contract/objects.js';
import type { LogReader, QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter, digestOf } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import { nextSnapshot, readRefSnapshot } from '../git/ref-snapshot.js';
import { removeAllLeftovers } from '../git/maintenance.js';
import { removeAbandonedRefLocks, removeStaleLocks } from '../git/ref-files.js';
import { removeHalfWritten } from '../git/repository-files.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isZero } from './judge-names.js';
import { PruneGate } from './prune-gate.js';
import { loadUpdates, promote, removeKeeps, removeStaleKeeps } from './quarantine.js';
import { SerialQueue } from './serial-queue.js';
import { readState, type RepositoryState, writeState } from './state-file.js';
import type { Store } from './store.js';

export interface OpenDependencies {
  readonly store: Store;
  readonly git: GitRunner;
  readonly refs: RefTransactions;
  readonly objects: ObjectReader;
  readonly log: LogReader;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The quarantine of a push on this disk, if there is one. */
  readonly quarantineOf: (repositoryId: string, pushId: string) => QuarantineKey | undefined;
  /** The quarantine is gone. */
  readonly quarantineApplied: (key: QuarantineKey) => void;
}

type Intent = NonNullable<RepositoryState['applying']>;

/**
 * Generations of which the refs stay known: a fetch whose ls-refs was this many pushes ago still gets the commits it
 * was told of.
 */
const retainedGenerations = 8;

/** One repository of this store, in use: its refs in memory, and the one place that changes them on disk. */
export class OpenRepository {
  readonly id: string;
  readonly gitDirectory: string;
  readonly objectsDirectory: string;
  /** Ref transactions, dry runs and ref packing: one at a time, so that none meets another's `.lock` files. */
  readonly refsQueue = new SerialQueue();
  /** Maintenance, one run at a time. */
  readonly maintenanceQueue = new SerialQueue();
  readonly pruneGate = new PruneGate();
  readonly #dependencies: OpenDependencies;
  #state: RepositoryState;
  #snapshots: readonly RefSnapshot[];
  /** An apply failed half-way: its traces are looked for by the next one. */
  #interrupted = false;

  private constructor(
    dependencies: OpenDependencies,
    id: string,
    loaded: { state: RepositoryState; snapshot: RefSnapshot },
  ) {
    this.id = id;
    this.gitDirectory = dependencies.store.gitDirectory(id);
    this.objectsDirectory = dependencies.store.objectsDirectory(id);
    this.#dependencies = dependencies;
    this.#state = loaded.state;
    this.#snapshots = [loaded.snapshot];
  }

  /**
   * Loads it and finishes an interrupted apply. `afterStart` says that nothing of this process has touched it yet, so
   * that lock, keep and temporary files in it are leftovers of a process that is gone.
   */
  static async open(
    dependencies: OpenDependencies,
    id: string,
    afterStart: boolean,
  ): Promise<OpenRepository> {
    const { store, git } = dependencies;
    const gitDir = store.gitDirectory(id);
    let state = await readState(store.statePath(id));
    if (afterStart) {
      await rm(store.judgingDirectory(id), { recursive: true, force: true });
      await removeStaleLocks(gitDir);
      await removeHalfWritten(store.repositoryDirectory(id));
      await removeAllLeftovers(gitDir);
    }
    if (state.applying !== undefined) {
      const { applying } = state;
      await writeEffects(dependencies, id, applying);
      state = await writeMarker(dependencies, id, state, applying);
      await cleanUp(dependencies, id, applying);
    }
    if (afterStart) await removeStaleKeeps(store.objectsDirectory(id));
    const snapshot = await readRefSnapshot({
      git,
      gitDir,
      generation: state.generation,
      objectFormat: state.objectFormat,
    });
    if (digestOf(snapshot) !== state.digest) {
      throw frozen('the refs on this disk are not those of the generation that it claims', {
        id,
        generation: state.generation,
      });
    }
    const repository = new OpenRepository(dependencies, id, { state, snapshot });
    await repository.#refuseRewound();
    return repository;
  }

  get generation(): number {
    return this.#state.generation;
  }

  get objectFormat(): RepositoryState['objectFormat'] {
    return this.#state.objectFormat;
  }

  /** The refs of the applied generation. */
  get snapshot(): RefSnapshot {
    const newest = this.#snapshots[0];
    if (newest === undefined) throw new QuorateError('internal', 'a repository without a snapshot');
    return newest;
  }

  /** The last applied generations, newest first. */
  get retained(): readonly RefSnapshot[] {
    return this.#snapshots;
  }

  /**
   * Applies what the log holds up to `generation`. Resolves at once when it is applied already. Rejects with
   * `data-corrupt` when the disk and the coordinator contradict each other.
   */
  async applyUpTo(generation: number): Promise<void> {
    if (this.generation > generation) await this.#refuseRewound();
    if (this.generation >= generation) return;
    await this.refsQueue.run(async () => {
      if (this.generation >= generation) return;
      const entries = await this.#dependencies.log.entries(this.id, this.generation, generation);
      for (const entry of entries) await this.#apply(entry);
      if (this.generation < generation) {
        throw new QuorateError(
          'data-corrupt',
          `the push log does not reach from generation ${this.generation} to ${generation}`,
          { details: { id: this.id } },
        );
      }
    });
  }

  /**
   * A disk that is ahead of the coordinator, or differs from it at the same generation, means that the coordinator
   * was restored from an old backup. Serving or committing on would lose what was acknowledged since.
   */
  async #refuseRewound(): Promise<void> {
    const { generation, digest } = this.#state;
    const head = await this.#dependencies.log.head(this.id);
    if (generation < head.generation) return;
    if (generation === head.generation && digest === head.digest) return;
    throw frozen(
      `this disk is at generation ${generation}, and the coordinator, which seems to be an old copy, at ${head.generation}`,
      { id: this.id, generation, head: head.generation },
    );
  }

  async #apply(entry: LogEntry): Promise<void> {
    const { generation, digest } = this.#state;
    const intent = await this.#intentOf(entry);
    const { updates } = intent.entry;
    const expected = digestAfter(digest, updates, entry.head);
    if (entry.generation !== generation + 1 || expected !== entry.digest) {
      throw new QuorateError(
        'data-corrupt',
        `entry ${entry.generation} of the push log does not follow generation ${generation} of this disk`,
        { details: { id: this.id } },
      );
    }
    const dependencies = this.#dependencies;
    if (this.#interrupted) await this.#removeAbandonedLocks(updates);
    this.#interrupted = true;
    await writeState(dependencies.store.statePath(this.id), { ...this.#state, applying: intent });
    await writeEffects(dependencies, this.id, intent);
    // Before the marker: whatever fails up to here is done again, and what is in memory never lags behind the marker.
    const snapshot = nextSnapshot(this.snapshot, {
      generation: entry.generation,
      updates,
      ...(entry.head === undefined ? {} : { head: entry.head.new }),
      peeled: await this.#peel(updates),
    });
    this.#state = await writeMarker(dependencies, this.id, this.#state, intent);
    this.#snapshots = [snapshot, ...this.#snapshots].slice(0, retainedGenerations);
    this.#interrupted = false;
    await cleanUp(dependencies, this.id, intent);
  }

  /** Those of a git that was killed; ours is the only one that writes refs, and none runs now. */
  async #removeAbandonedLocks(updates: readonly RefCommand[]): Promise<void> {
    const refs = updates.map(({ ref }) => ref);
    await removeAbandonedRefLocks(this.gitDirectory, refs, this.#dependencies.clock.nowMs());
  }

  async #intentOf(entry: LogEntry): Promise<Intent> {
    const { store, quarantineOf } = this.#dependencies;
    const quarantine = quarantineOf(this.id, entry.pushId);
    let { updates } = entry;
    if (entry.updatesDigest !== undefined) {
      if (quarantine === undefined) {
        throw new QuorateError(
          'data-corrupt',
          'the updates of a large push are missing from this disk',
        );
      }
      updates = await loadUpdates(store.quarantineDirectory(quarantine), entry.updatesDigest);
    }
    const { generation, pushId, head, digest } = entry;
    return {
      entry: { generation, pushId, updates, digest, ...(head === undefined ? {} : { head }) },
      ...(quarantine === undefined ? {} : { quarantine }),
    };
  }

  /** What the annotated tags among the new values point at. */
  async #peel(updates: readonly RefCommand[]): Promise<ReadonlyMap<string, string>> {
    const oids = [...new Set(updates.map(({ newOid }) => newOid).filter((oid) => !isZero(oid)))];
    return this.#dependencies.objects.peel(this.gitDirectory, oids);
  }
}

/** Objects and refs of an entry. Idempotent: it is run again from wherever it stopped. */
async function writeEffects(
  { store, refs }: OpenDependencies,
  id: string,
  { entry, quarantine }: Intent,
): Promise<void> {
  if (quarantine !== undefined) {
    await promote(store.quarantineDirectory(quarantine), store.objectsDirectory(id));
  }
  const gitDir = store.gitDirectory(id);
  if (entry.updates.length > 0) await refs.commitEither(gitDir, entry.updates);
  if (entry.head !== undefined) await refs.setHead(gitDir, symrefOf(entry.head.new));
}

/** From here on the entry is applied. */
async function writeMarker(
  { store }: OpenDependencies,
  id: string,
  { objectFormat }: RepositoryState,
  { entry: { generation, digest } }: Intent,
): Promise<RepositoryState> {
  const applied: RepositoryState = { objectFormat, generation, digest };
  await writeState(store.statePath(id), applied);
  return applied;
}

/** Never fails an entry that is applied; what stays behind is removed after the next apply or at the next start. */
async function cleanUp(
  { store, logger, quarantineApplied }: OpenDependencies,
  id: string,
  { quarantine }: Intent,
): Promise<void> {
  if (quarantine === undefined) return;
  quarantineApplied(quarantine);
  try {
    await removeKeeps(store.objectsDirectory(id));
    // Not synced: what a power cut brings back, the next start removes.
    await rm(store.quarantineDirectory(quarantine), { recursive: true, force: true });
  } catch (error) {
    logger.warn(
      { component: 'store', repo: id, push_id: quarantine.pushId, err: error },
      'an applied push left files behind',
    );
  }
}

function frozen(why: string, details: Record<string, unknown>): QuorateError {
  return new QuorateError('data-corrupt', `${why}; the repository is frozen`, { details });
}

function symrefOf(head: Head): string {
  if ('symref' in head) return head.symref;
  throw new QuorateError('internal', 'HEAD is never detached by a log entry');
}
