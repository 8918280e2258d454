import type { Locks } from '../coordination/locks.js';
import type { Coordinator, ProcessLease, WatchEvent } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { AwayTimes } from './away-times.js';
import { CopiesBehind } from './copies-behind.js';
import { Leadership } from './leadership.js';
import { readDamages } from './damage.js';
import { FailedFills } from './failed-fills.js';
import { StalledFill } from './fill-patience.js';
import { NodeCount } from './node-count.js';
import { readNodeMarks } from './node-marks.js';
import { Ring } from './placement.js';
import { ReadableRecords } from './readable-records.js';
import { readRates } from './read-rates.js';
import type { ReconcileLimits, Step } from './reconcile.js';
import { copiesOf, decodeRepository, type RepositoryRecord, type Voter } from './records.js';
import { type Judged, judgeSet, takeStepAtHead, waitsForApplies } from './set-steps-at-head.js';
import { takeStep } from './set-steps.js';
import {
  hasMoved,
  looksWell,
  readGround,
  type SetGround,
  type ViewDependencies,
} from './set-view.js';
import type { ReplicaDirectory } from './voters.js';
import { type ReadReplicaSettings, WantedReaders } from './wanted-readers.js';
import { lacksMajority } from './without-majority.js';

export interface ControllerSettings extends ReconcileLimits {
  /** How often all sets are asked for their digests. */
  readonly compareEveryMs: number;
  /** Copies that are filled at the same time, in the whole cluster. */
  readonly maxFills: number;
  readonly readReplicas: ReadReplicaSettings;
}

export interface ControllerDependencies {
  readonly coordinator: Coordinator;
  readonly lease: ProcessLease;
  readonly replicas: ReplicaDirectory;
  readonly locks: Locks;
  readonly nodeId: string;
  readonly settings: ControllerSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
}

/** How often nodes, and the sets that are being changed, are looked at. */
const tickMs = 1_000;
/** How often every record is read, for sets that are not as they should be. */
const scanEveryMs = 30_000;
const retryMs = 3_000;
/** How often it is asked what is read most: as often as front-ends tell it. */
const ratesEveryMs = 5_000;
/** Sets that are worked on at the same time. Most steps are a transaction; what makes copies waits for a place. */
const maxWorking = 16;
const makesCopies: ReadonlySet<Step['type']> = new Set(['add-learner', 'add-reader', 'fill']);
/** Sets that wait for their turn, or for a place; others are found by a later scan. */
const maxWaiting = 10_000;
/** Sets that wait to be compared: as many as are done in a pause. */
const maxWaitingCompares = 50;
const comparePauseMs = 100;
/** Copies that could not be filled, of which people are told. */
const maxGivenUpTold = 20;
/** In the place of the revision of a record that gave a reason. */
const onlyToCompare = -1;

/**
 * Keeps the replica sets of the cluster as they should be: as many voters as wanted, on nodes that live, sound and
 * equal. One process does it at a time; each step is safe by itself, whoever takes it, as often as it is taken.
 */
export class SetController {
  readonly #dependencies: ControllerDependencies;
  readonly #leadership: Leadership;
  readonly #closing = new AbortController();
  readonly #away: AwayTimes;
  /** The same, with those whose disks hang: they serve nothing either. */
  readonly #idle: AwayTimes;
  readonly #nodeCount: NodeCount;
  /** Stores that members are on and that serve nothing. */
  #absent: ReadonlySet<string> = new Set();
  #damaged: ReadonlySet<string> = new Set();
  /** Sets of which too few voters were alive at the last scan. */
  #withoutMajority = 0;
  /** Repositories to look at: the revision of the record for which that is. */
  readonly #waiting = new Map<string, number>();
  readonly #failedFills: FailedFills;
  /** Tried and failed: monotonic time of the next try. */
  readonly #later = new Map<string, number>();
  readonly #working = new Map<string, Promise<void>>();
  /** Those of them that were not as they should be. */
  readonly #changing = new Set<string>();
  /** Those that make copies: each has one of `maxFills` places, until it is done. */
  readonly #copying = new Set<string>();
  /** Those that are to, first come first served. */
  readonly #queued = new Set<string>();
  #marks: ReadonlyMap<string, 'draining' | 'removed'> = new Map();
  #running: Promise<unknown> | undefined;
  #scannedMs = -Infinity;
  #comparedMs = -Infinity;
  #comparing: Promise<void> | undefined;
  #seenBefore = '';
  #ratesMs = -Infinity;
  readonly #wanted: WantedReaders;
  readonly #records: ReadableRecords;
  readonly #behind = new CopiesBehind();

  constructor(dependencies: ControllerDependencies) {
    this.#dependencies = dependencies;
    const { meter } = dependencies;
    this.#away = new AwayTimes(dependencies.clock);
    this.#idle = new AwayTimes(dependencies.clock);
    this.#failedFills = new FailedFills(dependencies.clock);
    this.#nodeCount = new NodeCount({ ...dependencies, ...dependencies.settings });
    this.#wanted = new WantedReaders(dependencies.settings.readReplicas, dependencies.clock);
    this.#leadership = new Leadership(dependencies);
    this.#records = new ReadableRecords(dependencies, 'controller');
    meter.gauge('queue_depth', { queue: 'repair' }, () => this.#repairs);
    meter.gauge('copies_behind', {}, () => (this.#leadership.leads ? this.#behind.count : 0));
    meter.gauge('repositories_without_majority', {}, () =>
      this.#leadership.leads ? this.#withoutMajority : 0,
    );
  }

  start(): void {
    this.#running ??= Promise.all([this.#run(), this.#follow()]);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    await this.#comparing;
    await Promise.all(this.#working.values());
    await this.#leadership.resign();
  }

  /** Sets that are being changed, or wait to be looked at for a reason. */
  get #repairs(): number {
    const waiting = [...this.#waiting].filter(([, revision]) => revision !== onlyToCompare);
    return new Set([...waiting.map(([id]) => id), ...this.#changing, ...this.#queued]).size;
  }

  #look(repositoryId: string, revision = 0): void {
    const before = this.#waiting.get(repositoryId);
    if (before === undefined && this.#waiting.size >= maxWaiting) return;
    this.#waiting.set(repositoryId, Math.max(revision, before ?? revision));
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        this.#away.show(this.#alive());
        this.#idle.show(this.#serving());
        if (await this.#leadership.lead()) await this.#tick();
        else this.#forget();
      } catch (error) {
        logger.warn({ component: 'controller', err: error }, 'the replica sets were not looked at');
      }
      await clock.sleep(tickMs, signal);
    }
  }

  /** What another process does now is not to be done here. */
  #forget(): void {
    this.#waiting.clear();
    this.#queued.clear();
    this.#later.clear();
    this.#failedFills.forget();
    this.#behind.forget();
    this.#scannedMs = -Infinity;
    this.#withoutMajority = 0;
  }

  /**
   * Looks at sets whose records somebody changes (`repo move`, for one), at whichever front-end. A hint: what is missed
   * is found by the next scan.
   */
  async #follow(): Promise<void> {
    const { coordinator, clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const batches = coordinator.watch(keys.repos, { rangeEnd: prefixEnd(keys.repos), signal });
        for await (const { events } of batches) {
          if (this.#leadership.leads) for (const event of events) this.#changed(event);
        }
      } catch (error) {
        logger.debug({ component: 'controller', err: error }, 'changes are found by scans only');
      }
      await clock.sleep(retryMs, signal);
    }
  }

  #changed(event: WatchEvent): void {
    // Who is to leave, and what is damaged, is known from the first scan on.
    if (event.type === 'delete' || this.#scannedMs === -Infinity) return;
    const record = decodeRepository(event.entry);
    // It is judged anew when it has a place.
    if (this.#queued.has(record.id)) return;
    if (record.state !== 'active' || this.#looksWell(record, new Set(this.#serving()))) return;
    this.#look(record.id, event.entry.modRevision);
    this.#begin();
  }

  async #tick(): Promise<void> {
    const { clock, coordinator, settings } = this.#dependencies;
    this.#marks = await readNodeMarks(coordinator);
    this.#damaged = await readDamages(coordinator);
    const nodes = this.#dependencies.replicas.nodes();
    const fit = nodes.filter(({ nodeId, draining }) => !draining && !this.#marks.has(nodeId));
    this.#nodeCount.show(fit.length);
    const nowMs = clock.monotonicMs();
    const serving = this.#serving();
    this.#away.show(this.#alive());
    this.#idle.show(serving);
    const changed = JSON.stringify([
      serving.toSorted(),
      [...this.#marks],
      this.#overdue(),
      [...this.#damaged],
    ]);
    for (const [id, dueMs] of this.#later) {
      if (dueMs > nowMs) continue;
      this.#later.delete(id);
      this.#look(id);
    }
    const differs = changed !== this.#seenBefore;
    if (differs || nowMs - this.#scannedMs >= scanEveryMs) {
      this.#seenBefore = changed;
      this.#scannedMs = nowMs;
      await this.#scan(new Set(serving), differs);
    }
    if (nowMs - this.#comparedMs >= settings.compareEveryMs && this.#comparing === undefined) {
      this.#comparedMs = nowMs;
      this.#comparing = this.#compare().finally(() => (this.#comparing = undefined));
    }
    if (settings.readReplicas.max > 0 && nowMs - this.#ratesMs >= ratesEveryMs) {
      this.#ratesMs = nowMs;
      this.#wanted.see(await readRates(coordinator));
      for (const id of this.#wanted.busy) this.#look(id);
    }
    this.#begin();
    await this.#leadership.tell({
      repairing: this.#repairs,
      givenUp: this.#failedFills.list(maxGivenUpTold),
      behind: this.#behind.byNode,
    });
  }

  /** Which stores have served nothing for so long that something follows from it. */
  #overdue(): readonly string[] {
    const { downAfterMs, repairAfterMs } = this.#dependencies.settings;
    return [...this.#absent].map((storeId) => {
      const awayMs = this.#idleMs(storeId);
      return `${storeId} ${awayMs >= downAfterMs} ${awayMs >= repairAfterMs}`;
    });
  }

  /** Has every set looked at, however many there are: what is repaired goes first. Never rejects. */
  async #compare(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    try {
      for await (const { id, state } of this.#records.all()) {
        while (this.#waiting.size >= maxWaitingCompares && !signal.aborted) {
          await clock.sleep(comparePauseMs, signal);
        }
        if (signal.aborted || !this.#leadership.leads) return;
        if (state !== 'active') continue;
        this.#look(id, onlyToCompare);
        this.#begin();
      }
    } catch (error) {
      logger.warn({ component: 'controller', err: error }, 'not all sets were compared');
    }
  }

  /**
   * Finds the sets that are not as they should be by their records alone. What waits for a place is looked at, too,
   * when something is another way than before: there may be steps that need none.
   */
  async #scan(serving: ReadonlySet<string>, differs: boolean): Promise<void> {
    const alive = new Set(this.#alive());
    const absent = new Set<string>();
    const gone = new Set(this.#behind.repositories);
    let withoutMajority = 0;
    for await (const record of this.#records.all()) {
      if (record.state !== 'active') continue;
      gone.delete(record.id);
      for (const { storeId } of copiesOf(record)) {
        if (!serving.has(storeId)) absent.add(storeId);
      }
      if (lacksMajority(record, alive)) withoutMajority++;
      if (!differs && this.#queued.has(record.id)) continue;
      if (!this.#looksWell(record, serving)) this.#look(record.id);
    }
    for (const id of gone) this.#behind.forget(id);
    this.#absent = absent;
    this.#withoutMajority = withoutMajority;
  }

  #alive(): readonly string[] {
    return this.#dependencies.replicas.nodes().map(({ storeId }) => storeId);
  }

  /** Those that live, and whose disks do not hang by their own word. */
  #serving(): readonly string[] {
    const { replicas } = this.#dependencies;
    return replicas.nodes().flatMap(({ storeId, hangs }) => (hangs === true ? [] : [storeId]));
  }

  #looksWell(record: RepositoryRecord, serving: ReadonlySet<string>): boolean {
    const isFit = ({ nodeId, storeId }: Voter): boolean =>
      serving.has(storeId) &&
      !this.#marks.has(nodeId) &&
      !this.#damaged.has(keys.damage(record.id, storeId));
    const { replicationFactor } = this.#dependencies.settings;
    return looksWell(record, this.#viewing, { replicationFactor, isFit });
  }

  /** As many as may be worked on at the same time; whenever one is done, the next. */
  #begin(): void {
    if (this.#closing.signal.aborted || !this.#leadership.leads) return;
    for (const id of this.#waiting.keys()) {
      if (this.#working.size >= maxWorking) return;
      if (this.#working.has(id)) continue;
      this.#waiting.delete(id);
      const work = this.#keep(id).finally(() => {
        this.#working.delete(id);
        this.#changing.delete(id);
        this.#copying.delete(id);
        this.#givePlaces();
        this.#begin();
      });
      this.#working.set(id, work);
    }
  }

  /** Whether a set may make copies now; if not, it is looked at again when there is a place. */
  #mayCopy(id: string): boolean {
    if (this.#copying.has(id)) return true;
    if (this.#copying.size < this.#dependencies.settings.maxFills) {
      this.#copying.add(id);
      this.#queued.delete(id);
      return true;
    }
    if (this.#queued.size < maxWaiting) this.#queued.add(id);
    return false;
  }

  #givePlaces(): void {
    let free = this.#dependencies.settings.maxFills - this.#copying.size;
    for (const id of this.#queued) {
      if (free-- <= 0) return;
      this.#queued.delete(id);
      this.#look(id);
    }
  }

  /** Takes steps until there is none left to take now. Never rejects. */
  async #keep(id: string): Promise<void> {
    const { logger } = this.#dependencies;
    try {
      if ((await this.#takeSteps(id)) === 'all') return;
    } catch (error) {
      const context = { component: 'controller', repo: id };
      logger.warn({ ...context, err: asQuorateError(error) }, 'a replica set is kept up later');
    }
    if (this.#later.size < maxWaiting) {
      this.#later.set(id, this.#dependencies.clock.monotonicMs() + retryMs);
    }
  }

  /** What cannot be filled now keeps no other step from being taken. Returns whether that was to be tried again. */
  async #takeSteps(id: string): Promise<'all' | 'again'> {
    const { coordinator, logger, settings } = this.#dependencies;
    const { signal } = this.#closing;
    const context = { component: 'controller', repo: id };
    const unfilled = new Set(this.#failedFills.paused(id));
    const filled = new Set<string>();
    const viewing: ViewDependencies = {
      ...this.#viewing,
      filled: (storeId) => filled.has(storeId),
      unfilledMs: (storeId) =>
        unfilled.has(storeId) ? this.#failedFills.forMs(id, storeId) : undefined,
    };
    const quietMs = (repositoryId: string, storeId: string): number =>
      this.#failedFills.quietMs(repositoryId, storeId);
    const done = (): 'all' | 'again' => (unfilled.size === 0 ? 'all' : 'again');
    const stepping = { ...this.#dependencies, ring: () => this.#ring(), quietMs };
    const judge = (ground: SetGround): Promise<Judged> =>
      judgeSet({ viewing, stepping, limits: settings }, ground);
    while (!signal.aborted && this.#leadership.leads) {
      const ground = await readGround(coordinator, id);
      if (ground === undefined) {
        this.#behind.forget(id);
        this.#wanted.forget(id);
        this.#failedFills.forget(id);
        return 'all';
      }
      // Our own changes, too, are seen as somebody's.
      if ((this.#waiting.get(id) ?? Infinity) <= ground.configRevision) this.#waiting.delete(id);
      const judged = await judge(ground);
      const { step } = judged;
      this.#behind.see(id, judged.view);
      if (waitsForApplies(judged, settings)) {
        this.#changing.add(id);
        const taken = await takeStepAtHead(judged.stepping, ground, judge, signal);
        if (taken === undefined) return 'again';
        this.#tell(id, taken, true);
        continue;
      }
      if (step === undefined) {
        if (unfilled.size === 0) this.#failedFills.forget(id);
        return done();
      }
      this.#changing.add(id);
      if (makesCopies.has(step.type) && !this.#mayCopy(id)) return done();
      let taken: boolean;
      try {
        taken = await takeStep(judged.stepping, ground, step, signal);
      } catch (error) {
        if (step.type !== 'fill' || signal.aborted) throw error;
        const store = step.storeId;
        logger.warn({ ...context, store, err: asQuorateError(error) }, 'a copy is filled later');
        if (error instanceof StalledFill) this.#failedFills.givenUp(id, store, error.message);
        else this.#failedFills.failed(id, store);
        unfilled.add(store);
        continue;
      }
      // What else is tried after a fill, and fails, is tried again after another.
      filled.clear();
      if (step.type === 'fill') {
        this.#failedFills.filled(id, step.storeId);
        filled.add(step.storeId);
      }
      // In many clusters every node has a copy, and it is asked for again and again.
      if (!taken && step.type === 'add-reader') return done();
      this.#tell(id, step, taken);
      // Nobody to take it with: the next change among the nodes brings it up again. (Or a push came in between.)
      if (!taken && step.type === 'add-learner' && !(await hasMoved(coordinator, ground))) {
        return done();
      }
    }
    return 'all';
  }

  #tell(repositoryId: string, step: Step, taken: boolean): void {
    const { logger, meter } = this.#dependencies;
    const { type, ...about } = step;
    meter.count('replica_set_steps', { step: type });
    const context = { component: 'controller', repo: repositoryId, step: type, ...about };
    logger.info({ ...context, taken }, 'a step for a replica set');
  }

  #ring(): Ring {
    return new Ring(
      this.#dependencies.replicas.nodes().map((node) => ({
        ...node,
        // A copy that is put where the disk hangs waits for it.
        draining: node.draining || this.#marks.has(node.nodeId) || node.hangs === true,
      })),
    );
  }

  /** What is known of nodes and stores, beside what they say themselves. */
  get #viewing(): ViewDependencies {
    const { coordinator, replicas, clock, settings } = this.#dependencies;
    return {
      coordinator,
      replicas,
      clock,
      awayMs: (storeId) => this.#idleMs(storeId),
      leaving: (nodeId) => this.#marks.has(nodeId),
      filled: () => false,
      unfilledMs: () => undefined,
      maxLog: settings.maxLog,
      repairAfterMs: settings.repairAfterMs,
      wantedReaders: (record) => this.#wanted.of(record),
    };
  }

  /** For how long a store has been away, as far as this process saw; 0 while it is alive. */
  awayMs(storeId: string): number {
    return this.#alive().includes(storeId) ? 0 : this.#away.of(storeId);
  }
  /** The same, also of one whose disk hangs. */
  #idleMs(storeId: string): number {
    return this.#serving().includes(storeId) ? 0 : this.#idle.of(storeId);
  }
}
