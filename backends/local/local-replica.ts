import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import { refuseCancelled } from '../contract/errors.js';
import type { RefCommand, RefSnapshot } from '../contract/objects.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type {
  CopiesPage,
  EarlyPack,
  HeldPush,
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
import { isFastForward } from '../git/ancestry.js';
import { failedStep, type FileStep } from '../git/file-steps.js';
import type { MaintenanceNeed } from '../git/maintenance.js';
import type { ObjectSources } from '../git/object-environment.js';
import { Advance } from './advance.js';
import { dropCatchUps } from './catch-up.js';
import { CopyBeginnings } from './copy-beginnings.js';
import { copyState, copyToFill, type StateOptions } from './copy-state.js';
import { storageFailure } from './disk-errors.js';
import { judgeHead, refuseUnlessBranch } from './judge-head.js';
import { movedBranches } from './judge-names.js';
import { gatherQuarantines, listHeldPushes } from './held-pushes.js';
import { exportCopy, type ExportOptions } from './export-copy.js';
import { HookPrograms, runHookProgram } from './hook-programs.js';
import { inspectPrepared } from './inspect.js';
import { judge, judgeFromMemory, objectSources, refuseGone } from './judge.js';
import { ObjectPools } from './object-pools.js';
import { makeEmptyCopy } from './empty-copy.js';
import { keepUpdates } from './kept-updates.js';
import { IncomingPacks } from './incoming-packs.js';
import { inTurn, type LiveQuarantine, LiveQuarantines, noteMark } from './live-quarantines.js';
import { OpenRepositories, type PuttingAside, type Removal } from './open-repositories.js';
import type { OpenRepository } from './open-repository.js';
import { markOf, markSteps, type PreparedMark, readPreparedMark } from './quarantine.js';
import type { LocalReplicaDependencies } from './replica-dependencies.js';
import { RefViews } from './ref-views.js';
import { type MaintainOptions, Upkeep } from './upkeep.js';
import { UploadPacks } from './upload-packs.js';
import { LocalRead, type ReadDependencies } from './replica-read.js';
import { Store, unlessFull } from './store.js';
import { storedCopies } from './stored-copies.js';
import { verifyTold } from './verify-copy.js';

const never = Promise.resolve(false);

/** The store on this machine's disk. */
export class LocalReplica implements Replica {
  readonly storeId: string;
  readonly #dependencies: LocalReplicaDependencies;
  readonly #store: Store;
  readonly #open: OpenRepositories;
  readonly #pools: ObjectPools;
  readonly #readDependencies: ReadDependencies;
  readonly #hooks: HookPrograms;
  readonly #advance: Advance;
  readonly #upkeep: Upkeep;
  readonly #beginnings: CopyBeginnings;
  readonly #quarantines: LiveQuarantines;
  readonly #incoming: IncomingPacks;

  private constructor(dependencies: LocalReplicaDependencies, store: Store) {
    this.#dependencies = dependencies;
    this.#store = store;
    this.storeId = store.id;
    this.#hooks = new HookPrograms(store.hooksDirectory);
    this.#beginnings = new CopyBeginnings({
      verify: this.verify.bind(this),
      setAside: (id) => this.#open.retire(id, () => this.#moveAside(id, {})),
      found: (id) => copyToFill(this.#open, store, id),
      wanted: (id) => dependencies.log.wantsCopy(id, store.id),
      makeFiles: (id, options) => makeEmptyCopy(dependencies.git, store, id, options),
      discard: (id) => store.destroy(id),
    });
    this.#pools = new ObjectPools({ ...dependencies, store });
    this.#quarantines = new LiveQuarantines(dependencies.clock, store);
    this.#incoming = new IncomingPacks(dependencies, store, this.#quarantines);
    this.#advance = new Advance({
      dependencies,
      store,
      abort: this.abort.bind(this),
      apply: this.apply.bind(this),
    });
    this.#readDependencies = {
      git: dependencies.git,
      objects: dependencies.objects,
      views: new RefViews(store, dependencies.logger),
      uploadPacks: new UploadPacks(dependencies),
      missedClone: (repository) => this.#upkeep.missedClone(repository),
      suspect: dependencies.suspect,
    };
    this.#open = new OpenRepositories({
      ...dependencies,
      store,
      quarantineOf: (repositoryId, pushId) => this.#quarantines.find(repositoryId, pushId)?.key,
      packsOf: (key) => this.#quarantines.packsOf(key),
      quarantineApplied: (key) => this.#quarantines.forget(key),
    });
    this.#upkeep = new Upkeep({
      dependencies,
      store,
      open: this.#open,
      pools: this.#pools,
      isLeft: (id) => this.#quarantines.isLeft(id),
      applyUpTo: this.#advance.upTo,
    });
    dependencies.meter.gauge('quarantines', {}, () => this.#quarantines.size);
  }

  static async open(dependencies: LocalReplicaDependencies): Promise<LocalReplica> {
    const { root, random, files } = dependencies;
    const store = await Store.open(root, random, files);
    const replica = new LocalReplica(dependencies, store);
    await replica.#pools.removeLeftovers();
    for (const key of await store.quarantines()) replica.#quarantines.remember(key, { left: true });
    return replica;
  }

  /** Pushes whose objects are on this disk and whose fate is not settled. */
  get quarantines(): readonly QuarantineKey[] {
    return this.#quarantines.keys;
  }

  /** Those of pushes that did nothing for so long: their front-end may be gone. */
  idleQuarantines(idleMs: number): readonly QuarantineKey[] {
    return this.#quarantines.idle(idleMs);
  }

  /** Those that an earlier process left, and whose pushes have not gone on in this one. */
  get leftQuarantines(): readonly QuarantineKey[] {
    return this.#quarantines.left;
  }

  /** Drops a quarantine that nobody needs, unless its push goes on until its turn, or while that is found out. */
  async dropIfOver(
    key: QuarantineKey,
    isOver: (prepared: PreparedMark | undefined) => Promise<boolean>,
    turn?: Promise<void>,
  ): Promise<void> {
    const steps = (): number | undefined =>
      this.#quarantines.find(key.repositoryId, key.pushId)?.steps;
    const before = steps();
    await turn;
    const mark = await readPreparedMark(this.#store, key);
    if ((await isOver(mark)) && steps() === before) await this.abort(key);
  }

  async create(repositoryId: string, options: Parameters<Replica['create']>[1]): Promise<void> {
    refuseUnlessBranch(options.head);
    await this.#beginnings.create(repositoryId, options);
  }

  async fork(fork: ReplicaFork): Promise<void> {
    refuseUnlessBranch(fork.head);
    await this.#store.assertRoom();
    await this.#beginnings.ofNew(fork.repositoryId, () =>
      this.#open.with(fork.sourceId, async (source) => {
        await this.#advance.upTo(source, fork.sourceGeneration);
        await this.#pools.fork(source, fork);
      }),
    );
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
    { basis, ...options }: UploadOptions,
  ): Promise<Uploaded> {
    return this.#open.with(key.repositoryId, async (repository) => {
      if (basis !== undefined) await this.#advance.toBasis(repository, basis);
      const { objectCount, sizeBytes } = await this.#incoming.take(repository, key, pack, options);
      return { objectCount, sizeBytes };
    });
  }

  startTaking({ key, basis, ...early }: EarlyPack): void {
    this.#incoming.begin(key, (signal) =>
      this.#open.with(key.repositoryId, async (repository) => {
        await this.#advance.toBasis(repository, basis);
        refuseCancelled(signal);
        await this.#incoming.takeWith(repository, { ...early, key, signal });
        const live = this.#quarantines.find(key.repositoryId, key.pushId);
        if (live !== undefined) await this.#incoming.syncPack(live);
      }),
    );
  }

  async prepare(request: PrepareRequest): Promise<Prepared> {
    const { key } = request;
    await this.#incoming.begun(key);
    return this.#open.with(key.repositoryId, async (repository) => {
      await this.#advance.upTo(repository, request.basis);
      if (request.head !== undefined) judgeHead(repository.snapshot.head, request.head);
      await this.#incoming.takeWith(repository, request);
      await this.#quarantines.removed(key);
      // Before it is remembered: nothing is there that would have to be let go.
      if (this.#quarantines.find(key.repositoryId, key.pushId)?.indexed === undefined) {
        refuseGone(request, await this.#sourcesOf(repository, key));
      }
      const live = this.#quarantines.remember(key);
      await this.#quarantines.enterGate(live, repository.pruneGate);
      const directory = this.#store.quarantineDirectory(key);
      const sources =
        live.indexed === undefined
          ? await objectSources(repository, directory)
          : { gitDir: repository.gitDirectory, objectDirectory: directory };
      refuseGone(request, sources);
      if (sources.objectDirectory === undefined) noteMark(live, markOf(request));
      const names = judgeFromMemory(repository, request, live.indexed);
      // git is going to look into it.
      if (names.look === undefined) await this.#incoming.name(live);
      const keeping =
        sources.objectDirectory === undefined
          ? this.#store.assertRoom().then(() => false)
          : this.#keepPrepared(live, request, names.look);
      const judging = judge(this.#dependencies, repository, request, {
        sources,
        judgingDirectory: this.#store.judgingDirectory(key.repositoryId),
        indexed: live.indexed,
        names,
        passed: names.look === undefined ? never : keeping,
      });
      // Both come to their end, also when one fails: the quarantine may be removed then.
      await Promise.allSettled([keeping, judging]);
      await keeping;
      const refused = await judging;
      refuseCancelled(request.signal);
      const { head } = repository.snapshot;
      return {
        storeId: this.storeId,
        refused,
        currentBranch: 'symref' in head ? head.symref : undefined,
        ...(request.pack === undefined ? {} : { packBytes: live.indexed?.sizeBytes ?? 0 }),
      };
    });
  }

  /**
   * The mark says only what to ask when the process dies: it may be there before the verdict, but not before the pack,
   * which is what it vouches for. Whether nothing was found in the way when `look` was taken behind it.
   */
  async #keepPrepared(
    live: LiveQuarantine,
    request: PrepareRequest,
    look: readonly FileStep[] = [],
  ): Promise<boolean> {
    return inTurn(live, request, async () => {
      const directory = this.#store.quarantineDirectory(request.key);
      const mark = markSteps(this.#store, directory, markOf(request));
      const found = await this.#incoming
        .syncPack(live, [...mark, ...look])
        .catch((error: unknown) => {
          if ((failedStep(error) ?? 0) < mark.length) throw unlessFull(error);
          return error;
        });
      this.#store.spares.marked(directory);
      return found === undefined;
    });
  }

  async nonFastForwards(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    return this.#open.with(key.repositoryId, async (repository) => {
      const sources = await this.#sourcesOf(repository, key);
      const found = new Set<string>();
      for (const { ref, oldOid, newOid } of movedBranches(commands)) {
        const { git } = this.#dependencies;
        if (!(await isFastForward({ git, ...sources, oldOid, newOid, signal }))) found.add(ref);
      }
      return found;
    });
  }

  async runHook(key: QuarantineKey, run: HookRun): Promise<HookEnd> {
    return this.#open.with(key.repositoryId, async (repository) => {
      const sources = await this.#sourcesOf(repository, key);
      this.#store.spares.opened(this.#store.quarantineDirectory(key));
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
    return keepUpdates(this.#store, this.#quarantines, key, updates);
  }

  async keep(key: QuarantineKey): Promise<void> {
    this.#quarantines.keep(key);
  }

  async apply(repositoryId: string, generation: number): Promise<void> {
    await this.#open.with(repositoryId, async (repository) => {
      if (repository.generation === generation) return;
      await repository.gathering.join(() => this.#advance.upTo(repository, generation));
    });
    this.#dependencies.applied(repositoryId);
  }

  async abort(key: QuarantineKey): Promise<void> {
    await this.#incoming.stop(key);
    await this.#quarantines.remove(key);
  }

  heldPushes(
    repositoryId: string,
    updatesDigests: readonly string[] = [],
  ): Promise<readonly HeldPush[]> {
    return listHeldPushes(this.#store, this.#quarantines.of(repositoryId), updatesDigests);
  }

  async gather(
    key: QuarantineKey,
    from: readonly Pick<HeldPush, 'pushId' | 'attempt'>[],
  ): Promise<void> {
    await this.abort(key);
    const { repositoryId } = key;
    const others = from.map((other) => ({ ...other, repositoryId }));
    await gatherQuarantines(this.#store, key, others);
    this.#quarantines.remember(key);
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
      repository.refuseBegun();
      // To be ahead of what was asked for tells something only when that was the head.
      const enough = eventual && repository.generation >= atLeast;
      if (!enough) await this.#advance.forRead(repository, atLeast);
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

  /** Looks at file counts only; runs no git. */
  needsMaintenance(repositoryId: string): Promise<MaintenanceNeed> {
    return this.#upkeep.need(repositoryId);
  }

  stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>> {
    return this.#upkeep.stats(repositoryId);
  }

  maintain(repositoryId: string, options: MaintainOptions): Promise<MaintenanceReport> {
    return this.#upkeep.maintain(repositoryId, options);
  }

  async destroy(repositoryId: string, { confirm }: Removal = {}): Promise<void> {
    const remove = async (): Promise<void> => {
      await confirm?.();
      for (const key of this.#quarantines.of(repositoryId)) await this.abort(key);
      const { objects, refs } = this.#dependencies;
      const gitDir = this.#store.gitDirectory(repositoryId);
      await Promise.all([objects.release(gitDir), refs.release(gitDir)]);
      await this.#store.destroy(repositoryId);
      await dropCatchUps(this.#store, repositoryId, this.abort.bind(this));
    };
    await this.#open.retire(repositoryId, () => this.#beginnings.apart(repositoryId, remove));
  }

  copies(after: string): Promise<CopiesPage> {
    return storedCopies(this.#store, this.#dependencies.logger, after);
  }

  async state(repositoryId: string, options?: StateOptions): Promise<ReplicaState | undefined> {
    const found = await copyState(this.#open, this.#store, { repositoryId, ...options });
    return found?.begun === true ? undefined : found?.state;
  }

  export(repositoryId: string, options: ExportOptions): Promise<ReplicaExport> {
    const dependencies = { ...this.#dependencies, store: this.#store, open: this.#open };
    return exportCopy(dependencies, repositoryId, options);
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
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<ReplicaState> {
    const beginning = { ...catchUp, ...(fresh === true ? { fresh } : {}) };
    await this.#beginnings.begin(repositoryId, beginning);
    return this.#open.with(repositoryId, async (repository) => {
      await this.#advance.fromPeer(repository, catchUp);
      await repository.filled();
      const { generation, digest } = repository;
      return { generation, digest };
    });
  }

  verify(
    repositoryId: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<VerifyReport> {
    const own = { store: this.#store, open: this.#open, pools: this.#pools };
    return verifyTold({ ...this.#dependencies, ...own }, repositoryId, signal);
  }

  /**
   * Takes a copy that counts for nothing any more out of the way. What waits in its quarantines stays, for the copy in
   * its place; or goes with it (`prepared`), when there is to be none: it may be all that is left of those pushes.
   */
  async setAside(repositoryId: string, how: PuttingAside = {}): Promise<void> {
    await this.#open.retire(repositoryId, () =>
      this.#beginnings.apart(repositoryId, () => this.#moveAside(repositoryId, how)),
    );
  }

  async #moveAside(repositoryId: string, how: PuttingAside): Promise<void> {
    const { prepared = false, confirm } = how;
    await confirm?.();
    const gitDir = this.#store.gitDirectory(repositoryId);
    const { objects, refs, clock } = this.#dependencies;
    await Promise.all([objects.release(gitDir), refs.release(gitDir)]);
    await this.#pools.makeWhole(repositoryId);
    const keys = prepared ? this.#quarantines.of(repositoryId) : [];
    await this.#store.setAside(repositoryId, clock.nowMs(), keys);
    for (const key of keys) this.#quarantines.forget(key);
    await dropCatchUps(this.#store, repositoryId, this.abort.bind(this));
  }

  /** Where the objects of a push are. Once it is applied its quarantine is on its way out, and they are with the others. */
  async #sourcesOf(repository: OpenRepository, key: QuarantineKey): Promise<ObjectSources> {
    if (this.#quarantines.find(key.repositoryId, key.pushId) === undefined) {
      return { gitDir: repository.gitDirectory, objectDirectory: undefined };
    }
    return objectSources(repository, this.#store.quarantineDirectory(key));
  }

  /** Resolves when the files of applied pushes are gone. */
  async close(): Promise<void> {
    await this.#readDependencies.uploadPacks.close();
    await this.#open.cleaned();
    await this.#store.close();
  }
}
