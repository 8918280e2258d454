import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import type { Head, ObjectFormat, Oid, RefCommand, RefSnapshot } from '../contract/objects.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type {
  HeldPush,
  LogReader,
  PeerSource,
  Prepared,
  PrepareRequest,
  QuarantineKey,
  Replica,
  ReplicaExport,
  ReplicaFork,
  ReplicaRead,
  ReplicaState,
  Uploaded,
  UploadOptions,
  VerifyReport,
} from '../contract/replica.js';
import type { HeadRecord, RepositoryStats } from '../contract/repository.js';
import { booleanSetting, listSetting, numberSetting } from '../contract/settings.js';
import { isFastForward } from '../git/ancestry.js';
import { emptyDigest } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { ObjectReader } from '../git/object-reader.js';
import { packMissing } from '../git/object-transfer.js';
import type { IndexedPack, PackIndexer } from '../git/pack-indexer.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isBranchName } from '../git/ref-files.js';
import {
  maintainRepository,
  MISSED_CLONES,
  type MaintenanceNeed,
  needsMaintenance,
} from '../git/maintenance.js';
import { createRepositoryFiles, removeTree } from '../git/repository-files.js';
import { catchUpFrom } from './catch-up.js';
import { CopyBeginnings } from './copy-beginnings.js';
import { storageFailure } from './disk-errors.js';
import { isZero } from './judge-names.js';
import { gatherQuarantines, listHeldPushes, packHeld } from './held-pushes.js';
import { HookPrograms, runHookProgram } from './hook-programs.js';
import { inspectPrepared } from './inspect.js';
import { judge, objectSources } from './judge.js';
import { ObjectPools } from './object-pools.js';
import { MissedClones } from './missed-clones.js';
import { OpenRepositories } from './open-repositories.js';
import { BehindError, type OpenRepository } from './open-repository.js';
import {
  makeQuarantine,
  maxMarkedUpdates,
  markPrepared,
  packDirectoryOf,
  type PreparedMark,
  readPreparedMark,
  storeUpdates,
} from './quarantine.js';
import { realRefs } from './ref-difference.js';
import { RefViews } from './ref-views.js';
import { UploadPacks } from './upload-packs.js';
import { LocalRead, type ReadDependencies } from './replica-read.js';
import { createState, readState } from './state-file.js';
import { Store } from './store.js';
import { verifyCopy } from './verify-copy.js';
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
  readonly files?: TakeFileSteps;
  /** How long an object that nothing reaches is kept after that was noticed. */
  readonly pruneGraceMs: number;
  /** Told after each applied entry, and when something else makes maintenance worth a look. */
  readonly applied: (repositoryId: string) => void;
  /** Where a repository's missing objects come from; absent where this store is the only one. */
  readonly peers?: (repositoryId: string) => PeerSource;
}

/** A push between its upload (or, without objects, its judgement) and the end of its fate. */
interface LiveQuarantine {
  readonly key: QuarantineKey;
  /** Monotonic time of the last step of its push; never while its upload runs. */
  touchedMs: number;
  /** Ends the push's stay in the prune gate. */
  leaveGate: () => void;
  /** Found at the start: it may be prepared, and is in no gate. */
  readonly left?: true;
  /** What the upload found out about completeness; lost with the process, which only costs a walk. */
  indexed?: IndexedPack;
}

interface MaintainOptions {
  readonly signal: AbortSignal;
  /** Default: the most thorough that does not take long. */
  readonly kind?: 'geometric' | 'full';
  readonly progress?: (progress: MaintenanceProgress) => void;
}

/** The store on this machine's disk. */
export class LocalReplica implements Replica {
  readonly storeId: string;
  readonly #dependencies: LocalReplicaDependencies;
  readonly #store: Store;
  readonly #open: OpenRepositories;
  readonly #pools: ObjectPools;
  readonly #readDependencies: ReadDependencies;
  readonly #hooks: HookPrograms;
  readonly #missedClones = new MissedClones();
  readonly #beginnings: CopyBeginnings;
  /** By repository and push id. */
  readonly #quarantines = new Map<string, LiveQuarantine>();

  private constructor(dependencies: LocalReplicaDependencies, store: Store) {
    this.#dependencies = dependencies;
    this.#store = store;
    this.storeId = store.id;
    this.#hooks = new HookPrograms(store.hooksDirectory);
    this.#beginnings = new CopyBeginnings({ replica: this, discard: (id) => store.destroy(id) });
    this.#pools = new ObjectPools({ ...dependencies, store });
    this.#readDependencies = {
      git: dependencies.git,
      objects: dependencies.objects,
      views: new RefViews(store, dependencies.logger),
      uploadPacks: new UploadPacks(dependencies),
      missedClone: (repository) => this.#noteMissedClone(repository),
    };
    this.#open = new OpenRepositories({
      ...dependencies,
      store,
      quarantineOf: (repositoryId, pushId) => this.#find(repositoryId, pushId)?.key,
      packsOf: (key) => this.#packsOf(key),
      quarantineApplied: (key) => this.#forget(key),
    });
    dependencies.meter.gauge('quarantines', {}, () => this.#quarantines.size);
  }

  static async open(dependencies: LocalReplicaDependencies): Promise<LocalReplica> {
    const { root, random, files } = dependencies;
    const store = await Store.open(root, random, files);
    const replica = new LocalReplica(dependencies, store);
    await replica.#pools.removeLeftovers();
    for (const key of await store.quarantines()) replica.#remember(key, { left: true });
    return replica;
  }

  /** Pushes whose objects are on this disk and whose fate is not settled. */
  get quarantines(): readonly QuarantineKey[] {
    return [...this.#quarantines.values()].map(({ key }) => key);
  }

  /** Those of pushes that did nothing for so long: their front-end may be gone. */
  idleQuarantines(idleMs: number): readonly QuarantineKey[] {
    const beforeMs = this.#dependencies.clock.monotonicMs() - idleMs;
    return [...this.#quarantines.values()]
      .filter(({ touchedMs }) => touchedMs < beforeMs)
      .map(({ key }) => key);
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
      await createState(this.#store.repositoryDirectory(repositoryId), {
        objectFormat,
        generation: 0,
        digest: emptyDigest({ symref: head }),
      });
    } catch (error) {
      throw storageFailure(error);
    }
  }

  async fork(fork: ReplicaFork): Promise<void> {
    refuseUnlessBranch(fork.head);
    await this.#store.assertRoom();
    await this.#open.with(fork.sourceId, async (source) => {
      await this.#applyUpTo(source, fork.sourceGeneration);
      await this.#pools.fork(source, fork);
    });
    this.#dependencies.applied(fork.sourceId);
  }

  async leavePool(repositoryId: string, poolId: string): Promise<void> {
    await this.#open.with(repositoryId, (repository) => this.#pools.leave(repository, poolId));
    this.#dependencies.applied(repositoryId);
  }

  async destroyPool(poolId: string): Promise<void> {
    await this.#pools.destroy(poolId, (id) => this.leavePool(id, poolId));
  }

  async upload(
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    { settings, basis, signal, progress }: UploadOptions,
  ): Promise<Uploaded> {
    return this.#open.with(key.repositoryId, async (repository) => {
      if (basis !== undefined) await this.#reachBasis(repository, basis);
      const directory = this.#store.quarantineDirectory(key);
      const quarantinePackDir = await makeQuarantine(this.#store, directory);
      const live = this.#remember(key);
      live.touchedMs = Infinity;
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
        live.indexed = indexed;
        live.touchedMs = this.#dependencies.clock.monotonicMs();
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
      await this.#applyUpTo(repository, request.basis);
      if (request.head !== undefined) judgeHead(repository.snapshot.head, request.head);
      const live = this.#remember(key);
      live.leaveGate();
      live.leaveGate = await repository.pruneGate.enter();
      const directory = this.#store.quarantineDirectory(key);
      const sources =
        live.indexed === undefined
          ? await objectSources(repository, directory)
          : { gitDir: repository.gitDirectory, objectDirectory: directory };
      // The mark says only what to ask when the process dies: it may be there before the verdict.
      const marking =
        sources.objectDirectory === undefined
          ? this.#store.assertRoom()
          : markPrepared(this.#store, directory, markOf(request));
      const judging = judge(this.#dependencies, repository, request, {
        sources,
        judgingDirectory: this.#store.judgingDirectory(key.repositoryId),
        indexed: live.indexed,
      });
      // Both come to their end, also when one fails: the quarantine may be removed then.
      await Promise.allSettled([marking, judging]);
      await marking;
      const refused = await judging;
      refuseCancelled(request.signal);
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
    await this.#open.with(repositoryId, async (repository) => {
      if (repository.generation === generation) return;
      await repository.gathering.join(() => this.#applyUpTo(repository, generation));
    });
    this.#dependencies.applied(repositoryId);
  }

  async abort(key: QuarantineKey): Promise<void> {
    this.#forget(key);
    await removeTree(this.#store.quarantineDirectory(key));
  }

  heldPushes(repositoryId: string): Promise<readonly HeldPush[]> {
    const own = this.quarantines.filter((key) => key.repositoryId === repositoryId);
    return listHeldPushes(this.#store, own);
  }

  async gather(
    key: QuarantineKey,
    from: readonly Pick<HeldPush, 'pushId' | 'attempt'>[],
  ): Promise<void> {
    await this.abort(key);
    const { repositoryId } = key;
    const others = from.map((other) => ({ ...other, repositoryId }));
    await gatherQuarantines(this.#store, key, others);
    this.#remember(key);
  }

  async applied(repositoryId: string): Promise<number> {
    return this.#open.with(repositoryId, async ({ generation }) => generation);
  }

  async read(
    repositoryId: string,
    atLeast: number,
    { eventual = false }: { readonly eventual?: boolean } = {},
  ): Promise<ReplicaRead> {
    const { repository, release } = await this.#open.acquire(repositoryId, {
      unconfirmed: eventual,
    });
    try {
      // To be ahead of what was asked for tells something only when that was the head.
      const enough = eventual && repository.generation >= atLeast;
      if (!enough) await this.#applyForRead(repository, atLeast);
      return new LocalRead(this.#readDependencies, repository, release);
    } catch (error) {
      release();
      throw storageFailure(error);
    }
  }

  /** The refs of this generation where they are in memory: what a read would show, without one. */
  knownSnapshot(repositoryId: string, head: HeadRecord): RefSnapshot | undefined {
    const repository = this.#open.peek(repositoryId);
    if (repository === undefined || repository.generation !== head.generation) return undefined;
    return repository.digest === head.digest ? repository.snapshot : undefined;
  }

  /** A clone of everything that git has to serve. When they are many, a repack may be due. */
  #noteMissedClone({ id, generation }: OpenRepository): void {
    const count = this.#missedClones.note(id, generation);
    // Once for a generation: what stays unfit to be sent as it is (shallow, kept) is not packed over and over.
    if (count === MISSED_CLONES) this.#dependencies.applied(id);
  }

  /** Looks at file counts only; runs no git. */
  async needsMaintenance(repositoryId: string): Promise<MaintenanceNeed> {
    const objectsDirectory = this.#store.objectsDirectory(repositoryId);
    const { own } = await this.#pools.stats(objectsDirectory);
    const need = needsMaintenance(own, this.#missedClones.of(repositoryId));
    if (need !== 'none') return need;
    return (await this.#pools.needsMaintenance(objectsDirectory)) ? 'full' : 'none';
  }

  async stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>> {
    const { own, sharedBytes } = await this.#pools.stats(
      this.#store.objectsDirectory(repositoryId),
    );
    const { packCount, cruftPackCount, looseObjectCount, sizeBytes } = own;
    return this.#open.with(repositoryId, async ({ snapshot }) => ({
      head: snapshot.head,
      refCount: snapshot.refs.length,
      packCount: packCount + cruftPackCount,
      looseObjectCount,
      sizeBytes,
      sharedBytes,
    }));
  }

  async maintain(
    repositoryId: string,
    { signal, kind, progress }: MaintainOptions,
  ): Promise<MaintenanceReport> {
    return this.#open.with(repositoryId, (repository) =>
      repository.maintenanceQueue.runLong(async (ended) => {
        refuseCancelled(signal);
        // What is committed and not applied relies on objects that nothing on this disk reaches yet.
        const { generation } = await this.#dependencies.log.head(repositoryId);
        await this.#applyUpTo(repository, generation);
        const either = AbortSignal.any([signal, ended]);
        await this.#pools.maintain(repository, either);
        const report = await maintainRepository({
          git: this.#dependencies.git,
          gitDir: repository.gitDirectory,
          clock: this.#dependencies.clock,
          signal: either,
          keepPacks: await this.#pools.packsToKeep(repository.objectsDirectory),
          holdRefs: (step) => repository.refsQueue.run(step),
          holdJudging: async (step) =>
            !this.#isLeft(repositoryId) && (await repository.pruneGate.tryPrune(step)),
          aroundRepack: (kind, repack) =>
            repackRecorded(repository, { kind, repack, logger: this.#dependencies.logger }),
          pinned: repository.retained.flatMap(({ refs }) => refs.map(({ oid }) => oid)),
          graceMs: this.#dependencies.pruneGraceMs,
          ...(kind === undefined ? {} : { kind }),
          ...(progress === undefined ? {} : { progress }),
        });
        repository.forgetShape();
        await this.#dependencies.objects.release(repository.gitDirectory);
        this.#missedClones.forget(repositoryId);
        return report;
      }),
    );
  }

  async destroy(repositoryId: string): Promise<void> {
    const remove = async (): Promise<void> => {
      for (const { key } of this.#quarantines.values()) {
        if (key.repositoryId === repositoryId) await this.abort(key);
      }
      const { objects, refs } = this.#dependencies;
      const gitDir = this.#store.gitDirectory(repositoryId);
      await Promise.all([objects.release(gitDir), refs.release(gitDir)]);
      await this.#store.destroy(repositoryId);
    };
    await this.#open.retire(repositoryId, () => this.#beginnings.apart(repositoryId, remove));
  }

  async state(repositoryId: string): Promise<ReplicaState | undefined> {
    try {
      return await this.#open.with(
        repositoryId,
        async ({ generation, digest, contradiction: frozen }) => ({
          generation,
          digest,
          ...(frozen === undefined ? {} : { frozen }),
        }),
      );
    } catch (error) {
      const { code, message } = asQuorateError(error);
      if (code === 'not-found') return undefined;
      if (code !== 'data-corrupt') throw error;
      const { generation, digest } = await readState(
        this.#store.repositoryDirectory(repositoryId),
      ).catch(() => ({ generation: 0, digest: '' }));
      return { generation, digest, frozen: message };
    }
  }

  async export(
    repositoryId: string,
    {
      atLeast,
      have,
      held,
      signal,
    }: {
      readonly atLeast: number;
      readonly have: readonly Oid[];
      readonly held?: Pick<HeldPush, 'pushId' | 'attempt'>;
      readonly signal: AbortSignal;
    },
  ): Promise<ReplicaExport> {
    const { repository, release } = await this.#open.acquire(repositoryId);
    try {
      // Not from a peer: two stores that lack the same would wait for each other.
      await repository.applyUpTo(atLeast);
      const { snapshot, digest, objectFormat, gitDirectory: gitDir } = repository;
      const tips = realRefs(snapshot.refs).map(({ oid }) => oid);
      const { git, objects } = this.#dependencies;
      const pack =
        held === undefined
          ? await packMissing({ git, objects, gitDir, tips, have, signal })
          : await packHeld({
              git,
              objects,
              have,
              signal,
              repository,
              store: this.#store,
              key: { ...held, repositoryId },
            });
      const { generation, head, refs } = snapshot;
      return { objectFormat, generation, digest, head, refs, pack, release };
    } catch (error) {
      release();
      throw storageFailure(error);
    }
  }

  async catchUp(
    repositoryId: string,
    {
      fresh,
      ...catchUp
    }: {
      readonly atLeast: number;
      readonly fresh?: boolean;
      readonly source: PeerSource;
      readonly signal: AbortSignal;
    },
  ): Promise<ReplicaState> {
    await this.#beginnings.begin(repositoryId, {
      ...catchUp,
      ...(fresh === true ? { fresh } : {}),
    });
    return this.#open.with(repositoryId, async (repository) => {
      await this.#catchUp(repository, catchUp);
      const { generation, digest } = repository;
      return { generation, digest };
    });
  }

  async verify(
    repositoryId: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<VerifyReport> {
    const { git } = this.#dependencies;
    const dependencies = { git, store: this.#store, open: this.#open };
    return verifyCopy(dependencies, repositoryId, signal);
  }

  /** Whoever reads goes to another store rather than wait for a transfer, which is begun all the same. */
  async #applyForRead(repository: OpenRepository, generation: number): Promise<void> {
    if (this.#dependencies.peers === undefined) return this.#applyUpTo(repository, generation);
    try {
      await repository.applyUpTo(generation);
    } catch (error) {
      if (error instanceof BehindError && repository.catchUpQueue.length === 0) {
        void this.apply(repository.id, generation).catch((failed: unknown) => {
          this.#dependencies.logger.warn(
            { component: 'store', repo: repository.id, err: failed },
            'a repository could not catch up',
          );
        });
      }
      throw error;
    }
  }

  /** Says of what goes wrong that it is not the pack's fault. */
  async #reachBasis(repository: OpenRepository, basis: number): Promise<void> {
    try {
      await this.#applyUpTo(repository, basis);
    } catch (cause) {
      const { code, message, details } = asQuorateError(cause);
      throw new QuorateError(code, message, { details: { ...details, basis }, cause });
    }
  }

  /** Catches up from a peer where the log alone does not do. */
  async #applyUpTo(repository: OpenRepository, generation: number): Promise<void> {
    try {
      await repository.applyUpTo(generation);
    } catch (error) {
      if (!(error instanceof BehindError)) throw error;
      const source = this.#dependencies.peers?.(repository.id);
      if (source === undefined) {
        throw new QuorateError(
          'data-corrupt',
          `the push log does not reach from generation ${repository.generation} to ${generation}`,
          { details: { id: repository.id } },
        );
      }
      const { signal } = new AbortController();
      await this.#catchUp(repository, { atLeast: generation, source, signal });
    }
  }

  /**
   * One at a time for each repository: whoever waits behind it finds the work done. A peer is asked for whatever it has
   * beyond this store, and the log for the rest: two stores that each prepared what the other lacks would wait for each
   * other if either asked for the head.
   */
  async #catchUp(
    repository: OpenRepository,
    catchUp: {
      readonly atLeast: number;
      readonly source: PeerSource;
      readonly signal: AbortSignal;
    },
  ): Promise<void> {
    await repository.catchUpQueue.run(async () => {
      const store = this.#store;
      const dependencies = { ...this.#dependencies, store, abort: this.abort.bind(this) };
      do {
        const { generation } = repository;
        if (catchUp.atLeast > 0 && generation >= catchUp.atLeast) return;
        const atLeast = Math.min(catchUp.atLeast, generation + 1);
        await catchUpFrom(dependencies, repository, { ...catchUp, atLeast });
        await repository.applyUpTo(catchUp.atLeast).catch((error: unknown) => {
          if (!(error instanceof BehindError)) throw error;
        });
      } while (repository.generation < catchUp.atLeast);
    });
    this.#dependencies.applied(repository.id);
  }

  /** Takes a copy that counts for nothing any more out of the way; what waits in its quarantines stays. */
  async setAside(repositoryId: string): Promise<void> {
    await this.#open.retire(repositoryId, async () => {
      const gitDir = this.#store.gitDirectory(repositoryId);
      const { objects, refs } = this.#dependencies;
      await Promise.all([objects.release(gitDir), refs.release(gitDir)]);
      await this.#store.setAside(repositoryId, this.#dependencies.clock.nowMs());
    });
  }

  /** Resolves when the files of applied pushes are gone. */
  async close(): Promise<void> {
    await this.#readDependencies.uploadPacks.close();
    await this.#open.cleaned();
    await this.#store.close();
  }

  #find(repositoryId: string, pushId: string): LiveQuarantine | undefined {
    return this.#quarantines.get(`${repositoryId} ${pushId}`);
  }

  /** Whether an earlier process may have judged a push by what is here, whose fate is not settled yet. */
  #isLeft(repositoryId: string): boolean {
    for (const { key, left } of this.#quarantines.values()) {
      if (left === true && key.repositoryId === repositoryId) return true;
    }
    return false;
  }

  #packsOf(key: QuarantineKey): readonly string[] | undefined {
    const files = this.#find(key.repositoryId, key.pushId)?.indexed?.files;
    const directory = packDirectoryOf(this.#store.quarantineDirectory(key));
    return files?.map((name) => join(directory, name));
  }

  #remember(key: QuarantineKey, found: { readonly left?: true } = {}): LiveQuarantine {
    const name = `${key.repositoryId} ${key.pushId}`;
    const touchedMs = this.#dependencies.clock.monotonicMs();
    const live = this.#quarantines.get(name) ?? {
      key,
      touchedMs,
      leaveGate: () => undefined,
      ...found,
    };
    if (live.touchedMs < touchedMs) live.touchedMs = touchedMs;
    this.#quarantines.set(name, live);
    return live;
  }

  #forget(key: QuarantineKey): void {
    const name = `${key.repositoryId} ${key.pushId}`;
    this.#quarantines.get(name)?.leaveGate();
    this.#quarantines.delete(name);
  }
}

function markOf({ basis, commands, lockRevisions }: PrepareRequest): PreparedMark {
  return {
    basis,
    ...(commands.length > maxMarkedUpdates
      ? {}
      : {
          updates: commands.map(({ ref, oldOid, newOid }) => ({ ref, oldOid, newOid })),
        }),
    lockRevisions: lockRevisions.map(({ key, createRevision }) => ({ key, createRevision })),
  };
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
