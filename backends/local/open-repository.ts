import { rm } from 'node:fs/promises';
import type { Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Head, RefCommand, RefSnapshot } from '../contract/objects.js';
import type { LogReader, QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter, digestOf } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import { nextSnapshot, readRefSnapshot } from '../git/ref-snapshot.js';
import { removeAllLeftovers } from '../git/maintenance.js';
import { removeStaleLocks } from '../git/ref-files.js';
import { removeHalfWritten } from '../git/repository-files.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isZero } from './judge-names.js';
import { PruneGate } from './prune-gate.js';
import {
  loadUpdates,
  promote,
  quarantinedPacks,
  removeKeeps,
  removeStaleKeeps,
} from './quarantine.js';
import { SerialQueue } from './serial-queue.js';
import { readState, type RepositoryState, writeState } from './state-file.js';
import type { Store } from './store.js';

export interface OpenDependencies {
  readonly store: Store;
  readonly git: GitRunner;
  readonly refs: RefTransactions;
  readonly objects: ObjectReader;
  readonly log: LogReader;
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
  /** Users of this object: reads, pushes, maintenance. It may be forgotten only at zero. */
  users = 0;

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
      await removeStaleLocks(gitDir);
      await removeHalfWritten(store.repositoryDirectory(id));
      await removeAllLeftovers(gitDir);
    }
    if (state.applying !== undefined) {
      state = await runIntent(dependencies, id, state, state.applying);
    }
    if (afterStart) await removeStaleKeeps(store.objectsDirectory(id));
    const snapshot = await readRefSnapshot({
      git,
      gitDir,
      generation: state.generation,
      objectFormat: state.objectFormat,
    });
    if (digestOf(snapshot) !== state.digest) {
      throw new QuorateError(
        'data-corrupt',
        'the refs on this disk are not those of the generation that it claims; the repository is frozen',
        { details: { id, generation: state.generation } },
      );
    }
    return new OpenRepository(dependencies, id, { state, snapshot });
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

  /** Applies what the log holds up to `generation`. Resolves at once when it is applied already. */
  async applyUpTo(generation: number): Promise<void> {
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

  async #apply(entry: LogEntry): Promise<void> {
    const { generation, digest } = this.#state;
    const intent = await this.#intentOf(entry);
    const expected = digestAfter(digest, intent.entry.updates, entry.head);
    if (entry.generation !== generation + 1 || expected !== entry.digest) {
      throw new QuorateError(
        'data-corrupt',
        `entry ${entry.generation} of the push log does not follow generation ${generation} of this disk`,
        { details: { id: this.id } },
      );
    }
    const { store } = this.#dependencies;
    await writeState(store.statePath(this.id), { ...this.#state, applying: intent });
    this.#state = await runIntent(this.#dependencies, this.id, this.#state, intent);
    const snapshot = nextSnapshot(this.snapshot, {
      generation: entry.generation,
      updates: intent.entry.updates,
      ...(entry.head === undefined ? {} : { head: entry.head.new }),
      peeled: await this.#peel(intent.entry.updates),
    });
    this.#snapshots = [snapshot, ...this.#snapshots].slice(0, retainedGenerations);
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

/** Promote, refs, marker, then the clean-up. Idempotent: recovery runs it again from wherever it stopped. */
async function runIntent(
  dependencies: OpenDependencies,
  id: string,
  state: RepositoryState,
  { entry, quarantine }: Intent,
): Promise<RepositoryState> {
  const { store, refs } = dependencies;
  const objectsDirectory = store.objectsDirectory(id);
  const directory = quarantine === undefined ? undefined : store.quarantineDirectory(quarantine);
  const packs = directory === undefined ? [] : await quarantinedPacks(directory);
  if (directory !== undefined) await promote(directory, objectsDirectory);
  const gitDir = store.gitDirectory(id);
  if (entry.updates.length > 0) await refs.commitEither(gitDir, entry.updates);
  if (entry.head !== undefined) await refs.setHead(gitDir, symrefOf(entry.head.new));
  const applied: RepositoryState = {
    objectFormat: state.objectFormat,
    generation: entry.generation,
    digest: entry.digest,
  };
  await writeState(store.statePath(id), applied);
  await removeKeeps(objectsDirectory, packs);
  if (quarantine !== undefined && directory !== undefined) {
    // Not synced: what a power cut brings back, the next start removes.
    await rm(directory, { recursive: true, force: true });
    dependencies.quarantineApplied(quarantine);
  }
  return applied;
}

function symrefOf(head: Head): string {
  if ('symref' in head) return head.symref;
  throw new QuorateError('internal', 'HEAD is never detached by a log entry');
}
