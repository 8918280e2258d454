import { setMaxListeners } from 'node:events';
import type { Coordinator, Lease } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';

/** The one long-lived lease of this process; another after that is lost. */
export class LeaseSource {
  readonly #coordinator: Coordinator;
  readonly #ttlMs: number;
  #lease: Lease | undefined;
  #granting: Promise<Lease> | undefined;
  #closed = false;

  constructor(coordinator: Coordinator, ttlMs: number) {
    this.#coordinator = coordinator;
    this.#ttlMs = ttlMs;
  }

  async current(): Promise<Lease> {
    if (this.#closed) throw new QuorateError('unavailable', 'the server is stopping');
    if (this.#lease !== undefined && !this.#lease.lost.aborted) return this.#lease;
    this.#granting ??= this.#grant();
    return this.#granting;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const lease = this.#lease ?? (await this.#granting?.catch(() => undefined));
    await lease?.revoke();
  }

  async #grant(): Promise<Lease> {
    try {
      this.#lease = await this.#coordinator.grantLease(this.#ttlMs);
      // Every lock under it listens.
      setMaxListeners(0, this.#lease.lost);
      return this.#lease;
    } finally {
      this.#granting = undefined;
    }
  }
}
