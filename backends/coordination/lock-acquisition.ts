import type {
  Coordinator,
  KeyValue,
  Lease,
  Operation,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { asQuorateError, nothingChanged, QuorateError, retrySoon } from '../contract/errors.js';
import { prefixEnd } from '../contract/keys.js';
import type { LockEvents, LockSubscription } from './lock-events.js';
import { type LockJanitor, type OwnKey, stillOurs } from './lock-janitor.js';
import { blockers, type LockPlan } from './lock-plan.js';
import type { SilentHolders } from './silent-holders.js';
import { type LockEntry, parseLockEntry, parseLockRecord, writeLockRecord } from './lock-record.js';

/** A transaction that lost a race is tried again after this long: the winner's has happened by then. */
const raceMs = 10;

export interface LockServices {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly events: LockEvents;
  readonly janitor: LockJanitor;
  readonly silent: SilentHolders;
  readonly holder: string;
  readonly maxWaiters: number;
  /** Whether this acquisition runs or holds its locks: its keys are there rightly. */
  readonly isActive: (attempt: string) => boolean;
  /** Counts this process's waiters in a queue; false when there are too many. */
  readonly enterQueue: (plan: LockPlan) => boolean;
  readonly leaveQueue: (plan: LockPlan) => void;
}

/** One wish for a lock. */
export interface LockWish {
  readonly plan: LockPlan;
  /** Unique to one try under one lease; also the name of the waiter's key. */
  readonly attempt: string;
  readonly pushId: string;
  /** Keys to read in the transaction that takes the lock. */
  readonly read: readonly string[];
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  /** Aborts when this process stops taking locks. */
  readonly closed: AbortSignal;
}

export interface TakenLocks {
  /** Create revision of every lock key. */
  readonly createRevision: number;
  readonly reads: ReadonlyMap<string, KeyValue | undefined>;
}

interface Queue {
  readonly entries: readonly LockEntry[];
  readonly revision: number;
}

/** Takes one lock under one lease: the fast path, else the queue. */
export class LockAcquisition {
  readonly #services: LockServices;
  readonly #wish: LockWish;
  readonly #lease: Lease;
  readonly #stop = new AbortController();
  /** A transaction that takes the locks from the queue went without an answer. */
  #uncertain = false;

  constructor(services: LockServices, wish: LockWish, lease: Lease) {
    this.#services = services;
    this.#wish = wish;
    this.#lease = lease;
  }

  /** Undefined when the lease or the place in the queue was lost first: nothing is held, and one may try again. */
  async run(): Promise<TakenLocks | undefined> {
    try {
      this.#checkWanted();
      const taken = (await this.#takeAtOnce()) ?? (await this.#takeUnlessStopped());
      if (taken !== undefined && this.#wish.signal.aborted) {
        await this.#services.janitor.remove(this.#lockKeys(taken.createRevision), this.#lease);
        this.#checkWanted();
      }
      return taken;
    } catch (error) {
      const { code } = asQuorateError(error);
      if (code === 'outcome-unknown') throw nothingChanged(error);
      if (code !== 'failed-precondition') throw error;
      // The store does not know the lease. Its holder may not have noticed yet; the next try needs another one.
      await this.#lease.revoke().catch(() => undefined);
      return undefined;
    }
  }

  /** Only who waits has to be woken. */
  async #takeUnlessStopped(): Promise<TakenLocks | undefined> {
    // With a reason, since without one it makes an error with its stack each time.
    const stop = (): void => this.#stop.abort('over');
    const signals = [this.#wish.signal, this.#wish.closed, this.#lease.lost];
    for (const signal of signals) {
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
    }
    try {
      return await this.#takeInTurn();
    } finally {
      for (const signal of signals) signal.removeEventListener('abort', stop);
      stop();
    }
  }

  async #takeAtOnce(): Promise<TakenLocks | undefined> {
    const { plan, attempt } = this.#wish;
    if (plan.nobodyWaits === undefined) return undefined;
    try {
      return await this.#take({
        compares: [...plan.free, ...plan.nobodyWaits],
        success: this.#puts(),
        failure: [],
      });
    } catch (error) {
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      let taken: TakenLocks | undefined;
      try {
        taken = await this.#findTaken();
      } finally {
        // Not seen is not undone: the transaction may still be on its way, or nobody could say.
        if (taken === undefined) this.#haunt(plan.lockKeys, attempt);
      }
      return taken;
    }
  }

  async #takeInTurn(): Promise<TakenLocks | undefined> {
    const { plan } = this.#wish;
    if (!this.#services.enterQueue(plan)) throw tooManyWaiters();
    const subscription = this.#services.events.subscribe(plan.ranges);
    try {
      await this.#checkQueueLength();
      const waiter = await this.#enqueue();
      return await this.#waitTurn(waiter, subscription);
    } finally {
      subscription.end();
      this.#services.leaveQueue(plan);
    }
  }

  async #waitTurn(waiter: OwnKey, subscription: LockSubscription): Promise<TakenLocks | undefined> {
    const { plan, attempt } = this.#wish;
    const { janitor } = this.#services;
    try {
      for (;;) {
        subscription.begin();
        const queue = await this.#readQueue();
        const own = queue.entries.find(({ key }) => key === waiter.key);
        if (own?.createRevision !== waiter.createRevision) return await this.#findTaken();
        const inTheWay = blockers(plan, waiter.createRevision, queue.entries);
        if (inTheWay.some(({ record }) => record.attempt === attempt)) {
          // The fast path's answer was lost, and it has happened after all.
          const taken = await this.#findTaken();
          await janitor.remove([waiter], this.#lease);
          return taken;
        }
        if (inTheWay.length === 0) {
          const taken = await this.#takeAsWaiter(waiter);
          if (taken !== undefined) return taken;
        }
        this.#checkWanted(inTheWay);
        await this.#wait(subscription, inTheWay, queue.revision);
      }
    } catch (error) {
      await janitor.remove([waiter], this.#lease);
      await this.#undoUncertain();
      throw error;
    }
  }

  async #takeAsWaiter(waiter: OwnKey): Promise<TakenLocks | undefined> {
    try {
      const taken = await this.#take({
        compares: [...this.#wish.plan.free, stillOurs(waiter)],
        success: [...this.#puts(), { type: 'delete', key: waiter.key }],
        failure: [],
      });
      if (taken === undefined) await this.#services.clock.sleep(raceMs, this.#stop.signal);
      return taken;
    } catch (error) {
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      // The next reading tells: the waiter's key is there, and it has not happened yet, or it is gone, and it has. It
      // may be tried again meanwhile: each try asks for the waiter's key and deletes it, so that one can happen at most.
      this.#uncertain = true;
      return undefined;
    }
  }

  /** Before giving up: if a transaction may have taken the locks unnoticed, releases them, now or when they show up. */
  async #undoUncertain(): Promise<void> {
    if (!this.#uncertain) return;
    const { coordinator, janitor } = this.#services;
    const found = await findOwn(coordinator, this.#wish).catch(() => []);
    if (found.length > 0) await janitor.remove(found, this.#lease);
    else this.#haunt(this.#wish.plan.lockKeys, this.#wish.attempt);
  }

  async #wait(
    subscription: LockSubscription,
    inTheWay: readonly LockEntry[],
    revision: number,
  ): Promise<void> {
    if (inTheWay.length === 0) return;
    const { clock } = this.#services;
    const round = new AbortController();
    const stop = (): void => round.abort();
    this.#stop.signal.addEventListener('abort', stop, { once: true });
    if (this.#stop.signal.aborted) stop();
    try {
      const leftMs = Math.max(0, this.#wish.deadlineMs - clock.monotonicMs());
      void clock.sleep(leftMs, round.signal).then(stop);
      void this.#services.silent.watch(inTheWay, this.#lease.id, round.signal);
      await subscription.deleted(
        inTheWay.map(({ key }) => key),
        revision,
        round.signal,
      );
    } finally {
      this.#stop.signal.removeEventListener('abort', stop);
      stop();
    }
    this.#checkWanted();
  }

  /** Throws when this wish has ended; `failed-precondition` when only its lease has. */
  #checkWanted(inTheWay?: readonly LockEntry[]): void {
    const { signal, closed, deadlineMs } = this.#wish;
    if (signal.aborted)
      throw new QuorateError('cancelled', 'the caller stopped waiting for a lock');
    if (closed.aborted) throw new QuorateError('unavailable', 'the server is stopping');
    if (this.#lease.lost.aborted)
      throw new QuorateError('failed-precondition', 'the lease is gone');
    const { clock } = this.#services;
    if (inTheWay !== undefined && clock.monotonicMs() >= deadlineMs) {
      throw tooLate(inTheWay, clock.nowMs());
    }
  }

  async #checkQueueLength(): Promise<void> {
    const { coordinator, maxWaiters } = this.#services;
    const { waiters } = this.#wish.plan;
    const rangeEnd = prefixEnd(waiters);
    const { entries } = await coordinator.range(waiters, {
      rangeEnd,
      limit: maxWaiters,
      keysOnly: true,
    });
    if (entries.length >= maxWaiters) throw tooManyWaiters();
  }

  async #enqueue(): Promise<OwnKey> {
    const { coordinator } = this.#services;
    const { plan, attempt } = this.#wish;
    const key = plan.waiterKey(attempt);
    const refs = plan.target.scope === 'refs' ? { refs: plan.target.refs } : {};
    try {
      const { revision } = await coordinator.transaction({
        compares: [],
        success: [{ type: 'put', key, value: this.#record(refs), lease: this.#lease.id }],
        failure: [],
      });
      return { key, createRevision: revision };
    } catch (error) {
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      let entry: KeyValue | undefined;
      try {
        entry = await coordinator.get(key);
      } finally {
        if (entry === undefined) this.#haunt([key], attempt);
      }
      if (entry !== undefined) return { key, createRevision: entry.createRevision };
      throw nothingChanged(error);
    }
  }

  async #readQueue(): Promise<Queue> {
    const { results, revision } = await this.#services.coordinator.transaction({
      compares: [],
      success: this.#wish.plan.ranges.map((range) => ({ type: 'get', ...range })),
      failure: [],
    });
    const entries = results.flatMap((result) =>
      result.type === 'get' ? result.entries.map(parseLockEntry) : [],
    );
    return { entries: entries.filter((entry) => entry !== undefined), revision };
  }

  async #take(transaction: Transaction): Promise<TakenLocks | undefined> {
    const reads: Operation[] = this.#wish.read.map((key) => ({ type: 'get', key }));
    const result = await this.#services.coordinator.transaction({
      ...transaction,
      success: [...transaction.success, ...reads],
    });
    if (!result.succeeded) return undefined;
    return { createRevision: result.revision, reads: this.#collect(result) };
  }

  /** The locks, if a transaction of this wish took them; read together with what is to be read. */
  async #findTaken(): Promise<TakenLocks | undefined> {
    const { coordinator } = this.#services;
    const own = await findOwn(coordinator, this.#wish);
    const [first] = own;
    if (first === undefined) return undefined;
    const result = await coordinator.transaction({
      compares: own.map(stillOurs),
      success: this.#wish.read.map((key) => ({ type: 'get', key })),
      failure: [],
    });
    if (!result.succeeded) return undefined;
    return { createRevision: first.createRevision, reads: this.#collect(result) };
  }

  #collect(result: TransactionResult): ReadonlyMap<string, KeyValue | undefined> {
    const answers = result.results.filter((one) => one.type === 'get');
    return new Map(this.#wish.read.map((key, i) => [key, answers[i]?.entries[0]]));
  }

  #puts(): readonly Operation[] {
    const { plan } = this.#wish;
    const lockedRefs = plan.lockedRefs === undefined ? {} : { lockedRefs: plan.lockedRefs };
    const value = this.#record(lockedRefs);
    return plan.lockKeys.map((key) => ({ type: 'put', key, value, lease: this.#lease.id }));
  }

  #record(more: { readonly refs?: readonly string[]; readonly lockedRefs?: number }): Uint8Array {
    return writeLockRecord({
      holder: this.#services.holder,
      pushId: this.#wish.pushId,
      sinceMs: this.#services.clock.nowMs(),
      attempt: this.#wish.attempt,
      ...more,
    });
  }

  #lockKeys(createRevision: number): readonly OwnKey[] {
    return this.#wish.plan.lockKeys.map((key) => ({ key, createRevision }));
  }

  #haunt(keys: readonly string[], attempt: string): void {
    const { janitor, isActive } = this.#services;
    janitor.haunt(keys, this.#lease, (found) => found !== attempt || isActive(attempt));
  }
}

/** The lock keys of a wish that carry its mark: all of them, or none, since one transaction puts them. */
async function findOwn(coordinator: Coordinator, wish: LockWish): Promise<readonly KeyValue[]> {
  const found: KeyValue[] = [];
  for (const key of wish.plan.lockKeys) {
    const entry = await coordinator.get(key);
    if (entry === undefined || parseLockRecord(entry.value).attempt !== wish.attempt) return [];
    found.push(entry);
  }
  return found;
}

/** What was taken without an answer is being released by now: for the caller nothing has happened. */
function tooManyWaiters(): QuorateError {
  return new QuorateError('resource-exhausted', 'too many pushes wait for this repository', {
    details: { ...retrySoon },
  });
}

/** Names what holds the lock; else the first that waits before us. */
function tooLate(inTheWay: readonly LockEntry[], nowMs: number): QuorateError {
  const entry = inTheWay.find(({ state }) => state === 'held') ?? inTheWay[0];
  if (entry === undefined) {
    return new QuorateError('deadline-exceeded', 'gave up waiting: others were always faster');
  }
  const { target, record, state } = entry;
  const ageMs = Math.max(0, nowMs - record.sinceMs);
  const verb = state === 'held' ? 'held' : 'waited for';
  const age = String(Math.round(ageMs / 1_000));
  return new QuorateError(
    'deadline-exceeded',
    `gave up waiting for the lock on ${describeTarget(entry)}, ${verb} by ${record.holder} for ${age} s`,
    {
      details: {
        scope: target.scope,
        ...(target.scope === 'refs' ? { ref: target.refs[0] } : {}),
        state,
        holder: record.holder,
        pushId: record.pushId,
        ageMs,
      },
    },
  );
}

function describeTarget({ target }: LockEntry): string {
  switch (target.scope) {
    case 'refs':
      return target.refs[0] ?? 'a ref';
    case 'repository':
      return 'the repository';
    case 'global':
      return 'all repositories';
  }
}
