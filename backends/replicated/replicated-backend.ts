import type {
  Backend,
  BackendStatus,
  LockInfo,
  MaintenanceProgress,
  MaintenanceReport,
  PushRequest,
  PushResult,
  ReadOptions,
  ReadSession,
} from '../contract/backend.js';
import type { ClusterControl, StoreView } from '../contract/cluster.js';
import type { HeadRecovery } from '../contract/recovery.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import {
  type Repository,
  type RepositoryRegistry,
  repositoryIdOf,
} from '../contract/repository.js';
import { deleted, type StoredRecord } from './basis.js';
import type { CommitDependencies } from './commit.js';
import { Contention } from './contention.js';
import { applyLog } from './apply-log.js';
import type { ReplicatedBackendDependencies } from './backend-dependencies.js';
import { CommitQueue } from './commit-queue.js';
import { createHeadRecovery } from './head-recovery.js';
import { importRepository } from './import.js';
import { firstAnswer } from './first-answer.js';
import { findLagging } from './lagging.js';
import { LogTrim } from './log-trim.js';
import { namedLocks } from './named-locks.js';
import { Patience } from './patience.js';
import { Outbox } from './outbox.js';
import { Presence } from './presence.js';
import { type PushTrace, untraced } from './push-trace.js';
import { RepositoryEvents } from './repository-events.js';
import { atomicFailure, type PushDependencies, runPush } from './push.js';
import { PushesAhead } from './push-ahead.js';
import { ReadRates } from './read-rates.js';
import { isRecord, ReadPath } from './read-path.js';
import {
  decodeRepository,
  rememberedRecords,
  rememberingDecoder,
  type RepositoryRecord,
  scan,
} from './records.js';
import { Registry } from './registry.js';
import { SmallPacks } from './small-packs.js';
import { setHead } from './set-head.js';
import { storesAsKnown } from './gone-stores.js';
import { SweepSchedule } from './sweep-schedule.js';
import { applyEverywhere, appliedEverywhere } from './replicate.js';
import { nobodyReachable, reachable } from './voters.js';

/** So long a start, or a round, waits for what is left to be removed: files may have readers for hours. */
const cleanPatienceMs = 3_000;
/** How long what a dead front-end left waits, after its lease. */
const sweepEveryMs = 15_000;

type BackendState = 'starting' | 'serving' | 'draining' | 'stopped';

/**
 * Quorum commit over replicas and a coordinator (docs/architecture.md). With one local replica and the embedded
 * coordinator it is the `local` backend.
 */
export class ReplicatedBackend implements Backend {
  readonly capabilities = {
    generations: true,
    renameIsInstant: true,
    inspectsPushes: true,
    forks: true,
  };
  readonly repositories: RepositoryRegistry;
  readonly stores: StoreView | undefined;
  readonly cluster: ClusterControl | undefined;
  readonly recovery: HeadRecovery;
  readonly #dependencies: ReplicatedBackendDependencies;
  readonly #registry: Registry;
  readonly #presence: Presence;
  readonly #outbox: Outbox;
  readonly #events: RepositoryEvents;
  readonly #trim: LogTrim;
  readonly #commit: CommitDependencies;
  readonly #readRates: ReadRates | undefined;
  readonly #reads: ReadPath;
  readonly #ahead: PushesAhead;
  readonly #smallPacks: SmallPacks;
  readonly #decodeRecord = rememberingDecoder(decodeRepository, rememberedRecords);
  readonly #queues = new Map<string, CommitQueue>();
  /** Pushes and imports running, so that close can wait for them. */
  readonly #running = new Set<Promise<unknown>>();
  #state: BackendState = 'starting';
  #closing: Promise<void> | undefined;
  #sweeping: Promise<void> | undefined;
  /** Files that are removed may have readers for long: nothing waits for this to its end. */
  #cleaning: Promise<void> | undefined;
  readonly #stopped = new AbortController();

  constructor(dependencies: ReplicatedBackendDependencies) {
    this.#dependencies = dependencies;
    this.stores = dependencies.stores;
    this.cluster = dependencies.cluster;
    const { unguarded: coordinator = dependencies.coordinator } = dependencies;
    this.recovery = createHeadRecovery({ ...dependencies, coordinator });
    this.#events = new RepositoryEvents(dependencies);
    this.#presence = new Presence(dependencies);
    const frontEnd = (): Promise<string> => this.#presence.id();
    const { reportReadsFrom: from } = dependencies;
    this.#readRates =
      from === undefined
        ? undefined
        : new ReadRates({ ...dependencies, presence: this.#presence, from });
    this.#registry = new Registry({ ...dependencies, frontEnd, events: this.#events });
    this.#reads = new ReadPath({
      ...dependencies,
      registry: this.#registry,
      record: (id) => this.#record(id),
      rates: this.#readRates,
    });
    this.#smallPacks = new SmallPacks(dependencies.clock);
    this.#ahead = new PushesAhead({
      ...dependencies,
      registry: this.#registry,
      stored: (id) => this.#stored(id),
    });
    this.repositories = this.#registryView();
    const { replicas } = dependencies;
    const readRecord = (id: string): Promise<RepositoryRecord | undefined> => this.#find(id);
    this.#trim = new LogTrim({
      ...dependencies,
      appliedEverywhere: (id) => appliedEverywhere({ ...dependencies, readRecord }, id),
    });
    const { meter } = dependencies;
    meter.gauge('repositories_lagging', {}, () => this.#trim.lag.repositories);
    meter.gauge('replica_lag_generations', {}, () => this.#trim.lag.generations);
    meter.gauge('replica_lag_seconds', {}, () => this.#trim.lag.ms / 1000);
    this.#outbox = new Outbox({
      ...dependencies,
      frontEnd,
      // The quarantine is gone by then: the repository has its objects.
      runHook: async ({ repositoryId, pushId, storeId }, run) => {
        const replica = replicas.find(storeId);
        if (replica === undefined) throw nobodyReachable(replicas, []);
        return replica.runHook({ repositoryId, pushId, attempt: 1 }, run);
      },
      // Who votes since the record that a commit compared joined with that commit applied.
      applyEverywhere: async (id, generation, { fresh, trace }) =>
        applyEverywhere(dependencies, fresh?.record ?? (await this.#record(id)), {
          generation,
          done: fresh?.applied,
          trace,
        }),
      trimLater: (id) => this.#trim.later(id),
    });
    this.#commit = {
      locks: dependencies.locks,
      replicas: dependencies.replicas,
      queueOf: (id) => this.#queueOf(id),
      contention: new Contention(dependencies.clock),
      patience: new Patience(),
      presence: () => this.#presence.announced(),
      committed: (id, fresh) => {
        dependencies.learnCommit?.(id, fresh.entry);
        this.#outbox.notify(id, fresh.entry.pushId, fresh);
      },
      clock: dependencies.clock,
      meter: dependencies.meter,
      logger: dependencies.logger,
      lockTimeoutMs: dependencies.lockTimeoutMs,
      maxInlineUpdatesBytes: dependencies.maxInlineUpdatesBytes,
    };
  }

  /** Applies what the log still holds, settles old quarantines, buries half-made repositories, resumes the outbox. */
  async start(options: { readonly frozen?: boolean } = {}): Promise<void> {
    const { logger } = this.#dependencies;
    if (options.frozen === true) {
      this.#state = 'serving';
      logger.warn({ component: 'backend' }, 'nothing is recovered, and only reads are served');
      return;
    }
    let repositories: number | undefined;
    await this.#cleanAtMost(async () => {
      repositories = await this.#registry.sweep();
    });
    const applied = await applyLog({ ...this.#dependencies, readRecord: (id) => this.#find(id) });
    await this.#dependencies.local.resolveQuarantines();
    await this.#outbox.resume();
    await this.#cleanAtMost(() => this.#registry.sweepPools());
    this.#events.notify();
    await this.#trim.resume();
    this.#sweeping = this.#sweep();
    this.#readRates?.start();
    for (const companion of this.#dependencies.companions ?? []) companion.start();
    this.#state = 'serving';
    logger.info({ component: 'backend', repositories, applied }, 'repositories recovered');
  }

  async read(
    repository: Repository,
    signal: AbortSignal,
    options: ReadOptions = {},
  ): Promise<ReadSession> {
    this.#refuseUnlessServing();
    return this.#reads.read(repository, signal, {
      ...options,
      head: this.#ahead.headOf(repository),
    });
  }

  async push(repository: Repository, request: PushRequest): Promise<PushResult> {
    this.#refuseUnlessServing();
    return this.#track(async () => {
      const beginning = await this.#ahead.beginning(repository, request);
      const { pushId, actor } = request;
      const trace =
        this.#dependencies.traces?.begin({ pushId, actor, repositoryId: repository.id }) ??
        untraced;
      const { length: count } = request.commands;
      trace.note('received', { detail: count === 1 ? '1 ref' : `${count} refs` });
      try {
        const result = await runPush(this.#pushDependencies(trace), beginning, request);
        const detail = reasonOf(result);
        if (detail !== undefined) trace.note('refused', { detail });
        return result;
      } catch (error) {
        const { code, message } = asQuorateError(error);
        trace.note('failed', { detail: `${code}: ${message}` });
        throw error;
      }
    });
  }

  async maintain(
    repository: Repository,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport> {
    this.#refuseUnlessServing();
    const { voters } = isRecord(repository) ? repository : await this.#record(repository.id);
    const [first, ...others] = reachable(this.#dependencies.replicas, voters);
    if (first === undefined) throw nobodyReachable(this.#dependencies.replicas, voters);
    const { signal } = options;
    // The report is of one store; what the others say is in their logs.
    const rest = others.map(({ replica }) => replica.maintain(repository.id, { signal }));
    const [report] = await Promise.all([
      first.replica.maintain(repository.id, options),
      Promise.allSettled(rest),
    ]);
    return report;
  }

  async importFrom(
    repository: Repository,
    source: string,
    options: {
      readonly actor: string;
      readonly signal: AbortSignal;
      readonly progress: (progress: MaintenanceProgress) => void;
    },
  ): Promise<{ readonly refs: number }> {
    this.#refuseUnlessServing();
    return this.#track(() =>
      importRepository(
        {
          ...this.#dependencies,
          backend: this,
          scratchDirectory: this.#dependencies.scratchDirectory,
        },
        { ...options, repository, source },
      ),
    );
  }

  async locks(): Promise<readonly LockInfo[]> {
    const { coordinator, locks } = this.#dependencies;
    return namedLocks(coordinator, await locks.list());
  }

  async status(): Promise<BackendStatus> {
    const { coordinator, local } = this.#dependencies;
    let repositories = 0;
    for await (const { version } of scan(coordinator, keys.names, { keysOnly: true })) {
      if (version > 0) repositories++;
    }
    return {
      backend: this.#dependencies.name,
      repositories,
      objectEngine: local.objectEngine,
      pushesRunning: this.#running.size,
      maintenanceQueued: local.maintenanceQueued(),
      quarantines: local.quarantines(),
    };
  }

  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    this.#state = 'draining';
    const finished = Promise.allSettled([...this.#running, this.#registry.close(), this.#cleaning]);
    await Promise.race([finished, this.#dependencies.clock.sleep(graceMs)]);
    this.#state = 'stopped';
    this.#stopped.abort();
    await Promise.all((this.#dependencies.companions ?? []).map((one) => one.close()));
    await Promise.all([this.#sweeping, this.#readRates?.close()]);
    await Promise.all([this.#outbox.close(), this.#events.close()]);
    await this.#trim.close();
    await this.#presence.close();
    await this.#dependencies.local.close();
  }

  #pushDependencies(trace: PushTrace): PushDependencies {
    return {
      ...this.#commit,
      trace,
      smallPacks: this.#smallPacks,
      pipeline: this.#dependencies.pipeline,
      consistency: this.#dependencies.consistency,
      attend: (pushId, progress) => this.#outbox.attend(pushId, progress),
    };
  }

  #registryView(): RepositoryRegistry {
    const registry = this.#registry;
    return {
      create: (repository, by) => registry.create(repository, by),
      fork: (source, fork, by) => {
        this.#refuseUnlessServing();
        return this.#track(() => registry.fork(source.id, fork, by));
      },
      get: (name) => registry.get(name),
      getForPushing: (name) => this.#ahead.find(name),
      getForReading: (name, options) => this.#reads.find(name, options),
      list: (page) => registry.list(page),
      update: (repository, change, by) => registry.update(repositoryIdOf(repository), change, by),
      rename: (repository, name, by) => registry.rename(repositoryIdOf(repository), name, by),
      delete: (repository, by, options) => registry.delete(repositoryIdOf(repository), by, options),
      // Ids are never given again.
      whileNamed: (_repository, write) => write(),
      setHead: async (repository, branch, by = 'system') => {
        this.#refuseUnlessServing();
        const { attend } = this.#pushDependencies(untraced);
        const dependencies = { ...this.#dependencies, commit: this.#commit, attend };
        await this.#track(async () =>
          setHead(dependencies, await this.#record(repositoryIdOf(repository)), { branch, by }),
        );
      },
      stats: async (repository) => {
        const id = repositoryIdOf(repository);
        const { voters } = await this.#record(id);
        const stats = await firstAnswer(this.#dependencies, voters, (replica) => replica.stats(id));
        const sharedBy = stats.sharedBytes === 0 ? undefined : await registry.sharedBy(id);
        return {
          ...stats,
          generation: (await this.#dependencies.log.head(id)).generation,
          ...(sharedBy === undefined ? {} : { sharedBy }),
        };
      },
    };
  }

  async #record(id: string): Promise<RepositoryRecord> {
    return (await this.#stored(id)).record;
  }

  async #find(id: string): Promise<RepositoryRecord | undefined> {
    return (await this.#findStored(id))?.record;
  }

  async #stored(id: string): Promise<StoredRecord> {
    const stored = await this.#findStored(id);
    if (stored === undefined) throw deleted(id);
    return stored;
  }

  async #findStored(id: string): Promise<StoredRecord | undefined> {
    const kv = await this.#dependencies.coordinator.get(keys.repo(id));
    if (kv === undefined) return undefined;
    const record = this.#decodeRecord(kv);
    return record.state === 'active' ? { record, revision: kv.modRevision } : undefined;
  }

  /** Takes over what front-ends that are gone have left. Done by itself every quarter of a minute. */
  takeOver(): Promise<void> {
    this.#events.notify();
    return this.#outbox.resume();
  }

  async #sweep(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#stopped;
    const schedule = new SweepSchedule();
    for (;;) {
      await clock.sleep(sweepEveryMs, signal);
      if (signal.aborted) return;
      try {
        await this.takeOver();
        await this.#cleanAtMost(() => this.#sweepIfDue(schedule));
      } catch (error) {
        logger.warn({ component: 'backend', err: error }, 'a sweep failed; it is tried again');
      }
    }
  }

  /** Never rejects. */
  async #sweepIfDue(schedule: SweepSchedule): Promise<void> {
    const stores = schedule.stays ? await this.#storesAsKnown() : undefined;
    if (!schedule.due(this.#registry.left, stores)) return;
    try {
      await this.#registry.sweep();
      await this.#registry.sweepPools();
      schedule.swept(this.#registry.left);
      this.#trim.finish(await findLagging(this.#dependencies));
    } catch (error) {
      schedule.swept(undefined);
      const { logger } = this.#dependencies;
      logger.warn({ component: 'backend', err: error }, 'a sweep failed; it is tried again');
    }
  }

  /** One at a time: while another runs, that one. */
  #clean(work: () => Promise<void>): Promise<void> {
    this.#cleaning ??= work().finally(() => {
      this.#cleaning = undefined;
    });
    return this.#cleaning;
  }

  /** Goes on in the background when it takes long; fails as the work does, if that ends in time. */
  async #cleanAtMost(work: () => Promise<void>): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const over = new AbortController();
    const cleaning = this.#clean(work);
    const late = clock.sleep(cleanPatienceMs, over.signal);
    await Promise.race([cleaning, late]).finally(() => over.abort('over'));
    cleaning.catch((error: unknown) => {
      logger.warn({ component: 'backend', err: error }, 'a sweep failed; it is tried again');
    });
  }

  #storesAsKnown(): Promise<string | undefined> {
    return storesAsKnown(this.#dependencies).catch(() => undefined);
  }

  #queueOf(id: string): CommitQueue {
    const queue = this.#queues.get(id) ?? new CommitQueue(id, this.#dependencies);
    if (this.#queues.size >= 1000) {
      for (const [other, candidate] of this.#queues) if (candidate.idle) this.#queues.delete(other);
    }
    this.#queues.set(id, queue);
    return queue;
  }

  #refuseUnlessServing(): void {
    switch (this.#state) {
      case 'serving':
        return;
      case 'starting':
        throw new QuorateError('unavailable', 'the server is starting; try again');
      case 'draining':
      case 'stopped':
        throw new QuorateError('unavailable', 'the server is shutting down; try again');
    }
  }

  async #track<T>(run: () => Promise<T>): Promise<T> {
    const running = run();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }
}

/** Why a push was not taken, or which of its refs were not; undefined: all were. */
function reasonOf({ unpack, refs, generation }: PushResult): string | undefined {
  if (unpack !== 'ok') return unpack;
  const refused = refs.flatMap((ref) => (ref.status === 'refused' ? [ref] : []));
  const [first, ...others] = refused.filter(({ reason }) => reason !== atomicFailure);
  if (generation === undefined) return first?.reason ?? 'no change';
  if (first === undefined) return undefined;
  const more = others.length === 0 ? '' : `, and ${others.length} more`;
  return `${first.ref}: ${first.reason}${more}`;
}
