import { setMaxListeners } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Lease } from '../../contract/coordinator.js';
import type { Logger, Random } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import { EtcdLeaseInvalidError } from 'etcd3/lib/errors.js';
import { isLeaseExisting } from './etcd-errors.js';
import { heartbeatMs, type LeaseWorkerData, nowNs, type ToLeaseWorker } from './lease-messages.js';
import type { EtcdSettings } from './etcd-settings.js';
import type { MemberPool } from './member-pool.js';

const nsInMs = 1_000_000;
/** A process that stops does not wait long for an etcd that is away: the leases end by themselves soon. */
const closingPatienceMs = 1_500;

export interface LeaseKeeperParts {
  readonly settings: EtcdSettings;
  readonly pool: MemberPool;
  readonly random: Random;
  readonly logger: Logger;
}

/** Grants leases, has a thread keep them alive, and tells their holders when they must be assumed gone. */
export class LeaseKeeper {
  readonly #parts: LeaseKeeperParts;
  readonly #leases = new Map<string, EtcdLease>();
  readonly #heartbeat = new SharedArrayBuffer(4);
  #beating: NodeJS.Timeout | undefined;
  #worker: Worker | undefined;
  /** Newer than the settings'. */
  #tls: EtcdSettings['tls'];
  #closed = false;

  constructor(parts: LeaseKeeperParts) {
    this.#parts = parts;
  }

  async grant(ttlMs: number): Promise<Lease> {
    const { pool } = this.#parts;
    const id = this.#chooseId();
    let sentNs = nowNs();
    let grantedMs = Math.ceil(ttlMs / 1_000) * 1_000;
    await pool.repeat(async (member) => {
      sentNs = nowNs();
      try {
        const answer = await member.grantLease(id, grantedMs / 1_000);
        // At least one and a half election timeouts.
        grantedMs = Number(answer.TTL) * 1_000;
        return answer;
      } catch (error) {
        if (!isLeaseExisting(error)) throw error;
        const answer = await member.leaseTimeToLive(id);
        grantedMs = Number(answer.grantedTTL) * 1_000;
        return answer;
      }
    });
    if (this.#closed) throw new QuorateError('unavailable', 'the coordinator is closed');
    const lease = new EtcdLease({
      id,
      ttlMs: grantedMs,
      confirmedNs: sentNs,
      onEnd: () => this.#drop(id),
      revoke: () => this.#revoke(id),
    });
    this.#leases.set(id, lease);
    this.#tell({ type: 'keep', id, ttlMs: grantedMs, confirmed: lease.confirmed });
    return lease;
  }

  /** As `MemberPool.renew`, for the thread's connections. */
  renew(tls: EtcdSettings['tls']): void {
    this.#tls = tls;
    this.#tell({ type: 'renew', tls });
  }

  /** Revokes every lease as far as etcd answers soon, and ends the thread. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#leases.values()].map((lease) => lease.revoke()));
    clearInterval(this.#beating);
    await this.#worker?.terminate();
  }

  /** 63 random bits, so that a grant can be repeated: whoever finds the id taken has been granted it. */
  #chooseId(): string {
    const bytes = Buffer.from(this.#parts.random.bytes(8));
    return String((bytes.readBigUInt64BE() & (2n ** 63n - 1n)) | 1n);
  }

  #drop(id: string): void {
    if (this.#leases.delete(id)) this.#tell({ type: 'drop', id });
  }

  async #revoke(id: string): Promise<void> {
    try {
      await this.#parts.pool.repeat(
        (member) => member.revokeLease(id),
        this.#closed ? { patienceMs: closingPatienceMs } : {},
      );
    } catch (error) {
      if (error instanceof QuorateError && error.cause instanceof EtcdLeaseInvalidError) return;
      if (!this.#closed) throw error;
      this.#parts.logger.warn({ err: error }, 'a lease is left to expire');
    }
  }

  #tell(message: ToLeaseWorker): void {
    if (message.type === 'keep') this.#worker ??= this.#startWorker();
    this.#worker?.postMessage(message);
  }

  #startWorker(): Worker {
    const settings = {
      ...this.#parts.settings,
      ...(this.#tls === undefined ? {} : { tls: this.#tls }),
    };
    const data: LeaseWorkerData = { settings, heartbeat: this.#heartbeat };
    const worker = new Worker(new URL('lease-worker.js', import.meta.url), { workerData: data });
    worker.unref();
    worker.on('error', (error) => {
      this.#parts.logger.error({ err: error }, 'the thread that keeps leases alive failed');
      this.#worker = undefined;
      for (const lease of this.#leases.values()) lease.lose();
    });
    const count = new Int32Array(this.#heartbeat);
    clearInterval(this.#beating);
    this.#beating = setInterval(() => {
      Atomics.add(count, 0, 1);
      for (const lease of this.#leases.values()) lease.check();
    }, heartbeatMs).unref();
    return worker;
  }
}

interface EtcdLeaseParts {
  readonly id: string;
  readonly ttlMs: number;
  readonly confirmedNs: bigint;
  readonly onEnd: () => void;
  readonly revoke: () => Promise<void>;
}

class EtcdLease implements Lease {
  readonly id: string;
  readonly ttlMs: number;
  readonly confirmed = new SharedArrayBuffer(8);
  readonly #parts: EtcdLeaseParts;
  readonly #confirmedNs: BigInt64Array;
  readonly #lost = new AbortController();
  #revoking: Promise<void> | undefined;

  constructor(parts: EtcdLeaseParts) {
    this.id = parts.id;
    this.ttlMs = parts.ttlMs;
    this.#parts = parts;
    this.#confirmedNs = new BigInt64Array(this.confirmed);
    Atomics.store(this.#confirmedNs, 0, parts.confirmedNs);
    setMaxListeners(0, this.#lost.signal);
  }

  get lost(): AbortSignal {
    // Also right after a pause of the process, before any timer ran.
    this.check();
    return this.#lost.signal;
  }

  revoke(): Promise<void> {
    this.lose();
    this.#revoking ??= this.#parts.revoke().catch((error: unknown) => {
      this.#revoking = undefined;
      throw error;
    });
    return this.#revoking;
  }

  lose(): void {
    if (this.#lost.signal.aborted) return;
    this.#lost.abort();
    this.#parts.onEnd();
  }

  /** The thread may have confirmed the lease while this one computed: what it wrote counts, not when it is read. */
  check(): void {
    if (this.#leftMs() <= 0) this.lose();
  }

  #leftMs(): number {
    const sinceNs = nowNs() - Atomics.load(this.#confirmedNs, 0);
    return this.ttlMs - Number(sinceNs) / nsInMs;
  }
}
