import type { Coordinator, Lease, Operation, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { encodeRecord } from './records.js';
import type { FrontEndFacts } from './shared-settings.js';

/** How soon a front-end that lost its lease, and could not announce itself under the next one, tries that again. */
const retryMs = 1_000;

/** A front-end as others see it in the coordinator, for as long as its lease lives. */
export interface Announced {
  readonly id: string;
  /** Of `frontEnds/{id}`: as long as the key has it, this front-end has lost nothing that hung on its lease. */
  readonly createRevision: number;
  /** Create revision of `fences/{id}`: pushes without locks are committed only while the key has it. */
  readonly fenceRevision: number;
  readonly lease: Lease;
  /** To be called when the fence is gone: another one is put before it is needed. */
  readonly unfenced: () => void;
}

/**
 * Says in the coordinator that this front-end lives. What others find under an id that is not there any more is theirs
 * to take over; so an id is never used again: with a lost lease comes a new one.
 */
export class Presence {
  readonly #coordinator: Coordinator;
  readonly #lease: ProcessLease;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #facts: FrontEndFacts | undefined;
  readonly #closing = new AbortController();
  #current: Announced | undefined;
  /** As far as anybody has said. */
  #isFenced = false;
  /** Being announced, perhaps without an answer. */
  #next: Pick<Announced, 'id' | 'lease'> | undefined;
  #announcing: Promise<Announced> | undefined;
  /** Whose end is waited for. */
  #heard: Lease | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly lease: ProcessLease;
    readonly clock: Clock;
    readonly random: Random;
    readonly logger: Logger;
    /** Told to others in its record; absent: nothing but its id is. */
    readonly facts?: FrontEndFacts;
  }) {
    this.#coordinator = dependencies.coordinator;
    this.#lease = dependencies.lease;
    this.#clock = dependencies.clock;
    this.#random = dependencies.random;
    this.#logger = dependencies.logger;
    this.#facts = dependencies.facts;
  }

  /** The id under which this front-end is known now; announced when there is none. */
  async id(): Promise<string> {
    return (await this.#known()).id;
  }

  /** The same, with the lease on which everything is to hang that goes with this front-end. */
  async lease(): Promise<{ readonly id: string; readonly lease: string }> {
    const { id, lease } = await this.#known();
    return { id, lease: lease.id };
  }

  /** Takes away what is known under its id. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#announcing?.catch(() => undefined);
    const ids = new Set([this.#current, this.#next].flatMap((one) => one?.id ?? []));
    const left = [...ids].flatMap((id) => [keys.readRate(id), keys.fence(id), keys.frontEnd(id)]);
    await Promise.all(left.map((key) => this.#lease.leave(key)));
  }

  /** How it is known now, with its fence or without; announced when it is not. */
  async #known(): Promise<Announced> {
    const current = this.#current;
    return current?.lease.lost.aborted === false ? current : this.announced();
  }

  /** How it is known now, with its fence; announced when it is not. */
  async announced(): Promise<Announced> {
    if (this.#isFenced && this.#current?.lease.lost.aborted === false) return this.#current;
    if (this.#closing.signal.aborted) {
      throw new QuorateError('unavailable', 'the server is stopping');
    }
    this.#announcing ??= this.#announce().finally(() => {
      this.#announcing = undefined;
    });
    return this.#announcing;
  }

  async #announce(): Promise<Announced> {
    const lease = await this.#lease.current();
    // After a lost answer the same again: else one that nobody uses would stay.
    if (this.#next?.lease !== lease) {
      this.#next = { id: Buffer.from(this.#random.bytes(12)).toString('hex'), lease };
    }
    const { id } = this.#next;
    const own = [
      { key: keys.frontEnd(id), value: encodeRecord({ id, ...this.#facts }) },
      { key: keys.fence(id), value: encodeRecord({ id }) },
    ];
    const { results } = await this.#coordinator.transaction({
      compares: [],
      // A put whose answer was lost may have made the keys before this one.
      success: [
        ...own.map((one): Operation => ({ type: 'put', ...one, lease: lease.id })),
        ...own.map(({ key }): Operation => ({ type: 'get', key })),
      ],
      failure: [],
    });
    const [createRevision, fenceRevision] = results.flatMap((read) =>
      read.type === 'get' ? read.entries.map((entry) => entry.createRevision) : [],
    );
    if (createRevision === undefined || fenceRevision === undefined) {
      throw new QuorateError('internal', 'what was put cannot be read');
    }
    const unfenced = (): void => {
      if (this.#current?.fenceRevision === fenceRevision) this.#isFenced = false;
    };
    const announced: Announced = { id, lease, createRevision, fenceRevision, unfenced };
    this.#current = announced;
    this.#isFenced = true;
    if (this.#heard !== lease) {
      this.#heard = lease;
      const lost = (): void => void this.#announceAgain();
      lease.lost.addEventListener('abort', lost, { once: true });
      if (lease.lost.aborted) lost();
    }
    return announced;
  }

  /** Others take over what they find under an id that is gone: the next one is there as soon as it can be. */
  async #announceAgain(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.announced();
        return;
      } catch (error) {
        const { code } = asQuorateError(error);
        this.#logger.debug({ component: 'presence', code }, 'the front-end is announced later');
      }
      await this.#clock.sleep(retryMs, signal);
    }
  }
}
