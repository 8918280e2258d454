import { isDeepStrictEqual } from 'node:util';
import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';
import type { Head, ObjectFormat, RefCommand } from '../contract/objects.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type {
  LogReader,
  Prepared,
  PrepareRequest,
  QuarantineKey,
  Replica,
  ReplicaRead,
  Uploaded,
  UploadOptions,
} from '../contract/replica.js';
import type { RepositoryStats } from '../contract/repository.js';
import { booleanSetting, listSetting, numberSetting } from '../contract/settings.js';
import { isFastForward } from '../git/ancestry.js';
import { emptyDigest } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import type { IndexedPack, PackIndexer } from '../git/pack-indexer.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isBranchName } from '../git/ref-files.js';
import { maintainRepository, needsMaintenance } from '../git/maintenance.js';
import {
  createRepositoryFiles,
  readObjectStoreStats,
  removeTree,
} from '../git/repository-files.js';
import { storageFailure } from './disk-errors.js';
import { isZero } from './judge-names.js';
import { HookPrograms, runHookProgram } from './hook-programs.js';
import { inspectPrepared } from './inspect.js';
import { judge, objectSources } from './judge.js';
import { OpenRepositories } from './open-repositories.js';
import {
  makeQuarantine,
  markPrepared,
  type PreparedMark,
  readPreparedMark,
  storeUpdates,
} from './quarantine.js';
import { RefViews } from './ref-views.js';
import { LocalRead } from './replica-read.js';
import { writeState } from './state-file.js';
import { Store } from './store.js';
import { repackRecorded } from './whole-pack.js';

export interface LocalReplicaDependencies {
  readonly root: string;
  readonly git: GitRunner;
  readonly refs: RefTransactions;
  readonly objects: ObjectReader;
  readonly indexer: PackIndexer;
  readonly log: LogReader;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  /** How long an object that nothing reaches is kept after that was noticed. */
  readonly pruneGraceMs: number;
  /** Told after each applied entry. */
  readonly applied: (repositoryId: string) => void;
}

/** A push between its upload (or, without objects, its judgement) and the end of its fate. */
interface LiveQuarantine {
  readonly key: QuarantineKey;
  /** Ends the push's stay in the prune gate. */
  leaveGate: () => void;
  /** What the upload found out about completeness; lost with the process, which only costs a walk. */
  closure?: IndexedPack['closure'];
}

interface MaintainOptions {
  readonly signal: AbortSignal;
  readonly progress?: (progress: MaintenanceProgress) => void;
}

/** The store on this machine's disk. */
export class LocalReplica implements Replica {
  readonly storeId: string;
  readonly #dependencies: LocalReplicaDependencies;
  readonly #store: Store;
  readonly #open: OpenRepositories;
  readonly #views: RefViews;
  readonly #hooks: HookPrograms;
  /** By repository and push id. */
  readonly #quarantines = new Map<string, LiveQuarantine>();

  private constructor(dependencies: LocalReplicaDependencies, store: Store) {
    this.#dependencies = dependencies;
    this.#store = store;
    this.storeId = store.id;
    this.#hooks = new HookPrograms(store.hooksDirectory);
    this.#views = new RefViews(store, dependencies.logger);
    this.#open = new OpenRepositories({
      ...dependencies,
      store,
      quarantineOf: (repositoryId, pushId) => this.#find(repositoryId, pushId)?.key,
      quarantineApplied: (key) => this.#forget(key),
    });
    dependencies.meter.gauge('quarantines', {}, () => this.#quarantines.size);
  }

  static async open(dependencies: LocalReplicaDependencies): Promise<LocalReplica> {
    const store = await Store.open(dependencies.root, dependencies.random);
    const replica = new LocalReplica(dependencies, store);
    for (const key of await store.quarantines()) replica.#remember(key);
    return replica;
  }

  /** Pushes whose objects are on this disk and whose fate is not settled. */
  get quarantines(): readonly QuarantineKey[] {
    return [...this.#quarantines.values()].map(({ key }) => key);
  }

  async lockRevisions(key: QuarantineKey): Promise<PreparedMark['lockRevisions'] | undefined> {
    const mark = await readPreparedMark(this.#store.quarantineDirectory(key));
    return mark?.lockRevisions;
  }

  async create(
    repositoryId: string,
    options: { readonly objectFormat: ObjectFormat; readonly head: string },
  ): Promise<void> {
    const { objectFormat, head } = options;
    refuseUnlessBranch(head);
    try {
      await this.#store.makeRepositoryDirectory(repositoryId);
      const gitDir = this.#store.gitDirectory(repositoryId);
      await createRepositoryFiles({ git: this.#dependencies.git, gitDir, objectFormat, head });
      await writeState(this.#store.statePath(repositoryId), {
        objectFormat,
        generation: 0,
        digest: emptyDigest({ symref: head }),
      });
    } catch (error) {
      throw storageFailure(error);
    }
  }

  async upload(
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    { settings, signal, progress }: UploadOptions,
  ): Promise<Uploaded> {
    return this.#open.with(key.repositoryId, async (repository) => {
      await this.#store.assertRoom();
      const directory = this.#store.quarantineDirectory(key);
      const quarantinePackDir = await makeQuarantine(directory);
      const live = this.#remember(key);
      try {
        const indexed = await this.#dependencies.indexer.index({
          pack,
          quarantinePackDir,
          objectsDir: repository.objectsDirectory,
          objectFormat: repository.objectFormat,
          maxPackBytes: numberSetting(settings, 'receive.maxInputSize'),
          maxObjectBytes: numberSetting(settings, 'receive.maxObjectSize'),
          fsck: {
            enabled: booleanSetting(settings, 'receive.fsckObjects'),
            ignore: listSetting(settings, 'receive.fsck.ignore'),
          },
          signal,
          progress,
        });
        if (indexed.closure !== undefined) live.closure = indexed.closure;
        return { objectCount: indexed.objectCount, sizeBytes: indexed.sizeBytes };
      } catch (error) {
        await this.abort(key).catch((left: unknown) => {
          this.#dependencies.logger.warn(
            { component: 'quarantine', repo: key.repositoryId, push_id: key.pushId, err: left },
            'a refused upload left its quarantine behind',
          );
        });
        throw error;
      }
    });
  }

  async prepare(request: PrepareRequest): Promise<Prepared> {
    const { key } = request;
    return this.#open.with(key.repositoryId, async (repository) => {
      await this.#store.assertRoom();
      await repository.applyUpTo(request.basis);
      if (request.head !== undefined) judgeHead(repository.snapshot.head, request.head);
      const live = this.#remember(key);
      live.leaveGate();
      live.leaveGate = await repository.pruneGate.enter();
      const directory = this.#store.quarantineDirectory(key);
      const sources = await objectSources(repository, directory);
      const refused = await judge(this.#dependencies, repository, request, {
        sources,
        judgingDirectory: this.#store.judgingDirectory(key.repositoryId),
        closure: live.closure,
      });
      refuseCancelled(request.signal);
      if (sources.objectDirectory !== undefined) {
        await markPrepared(directory, {
          basis: request.basis,
          lockRevisions: request.lockRevisions.map(({ key: lock, createRevision }) => ({
            key: lock,
            createRevision,
          })),
        });
      }
      const { head } = repository.snapshot;
      return {
        storeId: this.storeId,
        refused,
        currentBranch: 'symref' in head ? head.symref : undefined,
      };
    });
  }

  async nonFastForwards(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    const branches = commands.filter(
      ({ ref, oldOid, newOid }) =>
        ref.startsWith('refs/heads/') && !isZero(oldOid) && !isZero(newOid),
    );
    return this.#open.with(key.repositoryId, async (repository) => {
      const sources = await objectSources(repository, this.#store.quarantineDirectory(key));
      const found = new Set<string>();
      for (const { ref, oldOid, newOid } of branches) {
        const { git } = this.#dependencies;
        if (!(await isFastForward({ git, ...sources, oldOid, newOid, signal }))) found.add(ref);
      }
      return found;
    });
  }

  async runHook(key: QuarantineKey, run: HookRun): Promise<HookEnd> {
    return this.#open.with(key.repositoryId, async (repository) => {
      const sources = await objectSources(repository, this.#store.quarantineDirectory(key));
      const path = await this.#hooks.pathOf(run.program);
      const runId = Buffer.from(this.#dependencies.random.bytes(16)).toString('hex');
      return runHookProgram(this.#dependencies.git, { path, runId, run }, sources);
    });
  }

  async *inspect(key: QuarantineKey, inspection: Inspection): AsyncGenerator<PushFact> {
    const { repository, release } = await this.#open.acquire(key.repositoryId);
    try {
      const directory = this.#store.quarantineDirectory(key);
      yield* inspectPrepared(this.#dependencies.git, repository, directory, inspection);
    } finally {
      release();
    }
  }

  async storeUpdates(key: QuarantineKey, updates: readonly RefCommand[]): Promise<string> {
    const digest = await storeUpdates(this.#store.quarantineDirectory(key), updates);
    this.#remember(key);
    return digest;
  }

  async apply(repositoryId: string, generation: number): Promise<void> {
    await this.#open.with(repositoryId, (repository) => repository.applyUpTo(generation));
    this.#dependencies.applied(repositoryId);
  }

  async abort(key: QuarantineKey): Promise<void> {
    this.#forget(key);
    await removeTree(this.#store.quarantineDirectory(key));
  }

  async applied(repositoryId: string): Promise<number> {
    return this.#open.with(repositoryId, async ({ generation }) => generation);
  }

  async read(repositoryId: string, atLeast: number): Promise<ReplicaRead> {
    const { repository, release } = await this.#open.acquire(repositoryId);
    try {
      await repository.applyUpTo(atLeast);
      return new LocalRead({ ...this.#dependencies, views: this.#views }, repository, release);
    } catch (error) {
      release();
      throw storageFailure(error);
    }
  }

  /** Looks at file counts only; runs no git. */
  async needsMaintenance(repositoryId: string): Promise<boolean> {
    const stats = await readObjectStoreStats(this.#store.objectsDirectory(repositoryId));
    return needsMaintenance(stats) !== 'none';
  }

  async stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>> {
    const { packCount, cruftPackCount, looseObjectCount, sizeBytes } = await readObjectStoreStats(
      this.#store.objectsDirectory(repositoryId),
    );
    return this.#open.with(repositoryId, async ({ snapshot }) => ({
      head: snapshot.head,
      refCount: snapshot.refs.length,
      packCount: packCount + cruftPackCount,
      looseObjectCount,
      sizeBytes,
    }));
  }

  async maintain(
    repositoryId: string,
    { signal, progress }: MaintainOptions,
  ): Promise<MaintenanceReport> {
    return this.#open.with(repositoryId, (repository) =>
      repository.maintenanceQueue.run(async () => {
        refuseCancelled(signal);
        // What is committed and not applied relies on objects that nothing on this disk reaches yet.
        const { generation } = await this.#dependencies.log.head(repositoryId);
        await repository.applyUpTo(generation);
        const report = await maintainRepository({
          git: this.#dependencies.git,
          gitDir: repository.gitDirectory,
          clock: this.#dependencies.clock,
          signal,
          holdRefs: (step) => repository.refsQueue.run(step),
          holdJudging: (step) => repository.pruneGate.tryPrune(step),
          aroundRepack: (kind, repack) =>
            repackRecorded(repository, { kind, repack, logger: this.#dependencies.logger }),
          pinned: repository.retained.flatMap(({ refs }) => refs.map(({ oid }) => oid)),
          graceMs: this.#dependencies.pruneGraceMs,
          ...(progress === undefined ? {} : { progress }),
        });
        await this.#dependencies.objects.release(repository.gitDirectory);
        return report;
      }),
    );
  }

  async destroy(repositoryId: string): Promise<void> {
    await this.#open.retire(repositoryId, async () => {
      for (const { key } of this.#quarantines.values()) {
        if (key.repositoryId === repositoryId) await this.abort(key);
      }
      const { objects, refs } = this.#dependencies;
      const gitDir = this.#store.gitDirectory(repositoryId);
      await Promise.all([objects.release(gitDir), refs.release(gitDir)]);
      await this.#store.destroy(repositoryId);
    });
  }

  #find(repositoryId: string, pushId: string): LiveQuarantine | undefined {
    return this.#quarantines.get(`${repositoryId} ${pushId}`);
  }

  #remember(key: QuarantineKey): LiveQuarantine {
    const name = `${key.repositoryId} ${key.pushId}`;
    const live = this.#quarantines.get(name) ?? { key, leaveGate: () => undefined };
    this.#quarantines.set(name, live);
    return live;
  }

  #forget(key: QuarantineKey): void {
    const name = `${key.repositoryId} ${key.pushId}`;
    this.#quarantines.get(name)?.leaveGate();
    this.#quarantines.delete(name);
  }
}

/** What would stop HEAD from being written must come up before the commit. */
function judgeHead(current: Head, change: { readonly old: Head; readonly new: Head }): void {
  if (!isDeepStrictEqual(current, change.old)) {
    throw new QuorateError('aborted', 'HEAD was changed meanwhile; try again');
  }
  if ('symref' in change.new) refuseUnlessBranch(change.new.symref);
  else throw new QuorateError('invalid-argument', 'HEAD can name a branch only');
}

function refuseUnlessBranch(head: string): void {
  if (!isBranchName(head)) throw new QuorateError('invalid-argument', 'that is no branch name');
}
