import type { Coordinator, LeaseId } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { deleteOwn } from './lock-janitor.js';
import type { LockEntry } from './lock-record.js';

/** How often whoever waits looks at those who are in his way. */
const lookEveryMs = 500;
/** Many wait for the same process: what was heard of it is believed for so long. */
const believedMs = 200;
/** Processes of which something was heard; beyond, all of it is forgotten. */
const maxHeard = 1_000;
/**
 * A lease that has no more than this of its time left was not renewed twice in a row: its process is dead, cut off, or
 * stands still. With a lease of 5 s that is 2 s.
 */
const silentLeft = 0.6;

/**
 * Takes locks and places in queues away from processes of which nothing is heard, when somebody waits for them: so
 * nobody waits for the whole lease of one that was killed. Nothing rests on their being dead: a commit compares the
 * locks, and who lives and has lost one takes it anew, as after a lost lease.
 */
export class SilentHolders {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #heard = new Map<
    LeaseId,
    { readonly silent: Promise<boolean>; readonly atMs: number }
  >();
  readonly #deleting = new Set<string>();

  constructor(coordinator: Coordinator, clock: Clock, logger: Logger) {
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Looks at those in whose way somebody is, other than his own process, until he waits no longer. Never rejects. */
  async watch(inTheWay: readonly LockEntry[], own: LeaseId, signal: AbortSignal): Promise<void> {
    const leases = new Set(inTheWay.flatMap(({ lease }) => (lease === undefined ? [] : lease)));
    leases.delete(own);
    while (leases.size > 0) {
      await this.#clock.sleep(lookEveryMs, signal);
      if (signal.aborted) return;
      for (const lease of leases) {
        try {
          if (!(await this.#isSilent(lease)) || signal.aborted) continue;
          await this.#takeAway(inTheWay.filter((entry) => entry.lease === lease));
        } catch (error) {
          const { code } = asQuorateError(error);
          this.#logger.debug({ code }, 'who is in the way could not be looked at');
        }
      }
    }
  }

  #isSilent(lease: LeaseId): Promise<boolean> {
    const nowMs = this.#clock.monotonicMs();
    const heard = this.#heard.get(lease);
    if (heard !== undefined && nowMs - heard.atMs < believedMs) return heard.silent;
    if (this.#heard.size >= maxHeard) this.#heard.clear();
    const silent = this.#ask(lease);
    this.#heard.set(lease, { silent, atMs: nowMs });
    return silent;
  }

  async #ask(lease: LeaseId): Promise<boolean> {
    const left = await this.#coordinator.leaseLeft(lease);
    // One that has ended has taken its keys along.
    return left !== undefined && left.leftMs <= silentLeft * left.ttlMs;
  }

  async #takeAway(entries: readonly LockEntry[]): Promise<void> {
    const there = entries.filter(({ key }) => !this.#deleting.has(key));
    if (there.length === 0) return;
    for (const { key } of there) this.#deleting.add(key);
    try {
      await deleteOwn(this.#coordinator, there);
      const holders = new Set(there.map(({ record }) => record.holder));
      this.#logger.warn({ holders: [...holders] }, 'locks of a silent process are given to others');
    } finally {
      for (const { key } of there) this.#deleting.delete(key);
    }
  }
}
