import { setMaxListeners } from 'node:events';
import type {
  Coordinator,
  CoordinatorIdentity,
  KeyValue,
  Lease,
  LeaseLeft,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchOptions,
} from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import {
  checkRange,
  checkRangeOptions,
  checkTransaction,
  coordinatorLimits,
} from '../../coordination/request-check.js';
import { type CoordinatorBackup, CoordinatorState } from './coordinator-state.js';
import type { Network } from './network.js';
import type { Scheduler } from './scheduler.js';
import type { SeededRandom } from './seeded-random.js';
import type { SimulatedProcess } from './simulated-process.js';
import { unlockedHappening } from './unlocked-pushes.js';

export const coordinatorPlace = 'coordinator';

/** After this long a client stops waiting for an answer. */
const answerMs = 800;
/** Reads are asked again, this often. */
const readTries = 4;
const retryMs = 30;
/** How often a lease is kept alive within its time to live. */
const keepAlivesPerTtl = 5;

/**
 * A cluster of coordinators as its clients see it: strictly serialisable, but its leader may be away, its answers may
 * be lost, its followers lag behind, its history is compacted, and it may be restored from a backup.
 */
export class SimulatedCoordinator {
  readonly state: CoordinatorState;
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly happened: (what: string) => void;
  readonly #random: SeededRandom;
  readonly #watchers = new Set<() => void>();
  /** States of the past that a stale member may answer from, newest last. */
  readonly #past: { readonly member: CoordinatorState; readonly revision: number }[] = [];
  #leaderless = false;
  readonly #held: (() => void)[] = [];
  /** How far watches lag, at most. */
  watchLagMs = 5;

  constructor(options: {
    readonly scheduler: Scheduler;
    readonly network: Network;
    readonly random: SeededRandom;
    /** Told of every revision, in order, as it happens. */
    readonly onBatch?: (batch: WatchBatch) => void;
    readonly happened?: (what: string) => void;
  }) {
    this.happened = options.happened ?? (() => undefined);
    this.scheduler = options.scheduler;
    this.network = options.network;
    this.#random = options.random;
    this.state = new CoordinatorState((batch) => {
      options.onBatch?.(batch);
      for (const wake of this.#watchers) wake();
    });
  }

  client(process: SimulatedProcess): Coordinator {
    return new SimulatedClient(this, process);
  }

  /** Nothing is decided from now on. What arrives waits for the next leader, or is lost with the old one. */
  loseLeader(forMs: number): void {
    this.#leaderless = true;
    this.scheduler.after(forMs, () => {
      if (!this.#leaderless) return;
      this.#leaderless = false;
      this.state.extendLeases(this.scheduler.nowMs);
      for (const request of this.#held.splice(0)) if (this.#random.chance(0.6)) request();
    });
  }

  restoreLeader(): void {
    this.#leaderless = false;
    for (const request of this.#held.splice(0)) request();
  }

  compact(): void {
    this.state.compact();
    for (const wake of this.#watchers) wake();
  }

  /** Remembers the present for stale reads. */
  recordPast(): void {
    const backup = this.state.backup();
    const member = new CoordinatorState(() => undefined);
    member.restore(backup);
    this.#past.push({ member, revision: backup.revision });
    if (this.#past.length > 5) this.#past.shift();
  }

  restore(backup: CoordinatorBackup): void {
    this.#past.length = 0;
    this.state.restore(backup);
    for (const wake of this.#watchers) wake();
  }

  stale(key: string, options: RangeOptions): RangeResult {
    if (this.#past.length === 0 || this.#random.chance(0.3)) return this.state.range(key, options);
    const { member, revision } = this.#random.pick(this.#past);
    return { ...member.range(key, options), revision };
  }

  /** Runs a request that has arrived, now or when there is a leader. */
  decide(run: () => void): void {
    if (this.#leaderless) this.#held.push(run);
    else {
      this.state.expire(this.scheduler.nowMs);
      run();
    }
  }

  /** Calls `wake` at every change, until the function returned is called. */
  onChange(wake: () => void): () => void {
    this.#watchers.add(wake);
    return () => this.#watchers.delete(wake);
  }

  lagMs(): number {
    return this.#random.between(0, this.watchLagMs);
  }
}

/** One process's connection. */
class SimulatedClient implements Coordinator {
  readonly limits = coordinatorLimits;
  readonly #server: SimulatedCoordinator;
  readonly #process: SimulatedProcess;
  readonly #closed = new AbortController();
  readonly #leases = new Set<SimulatedLease>();

  constructor(server: SimulatedCoordinator, process: SimulatedProcess) {
    this.#server = server;
    this.#process = process;
    // Every watch listens.
    setMaxListeners(0, this.#closed.signal);
  }

  async get(
    key: string,
    options: { linearizable?: boolean; signal?: AbortSignal } = {},
  ): Promise<KeyValue | undefined> {
    return (await this.range(key, options)).entries[0];
  }

  async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
    checkRangeOptions(key, options);
    this.#refuseClosed(options.signal);
    const { state } = this.#server;
    const read = (): RangeResult =>
      options.linearizable === false ? this.#server.stale(key, options) : state.range(key, options);
    return this.#askAgain(read);
  }

  async transaction(transaction: Transaction): Promise<TransactionResult> {
    checkTransaction(transaction);
    this.#refuseClosed();
    const answer = await this.#ask(() => {
      const result = this.#server.state.transaction(transaction);
      const happened = unlockedHappening(transaction, result.succeeded);
      if (happened !== undefined) this.#server.happened(happened);
      return result;
    });
    if (answer === undefined) {
      throw new QuorateError('outcome-unknown', 'the coordinator did not answer');
    }
    return answer;
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    if (ttlMs < 1_000) throw new QuorateError('invalid-argument', 'a lease lives a second or more');
    this.#refuseClosed();
    const sentMs = this.#process.clock.monotonicMs();
    const { scheduler } = this.#server;
    const id = await this.#askAgain(() => this.#server.state.grant(ttlMs, scheduler.nowMs));
    const lease = new SimulatedLease({
      id,
      ttlMs,
      confirmedMs: sentMs,
      process: this.#process,
      keepAlive: () => this.#ask(() => this.#server.state.keepAlive(id, scheduler.nowMs)),
      revoke: () => this.#askAgain(() => this.#server.state.endLease(id)),
    });
    this.#leases.add(lease);
    lease.lost.addEventListener('abort', () => this.#leases.delete(lease), { once: true });
    return lease;
  }

  leaseLeft(id: string): Promise<LeaseLeft | undefined> {
    this.#refuseClosed();
    const { scheduler, state } = this.#server;
    return this.#askAgain(() => state.leaseLeft(id, scheduler.nowMs));
  }

  watch(key: string, options: WatchOptions): AsyncIterable<WatchBatch> {
    checkRange(key, options.rangeEnd);
    const from = options.fromRevision ?? this.#server.state.revision + 1;
    return this.#follow(key, options, from);
  }

  identity(): Promise<CoordinatorIdentity> {
    this.#refuseClosed();
    const { state } = this.#server;
    return this.#askAgain(() => ({ clusterId: 'simulated', revision: state.revision }));
  }

  async ping(): Promise<void> {
    this.#refuseClosed();
    const answer = await this.#ask(() => true);
    if (answer === undefined) throw unavailable();
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    await Promise.all([...this.#leases].map((lease) => lease.revoke().catch(() => undefined)));
    this.#closed.abort();
  }

  async *#follow(
    key: string,
    { rangeEnd, signal }: WatchOptions,
    from: number,
  ): AsyncGenerator<WatchBatch> {
    const server = this.#server;
    let next = from;
    while (!signal.aborted && !this.#closed.signal.aborted) {
      const batches = server.state.since(next, key, rangeEnd);
      if (batches === 'compacted') {
        throw new QuorateError('failed-precondition', 'the history that was asked for is gone', {
          details: { compactedRevision: server.state.compacted + 1 },
        });
      }
      if (batches.length === 0) {
        // Nothing of ours up to here: so much may be compacted without our missing anything.
        const skip = (): void => {
          next = Math.max(next, server.state.revision + 1);
        };
        skip();
        await this.#change(signal, () => {
          const changes = server.state.since(next, key, rangeEnd);
          if (changes.length === 0) skip();
          return changes.length > 0;
        });
        continue;
      }
      await this.#process.effect(server.lagMs(), () => undefined);
      // A connection that is cut stands still; afterwards it goes on where it was, if that is still there.
      if (server.network.isCut(coordinatorPlace, this.#process.name)) {
        await this.#process.clock.sleep(100, signal);
        continue;
      }
      for (const batch of batches) {
        if (signal.aborted || this.#closed.signal.aborted) return;
        yield batch;
        next = batch.revision + 1;
      }
    }
  }

  /** Resolves when something changes that `concerns` says it should, or nobody listens any more. */
  #change(signal: AbortSignal, concerns: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        const listens = this.#process.alive && !signal.aborted && !this.#closed.signal.aborted;
        if (listens && !concerns()) return;
        stop();
        for (const forget of listening) forget();
        if (this.#process.alive) resolve();
      };
      const stop = this.#server.onChange(wake);
      const listening = [signal, this.#closed.signal].map((one) =>
        this.#process.onAbort(one, wake),
      );
    });
  }

  /** For what may happen twice. */
  async #askAgain<T>(run: () => T): Promise<T> {
    for (let tries = 1; ; tries++) {
      const answer = await this.#ask(() => ({ value: run() }));
      if (answer !== undefined) return answer.value;
      if (tries === readTries) throw unavailable();
      await this.#process.clock.sleep(retryMs);
    }
  }

  /** Undefined when no answer came: it may have happened, or may happen later. */
  #ask<T>(run: () => T): Promise<T | undefined> {
    const { network } = this.#server;
    const { name } = this.#process;
    return new Promise((resolve, reject) => {
      let waits = true;
      const giveUp = this.#process.after(answerMs, () => {
        waits = false;
        resolve(undefined);
      });
      const answer = (settle: () => void): void =>
        network.send(coordinatorPlace, name, () =>
          this.#process.arrive(() => {
            giveUp();
            settle();
          }),
        );
      this.#process.passes('message');
      network.send(name, coordinatorPlace, () =>
        this.#server.decide(() => {
          if (!waits) this.#server.happened('the coordinator decides what nobody waits for');
          try {
            const result = run();
            answer(() => resolve(result));
          } catch (error) {
            answer(() => reject(error));
          }
        }),
      );
      this.#process.passes('message');
    });
  }

  #refuseClosed(signal?: AbortSignal): void {
    if (this.#closed.signal.aborted) throw unavailable();
    if (signal?.aborted === true) throw new QuorateError('cancelled', 'the caller gave up');
  }
}

function unavailable(): QuorateError {
  return new QuorateError('unavailable', 'the coordinator cannot be reached');
}

interface LeaseOptions {
  readonly id: string;
  readonly ttlMs: number;
  /** On the process's monotonic clock: when the last request was sent that the server confirmed. */
  readonly confirmedMs: number;
  readonly process: SimulatedProcess;
  /** False when it has ended; undefined when nobody answered. */
  readonly keepAlive: () => Promise<boolean | undefined>;
  readonly revoke: () => Promise<void>;
}

class SimulatedLease implements Lease {
  readonly id: string;
  readonly ttlMs: number;
  readonly #options: LeaseOptions;
  readonly #lost = new AbortController();
  #confirmedMs: number;

  constructor(options: LeaseOptions) {
    this.id = options.id;
    this.ttlMs = options.ttlMs;
    this.#options = options;
    this.#confirmedMs = options.confirmedMs;
    void this.#keepAlive();
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async revoke(): Promise<void> {
    // Also when it was taken for lost: it may live on, with its keys.
    this.#lost.abort();
    await this.#options.revoke();
  }

  async #keepAlive(): Promise<void> {
    const { clock } = this.#options.process;
    while (!this.lost.aborted) {
      await clock.sleep(this.ttlMs / keepAlivesPerTtl, this.lost);
      if (this.lost.aborted) return;
      const sentMs = clock.monotonicMs();
      const lives = await this.#options.keepAlive();
      if (lives === true) this.#confirmedMs = sentMs;
      const overdue = clock.monotonicMs() - this.#confirmedMs >= this.ttlMs;
      if (lives === false || overdue) this.#lost.abort();
    }
  }
}
