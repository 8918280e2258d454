import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import {
  deadAfterTtls,
  leaseGone,
  type LeaseWorkerData,
  nowNs,
  type ToLeaseWorker,
} from './lease-messages.js';
import { MemberPool } from './member-pool.js';

/*
 * The thread that keeps leases alive, with etcd connections of its own, so that a main loop which computes for seconds
 * does not lose its locks. A main loop that hangs for good must lose them: its heartbeat is the gate.
 */

/** A lease is renewed when a fifth of its time has passed: an election of etcd's leader fits into the rest. */
const renewalsInTtl = 5;
const retryMs = 100;
/** Members answer by themselves, without a disk; another one is asked after this. */
const renewalDeadlineMs = 800;

/** Tells whether the main loop turns: its count has changed lately. */
class Heartbeat {
  readonly #count: Int32Array;
  #seen = -1;
  #seenAtMs = 0;

  constructor(shared: SharedArrayBuffer) {
    this.#count = new Int32Array(shared);
  }

  silentMs(): number {
    const count = Atomics.load(this.#count, 0);
    const nowMs = performance.now();
    if (count !== this.#seen) {
      this.#seen = count;
      this.#seenAtMs = nowMs;
    }
    return nowMs - this.#seenAtMs;
  }
}

class LeaseKeeperLoop {
  readonly #pool: MemberPool;
  readonly #heartbeat: Heartbeat;
  readonly #kept = new Map<string, AbortController>();

  constructor(data: LeaseWorkerData) {
    this.#pool = new MemberPool(data.settings);
    this.#heartbeat = new Heartbeat(data.heartbeat);
  }

  take(message: ToLeaseWorker): void {
    if (message.type === 'renew') {
      this.#pool.renew(message.tls);
      return;
    }
    if (message.type === 'drop') {
      this.#kept.get(message.id)?.abort();
      this.#kept.delete(message.id);
      return;
    }
    const dropped = new AbortController();
    this.#kept.set(message.id, dropped);
    void this.#keep(message, dropped.signal);
  }

  async #keep(
    { id, ttlMs, confirmed }: Extract<ToLeaseWorker, { type: 'keep' }>,
    dropped: AbortSignal,
  ): Promise<void> {
    const confirmedNs = new BigInt64Array(confirmed);
    let waitMs = ttlMs / renewalsInTtl;
    while (await slept(waitMs, dropped)) {
      waitMs = retryMs;
      if (this.#heartbeat.silentMs() > deadAfterTtls * ttlMs) continue;
      const sentNs = nowNs();
      const leftMs = await this.#renew(id);
      if (dropped.aborted) return;
      if (leftMs === undefined) continue;
      if (leftMs <= 0) {
        this.#kept.delete(id);
        Atomics.store(confirmedNs, 0, leaseGone);
        return;
      }
      Atomics.store(confirmedNs, 0, sentNs);
      waitMs = ttlMs / renewalsInTtl;
    }
  }

  /** The time to live that the lease has again, 0 when it has ended, undefined when no answer came. */
  async #renew(id: string): Promise<number | undefined> {
    try {
      const member = await this.#pool.connected();
      if (member === undefined) return undefined;
      try {
        const answer = await member.keepAlive(id, renewalDeadlineMs);
        this.#pool.observe(answer.header);
        return Number(answer.TTL) * 1_000;
      } catch {
        this.#pool.avoid(member);
        // It waits for long enough to give up a connection on which nothing comes.
        await this.#pool.repeat((next) => next.leaseTimeToLive(id), { patienceMs: 0 });
        return undefined;
      }
    } catch {
      return undefined;
    }
  }
}

async function slept(ms: number, stop: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, undefined, { signal: stop });
    return true;
  } catch {
    return false;
  }
}

const data: LeaseWorkerData = workerData;
const loop = new LeaseKeeperLoop(data);
parentPort?.on('message', (message: ToLeaseWorker) => loop.take(message));
