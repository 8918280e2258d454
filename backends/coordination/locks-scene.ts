import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type {
  Coordinator,
  Lease,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import type { Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { parseLockEntry } from './lock-record.js';
import { createProcessLease } from './process-lease.js';
import { createLocks, type Locks, type RefWish } from './locks.js';
import { createManualClock, type ManualClock, silentLogger } from './test-environment.js';
import { until } from '../contract/testing/until.js';

/** Two front-ends on one coordinator, with time and lost answers in the test's hands. */
export interface LockScene {
  readonly coordinator: Coordinator;
  readonly clock: ManualClock;
  expireLeases(): Promise<void>;
  /** Lets front-ends take their leases for lost, while keys under them stay. What is returned ends these. */
  doubtLeases(): () => Promise<void>;
  /** Nothing is heard any more of who has a lease now; they live on. */
  silence(): void;
  /** While it is on, transactions that only delete are lost on their way, and so are revocations. */
  loseDeletions(on: boolean): void;
  locks(frontEnd?: number): Locks;
  ask(pushId: string, scope: readonly string[] | 'repository'): RefWish;
  /** Resolves when this push has a waiter's key. */
  queued(pushId: string): Promise<void>;
  /** `push held` or `push waiting` for every key in the lock space, in the order of their creation. */
  pushes(): Promise<readonly string[]>;
  /** Lets everything that is under way go on for a while. */
  settle(): Promise<void>;
  /**
   * The next transaction that puts a lock fails with `outcome-unknown`: after it was done, without, or with the doing
   * left to the function returned.
   */
  loseAnswer(how: 'done' | 'undone' | 'late'): () => Promise<void>;
  gauge(name: string, scope: string): number;
}

/** A coordinator under test. */
export interface LockStore {
  open(clock: ManualClock): Promise<OpenLockStore>;
}

export interface OpenLockStore {
  readonly coordinator: Coordinator;
  /** The time to live of the leases of front-ends. */
  readonly leaseMs: number;
  /** Ends every lease, as an outage of that time would. */
  expireLeases(): Promise<void>;
  close(): Promise<void>;
}

export type WithLocks = (
  options: { readonly maxWaiters?: number },
  run: (scene: LockScene) => Promise<void>,
) => Promise<void>;

export async function withLocksOn(
  store: LockStore,
  options: { readonly maxWaiters?: number },
  run: (scene: LockScene) => Promise<void>,
): Promise<void> {
  const clock = createManualClock();
  const opened = await store.open(clock);
  const { coordinator } = opened;
  const losing = new LosingCoordinator(coordinator);
  const gauges = new Map<string, () => number>();
  const meter: Meter = {
    count: () => undefined,
    observe: () => undefined,
    gauge: (name, labels, read) => gauges.set(`${name} ${labels['scope'] ?? ''}`, read),
  };
  const around = { coordinator: losing.coordinator, clock, logger: silentLogger };
  const leases = [0, 1].map(() => createProcessLease({ ...around, ttlMs: opened.leaseMs }));
  const frontEnds = leases.map((lease, i) =>
    createLocks({
      ...around,
      lease,
      random: { bytes: (length) => randomBytes(length) },
      meter: i === 0 ? meter : { ...meter, gauge: () => undefined },
      holder: `front-end-${i}`,
      ...options,
    }),
  );
  try {
    await run({
      ...observe(coordinator),
      clock,
      expireLeases: () => opened.expireLeases(),
      ...act(frontEnds, losing, gauges),
    });
  } finally {
    for (const locks of frontEnds) await locks.close();
    for (const lease of leases) await lease.close();
    await opened.close();
  }
}

export function heads(...names: readonly string[]): readonly string[] {
  return names.map((name) => `refs/heads/${name}`);
}

/** The coordinator has answered what was asked before, most likely: as long as that takes, however slow the machine. */
export async function answered(coordinator: Coordinator): Promise<void> {
  await coordinator.get('nothing');
}

function observe(
  coordinator: Coordinator,
): Pick<LockScene, 'coordinator' | 'pushes' | 'queued' | 'settle'> {
  const pushes = async (): Promise<readonly string[]> => {
    const { entries } = await coordinator.range(keys.allLocks, {
      rangeEnd: prefixEnd(keys.allLocks),
    });
    const locks = entries.map((entry) => parseLockEntry(entry)).filter((one) => one !== undefined);
    locks.sort((a, b) => a.createRevision - b.createRevision);
    return locks.map(({ record, state }) => `${record.pushId} ${state}`);
  };
  return {
    coordinator,
    pushes,
    queued: (pushId) =>
      until(`${pushId} waits`, async () => (await pushes()).includes(`${pushId} waiting`)),
    settle: async () => {
      for (let i = 0; i < 50; i += 1) {
        await setImmediate();
        await answered(coordinator);
      }
    },
  };
}

function act(
  frontEnds: readonly Locks[],
  losing: LosingCoordinator,
  gauges: ReadonlyMap<string, () => number>,
): Pick<
  LockScene,
  'locks' | 'ask' | 'doubtLeases' | 'silence' | 'loseDeletions' | 'loseAnswer' | 'gauge'
> {
  return {
    locks: (frontEnd = 0) => {
      const locks = frontEnds[frontEnd];
      assert.ok(locks);
      return locks;
    },
    ask: (pushId, scope) => ({
      repositoryId: 'r1',
      scope: scope === 'repository' ? scope : { refs: scope },
      pushId,
      timeoutMs: 60_000,
      signal: new AbortController().signal,
      read: [],
    }),
    doubtLeases: () => losing.doubtLeases(),
    silence: () => losing.silence(),
    loseDeletions: (on) => (losing.losesDeletions = on),
    loseAnswer: (how) => losing.loseNext(how),
    gauge: (name, scope) => gauges.get(`${name} ${scope}`)?.() ?? Number.NaN,
  };
}

/** What is left of a lease that was not renewed lately. */
const silence = { ttlMs: 5_000, leftMs: 3_000 };

/** A coordinator whose answers can be lost on the way. */
class LosingCoordinator {
  readonly coordinator: Coordinator;
  readonly #real: Coordinator;
  #next: 'done' | 'undone' | 'late' | undefined;
  #late: (() => Promise<void>) | undefined;
  #leases: { readonly real: Lease; readonly doubt: AbortController }[] = [];
  losesDeletions = false;
  /** Leases of processes of which nothing is heard. */
  readonly silent = new Set<string>();

  constructor(real: Coordinator) {
    this.#real = real;
    this.coordinator = {
      limits: real.limits,
      get: (key, options) => real.get(key, options),
      range: (key, options) => real.range(key, options),
      grantLease: (ttlMs) => this.#grantLease(ttlMs),
      leaseLeft: async (id) => (this.silent.has(id) ? silence : real.leaseLeft(id)),
      watch: (key, options) => real.watch(key, options),
      identity: () => real.identity(),
      ping: () => real.ping(),
      close: () => real.close(),
      transaction: (transaction) => this.#transaction(transaction),
    };
  }

  silence(): void {
    for (const { real } of this.#leases) this.silent.add(real.id);
  }

  loseNext(how: 'done' | 'undone' | 'late'): () => Promise<void> {
    this.#next = how;
    return async () => this.#late?.();
  }

  doubtLeases(): () => Promise<void> {
    const doubted = this.#leases.splice(0);
    for (const { doubt } of doubted) doubt.abort();
    return async () => {
      for (const { real } of doubted) await real.revoke();
    };
  }

  async #grantLease(ttlMs: number): Promise<Lease> {
    const real = await this.#real.grantLease(ttlMs);
    const doubt = new AbortController();
    this.#leases.push({ real, doubt });
    const lost = AbortSignal.any([real.lost, doubt.signal]);
    const revoke = async (): Promise<void> => {
      if (this.losesDeletions) throw new QuorateError('unavailable', 'the revocation was lost');
      await real.revoke();
    };
    return { id: real.id, ttlMs: real.ttlMs, lost, revoke };
  }

  async #transaction(transaction: Transaction): Promise<TransactionResult> {
    if (this.losesDeletions && transaction.success.every(({ type }) => type === 'delete')) {
      throw new QuorateError('outcome-unknown', 'the deletion was lost');
    }
    const how = this.#next;
    const takes = transaction.success.some(
      (operation) => operation.type === 'put' && operation.key.includes('/refs/'),
    );
    if (how === undefined || !takes) return this.#real.transaction(transaction);
    this.#next = undefined;
    if (how === 'done') await this.#real.transaction(transaction);
    if (how === 'late') {
      this.#late = async () => {
        await this.#real.transaction(transaction);
      };
    }
    throw new QuorateError('outcome-unknown', 'the answer was lost');
  }
}
