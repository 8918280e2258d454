import { setMaxListeners } from 'node:events';
import type { LockInfo } from '../contract/backend.js';
import type {
  Compare,
  Coordinator,
  KeyValue,
  Lease,
  Operation,
  ProcessLease,
} from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import {
  LockAcquisition,
  type LockServices,
  type LockWish,
  type TakenLocks,
} from './lock-acquisition.js';
import { LockEvents } from './lock-events.js';
import { LockJanitor, type OwnKey, stillOurs } from './lock-janitor.js';
import { type LockPlan, planGlobal, planRefs, planRepository } from './lock-plan.js';
import { describeLock, parseLockEntry } from './lock-record.js';
import { SilentHolders } from './silent-holders.js';

export type LockScope = 'refs' | 'repository' | 'global';

export interface LocksOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly random: Random;
  readonly meter: Meter;
  readonly logger: Logger;
  /** Names this front-end to people who wait for it. */
  readonly holder: string;
  /** Locks and waiters of a front-end that vanished go with it. */
  readonly lease: ProcessLease;
  /**
   * Waiters in one queue, at most. Default 1,000: each reads the whole queue about twice. Front-ends that enqueue in
   * the same instant may exceed it by one each.
   */
  readonly maxWaiters?: number;
}

interface Wish {
  readonly pushId: string;
  /** Waiting longer fails with `deadline-exceeded`. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface RefWish extends Wish {
  readonly repositoryId: string;
  /** Refs, or everything in the repository. Refs that need more than 100 compares become the latter. */
  readonly scope: { readonly refs: readonly string[] } | 'repository';
  /** Keys to read in the transaction that takes the locks: the push's basis. At most 20. */
  readonly read: readonly string[];
}

/** Locks that are held until `release` or `released`, or until `lost` aborts. */
export interface HeldLocks {
  readonly scope: LockScope;
  readonly locks: readonly OwnKey[];
  /** The entries of the keys that were to be read, as of the transaction that took the locks or later. */
  readonly reads: ReadonlyMap<string, KeyValue | undefined>;
  /** Every lock still carries our create revision: for the commit transaction. At most 50. */
  readonly compares: readonly Compare[];
  /** Releases the locks inside the commit transaction. One for each lock. */
  readonly deletes: readonly Operation[];
  /** The commit transaction deleted them. */
  released(): void;
  /**
   * Deletes them if they are still ours. Idempotent; never rejects. What cannot be deleted now is deleted in the
   * background, or falls with the lease.
   */
  release(): Promise<void>;
  /** Aborted when the lease is lost: the locks must be assumed gone. */
  readonly lost: AbortSignal;
}

/**
 * Ref, repository and global locks, fair and fenced, built from transactions under the lease of the process. Errors:
 * `deadline-exceeded` (says who holds what, since when), `cancelled`, `resource-exhausted` (queue full), `unavailable`.
 * After any of them nothing is held and no key is left.
 */
export interface Locks {
  /** One transaction takes every lock of the scope. */
  acquire(wish: RefWish): Promise<HeldLocks>;
  /** Waits until nothing is locked anywhere; later lock requests wait behind it. */
  acquireGlobal(wish: Wish): Promise<HeldLocks>;
  /**
   * That none of these refs is locked, nor anything in conflict with them, and that nobody waits for a lock there: for
   * the transaction of a push that takes none. At most 100.
   */
  nothingInTheWay(repositoryId: string, refs: readonly string[]): readonly Compare[];
  /** All locks and waiters of all front-ends. */
  list(): Promise<readonly LockInfo[]>;
  /** Gives up waiting and releases every lock; holders see it when they commit, and nothing is held. Idempotent. */
  close(): Promise<void>;
}

const scopes: readonly LockScope[] = ['refs', 'repository', 'global'];
const defaultMaxWaiters = 1_000;
/** What fits beside 100 puts of locks into etcd's 128 operations. */
const maxReads = 20;
/** A lease that is lost again and again means that the coordinator or this process does not keep up. */
const maxLeases = 5;

export function createLocks(options: LocksOptions): Locks {
  return new LeasedLocks(options);
}

class LeasedLocks implements Locks {
  readonly #options: LocksOptions;
  readonly #janitor: LockJanitor;
  readonly #services: LockServices;
  readonly #closed = new AbortController();
  readonly #acquiring = new Set<Promise<HeldLocks>>();
  /** Acquisitions that run or hold. */
  readonly #active = new Set<string>();
  readonly #held = new Map<string, HeldLocks>();
  readonly #queued = new Map<string, number>();
  readonly #waiting: Record<LockScope, number> = { refs: 0, repository: 0, global: 0 };
  #closing: Promise<void> | undefined;

  constructor(options: LocksOptions) {
    const { coordinator, clock, meter } = options;
    const logger = options.logger.child({ component: 'locks' });
    this.#options = options;
    // Every acquisition that runs listens.
    setMaxListeners(0, this.#closed.signal);
    this.#janitor = new LockJanitor(coordinator, clock, logger);
    this.#services = {
      coordinator,
      clock,
      events: new LockEvents(coordinator, clock, logger),
      janitor: this.#janitor,
      silent: new SilentHolders(coordinator, clock, logger),
      holder: options.holder,
      maxWaiters: options.maxWaiters ?? defaultMaxWaiters,
      isActive: (attempt) => this.#active.has(attempt),
      enterQueue: (plan) => this.#enterQueue(plan),
      leaveQueue: (plan) => this.#leaveQueue(plan),
    };
    for (const scope of scopes) {
      meter.gauge('locks_held', { scope }, () => this.#countHeld(scope));
      meter.gauge('locks_waiting', { scope }, () => this.#waiting[scope]);
    }
  }

  async acquire(wish: RefWish): Promise<HeldLocks> {
    const { repositoryId, scope, read } = wish;
    if (read.length > maxReads) {
      throw new QuorateError('invalid-argument', 'at most 20 keys are read with a lock');
    }
    if (scope === 'repository') return this.#acquire(planRepository(repositoryId), wish, read);
    if (scope.refs.length === 0) throw new QuorateError('invalid-argument', 'no ref to lock');
    return this.#acquire(planRefs(repositoryId, scope.refs), wish, read);
  }

  acquireGlobal(wish: Wish): Promise<HeldLocks> {
    return this.#acquire(planGlobal(), wish, []);
  }

  nothingInTheWay(repositoryId: string, refs: readonly string[]): readonly Compare[] {
    const { free, nobodyWaits } = planRefs(repositoryId, refs);
    if (nobodyWaits === undefined) {
      throw new QuorateError('internal', 'a lock on refs for which nobody can wait');
    }
    return [...free, ...nobodyWaits];
  }

  async list(): Promise<readonly LockInfo[]> {
    const { coordinator, clock } = this.#options;
    const { entries } = await coordinator.range(keys.allLocks, {
      rangeEnd: prefixEnd(keys.allLocks),
    });
    const nowMs = clock.nowMs();
    return entries.flatMap((entry) => {
      const lock = parseLockEntry(entry);
      return lock === undefined ? [] : describeLock(lock, nowMs);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed.abort();
    await Promise.allSettled(this.#acquiring);
    await Promise.all([...this.#held.values()].map((held) => held.release()));
  }

  async #acquire(plan: LockPlan, wish: Wish, read: readonly string[]): Promise<HeldLocks> {
    const { clock, meter } = this.#options;
    const startMs = clock.monotonicMs();
    const full: Omit<LockWish, 'attempt'> = {
      plan,
      pushId: wish.pushId,
      read,
      deadlineMs: startMs + wish.timeoutMs,
      signal: wish.signal,
      closed: this.#closed.signal,
    };
    const acquiring = this.#takeUnderSomeLease(full);
    this.#acquiring.add(acquiring);
    const held = await acquiring.finally(() => this.#acquiring.delete(acquiring));
    const seconds = (clock.monotonicMs() - startMs) / 1_000;
    meter.observe('lock_wait_seconds', seconds, { scope: plan.target.scope });
    return held;
  }

  /**
   * Each try has a name of its own: a lease that is lost here may live on in the coordinator, with keys that could not
   * be deleted. A waiter put again under the name of one of these would not be its own, nor ever be deleted.
   */
  async #takeUnderSomeLease(wish: Omit<LockWish, 'attempt'>): Promise<HeldLocks> {
    for (let tries = 0; tries < maxLeases; tries += 1) {
      const lease = await this.#options.lease.current();
      const attempt = Buffer.from(this.#options.random.bytes(12)).toString('hex');
      const named = { ...wish, attempt };
      this.#active.add(attempt);
      let held: HeldLocks | undefined;
      try {
        const taken = await new LockAcquisition(this.#services, named, lease).run();
        if (taken !== undefined) held = this.#hold(named, taken, lease);
      } finally {
        if (held === undefined) this.#active.delete(attempt);
      }
      if (held !== undefined) return held;
    }
    throw new QuorateError('unavailable', 'the lease for locks is lost again and again');
  }

  #hold(wish: LockWish, taken: TakenLocks, lease: Lease): HeldLocks {
    const { attempt, plan } = wish;
    const { createRevision, reads } = taken;
    const locks = plan.lockKeys.map((key) => ({ key, createRevision }));
    const end = (): boolean => {
      this.#active.delete(attempt);
      lease.lost.removeEventListener('abort', end);
      return this.#held.delete(attempt);
    };
    let releasing: Promise<void> | undefined;
    const held: HeldLocks = {
      scope: plan.target.scope,
      locks,
      reads,
      compares: locks.map(stillOurs),
      deletes: locks.map(({ key }) => ({ type: 'delete', key })),
      released: () => {
        end();
        releasing ??= Promise.resolve();
      },
      release: () => {
        end();
        releasing ??= this.#janitor.remove(locks, lease);
        return releasing;
      },
      lost: lease.lost,
    };
    this.#held.set(attempt, held);
    lease.lost.addEventListener('abort', end, { once: true });
    if (lease.lost.aborted) end();
    return held;
  }

  #enterQueue(plan: LockPlan): boolean {
    const queued = this.#queued.get(plan.waiters) ?? 0;
    if (queued >= this.#services.maxWaiters) return false;
    this.#queued.set(plan.waiters, queued + 1);
    this.#waiting[plan.target.scope] += 1;
    return true;
  }

  #leaveQueue(plan: LockPlan): void {
    const queued = (this.#queued.get(plan.waiters) ?? 1) - 1;
    if (queued === 0) this.#queued.delete(plan.waiters);
    else this.#queued.set(plan.waiters, queued);
    this.#waiting[plan.target.scope] -= 1;
  }

  #countHeld(scope: LockScope): number {
    let count = 0;
    for (const held of this.#held.values()) if (held.scope === scope) count += 1;
    return count;
  }
}
