import { LeaseSource } from '../coordination/lock-lease.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Random } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import { encodeRecord } from './records.js';

/** A front-end that was away for longer gives up what it had begun. */
const ttlMs = 10_000;

/**
 * Says in the coordinator that this front-end lives. What others find under an id that is not there any more is theirs
 * to take over; so an id is never used again: with a lost lease comes a new one.
 */
export class Presence {
  readonly #coordinator: Coordinator;
  readonly #random: Random;
  readonly #leases: LeaseSource;
  #current: { readonly id: string; readonly lost: AbortSignal } | undefined;
  #announcing: Promise<string> | undefined;

  constructor({
    coordinator,
    random,
  }: {
    readonly coordinator: Coordinator;
    readonly random: Random;
  }) {
    this.#coordinator = coordinator;
    this.#random = random;
    this.#leases = new LeaseSource(coordinator, ttlMs);
  }

  /** The id under which this front-end is known now; announced when there is none. */
  async id(): Promise<string> {
    if (this.#current !== undefined && !this.#current.lost.aborted) return this.#current.id;
    this.#announcing ??= this.#announce().finally(() => {
      this.#announcing = undefined;
    });
    return this.#announcing;
  }

  /** The same, with the lease on which everything is to hang that goes with this front-end. */
  async lease(): Promise<{ readonly id: string; readonly lease: string }> {
    const id = await this.id();
    return { id, lease: (await this.#leases.current()).id };
  }

  close(): Promise<void> {
    return this.#leases.close();
  }

  async #announce(): Promise<string> {
    const id = Buffer.from(this.#random.bytes(12)).toString('hex');
    const lease = await this.#leases.current();
    await this.#coordinator.transaction({
      compares: [],
      success: [
        { type: 'put', key: keys.frontEnd(id), value: encodeRecord({ id }), lease: lease.id },
      ],
      failure: [],
    });
    this.#current = { id, lost: lease.lost };
    return id;
  }
}
