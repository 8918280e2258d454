import { setMaxListeners } from 'node:events';
import type { Coordinator, Lease, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';

/**
 * How long what hangs on the lease of a process outlives it. So long the replica sets of a cluster are kept by nobody
 * when the one who did it is killed. Shorter, and every process would take its lease for lost in an election of etcd's
 * leader that is not won at once (2 to 4.5 s), or when its machine is busy for a moment.
 */
export const processLeaseMs = 5_000;

/** Whoever leaves has others waiting for him to stop. */
const patienceMs = 2_000;
const firstRetryMs = 500;
const lastRetryMs = 5_000;

export interface ProcessLeaseOptions {
  /** Refuses nothing: what is left has to go also while commits are frozen. */
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default `processLeaseMs`. */
  readonly ttlMs?: number;
}

/** For whoever makes it: to be closed when all who were given it are. */
export interface OwnedProcessLease extends ProcessLease {
  /** Revokes it, and with it whatever is left. Idempotent; never rejects. Nothing is granted any more. */
  close(): Promise<void>;
}

export function createProcessLease(options: ProcessLeaseOptions): OwnedProcessLease {
  return new OneLease(options);
}

class OneLease implements OwnedProcessLease {
  readonly #options: ProcessLeaseOptions;
  #lease: Lease | undefined;
  #granting: Promise<Lease> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ProcessLeaseOptions) {
    this.#options = options;
  }

  async current(): Promise<Lease> {
    if (this.#closing !== undefined) {
      throw new QuorateError('unavailable', 'the server is stopping');
    }
    if (this.#lease !== undefined && !this.#lease.lost.aborted) return this.#lease;
    this.#granting ??= this.#grant();
    return this.#granting;
  }

  async leave(key: string, rangeEnd?: string): Promise<void> {
    const lease = this.#lease;
    if (lease === undefined || lease.lost.aborted) return;
    const done = new AbortController();
    const trying = this.#delete(lease, key, rangeEnd).catch((error: unknown) => {
      this.#logFailure(key, error);
      void this.#deleteLater(lease, key, rangeEnd);
    });
    await Promise.race([trying, this.#options.clock.sleep(patienceMs, done.signal)]);
    done.abort();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const lease = (await this.#granting?.catch(() => undefined)) ?? this.#lease;
    try {
      await lease?.revoke();
    } catch (error) {
      const { code } = asQuorateError(error);
      this.#options.logger.warn({ component: 'lease', code }, 'the lease is left to expire');
    }
  }

  async #grant(): Promise<Lease> {
    const { coordinator, ttlMs = processLeaseMs } = this.#options;
    try {
      const lease = await coordinator.grantLease(ttlMs);
      // Every lock under it listens.
      setMaxListeners(0, lease.lost);
      this.#lease = lease;
      return lease;
    } finally {
      this.#granting = undefined;
    }
  }

  async #delete(lease: Lease, key: string, rangeEnd: string | undefined): Promise<void> {
    const { coordinator } = this.#options;
    const range = rangeEnd === undefined ? {} : { rangeEnd };
    const { entries } = await coordinator.range(key, { ...range, keysOnly: true });
    for (const entry of entries) {
      if (entry.lease !== lease.id) continue;
      const { succeeded } = await coordinator.transaction({
        compares: [{ key: entry.key, target: 'modRevision', op: '=', operand: entry.modRevision }],
        success: [{ type: 'delete', key: entry.key }],
        failure: [],
      });
      if (!succeeded) throw new QuorateError('aborted', `${entry.key} has just changed`);
    }
  }

  async #deleteLater(lease: Lease, key: string, rangeEnd: string | undefined): Promise<void> {
    for (let retryMs = firstRetryMs; ; retryMs = Math.min(2 * retryMs, lastRetryMs)) {
      await this.#options.clock.sleep(retryMs, lease.lost);
      if (lease.lost.aborted) return;
      try {
        await this.#delete(lease, key, rangeEnd);
        return;
      } catch (error) {
        this.#logFailure(key, error);
      }
    }
  }

  #logFailure(key: string, error: unknown): void {
    const { code } = asQuorateError(error);
    const context = { component: 'lease', key, code };
    this.#options.logger.warn(context, 'what this process is done with cannot be taken away yet');
  }
}
