import type { Compare, Coordinator, Lease } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { parseLockRecord } from './lock-record.js';

/** A key and the revision at which it became ours. */
export interface OwnKey {
  readonly key: string;
  readonly createRevision: number;
}

/** Deletes in one transaction: as many compares as operations, within etcd's 128. */
const maxDeletes = 100;
const firstRetryMs = 1_000;
const lastRetryMs = 60_000;
/**
 * How long a transaction whose answer was lost is looked for. It travels on a broken connection or sits in the log of
 * a deposed leader: seconds. The lease that its keys hang on would end them otherwise, but only with the process.
 */
const hauntMs = 600_000;

/** Deletes keys for certain: at once if it can, otherwise in the background until it succeeds or their lease ends. */
export class LockJanitor {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(coordinator: Coordinator, clock: Clock, logger: Logger) {
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Resolves when the keys are gone or left to the background. Never rejects. */
  async remove(keys: readonly OwnKey[], lease: Lease): Promise<void> {
    try {
      await deleteOwn(this.#coordinator, keys);
    } catch (error) {
      const { code } = asQuorateError(error);
      this.#logger.warn({ code, keys: keys.length }, 'a lock could not be released yet');
      void this.#removeLater(keys, lease);
    }
  }

  /**
   * Looks out for keys of an acquisition whose transaction was given up without knowing its outcome, in case that it
   * happens after all. `wanted` says whether such a key is held rightly.
   */
  haunt(keys: readonly string[], lease: Lease, wanted: (attempt: string) => boolean): void {
    void this.#hauntLater(keys, lease, wanted);
  }

  async #removeLater(keys: readonly OwnKey[], lease: Lease): Promise<void> {
    for (const retryMs of delays()) {
      await this.#clock.sleep(retryMs, lease.lost);
      if (lease.lost.aborted) return;
      try {
        await deleteOwn(this.#coordinator, keys);
        return;
      } catch (error) {
        this.#logger.warn({ code: asQuorateError(error).code }, 'a lock is still not released');
      }
    }
  }

  async #hauntLater(
    keys: readonly string[],
    lease: Lease,
    wanted: (attempt: string) => boolean,
  ): Promise<void> {
    const endMs = this.#clock.monotonicMs() + hauntMs;
    for (const retryMs of delays()) {
      await this.#clock.sleep(retryMs, lease.lost);
      if (lease.lost.aborted) return;
      if (this.#clock.monotonicMs() > endMs) return;
      try {
        for (const key of keys) {
          const entry = await this.#coordinator.get(key);
          if (entry === undefined || wanted(parseLockRecord(entry.value).attempt)) continue;
          this.#logger.warn({}, 'a lock was taken by a transaction given up before: released');
          await deleteOwn(this.#coordinator, [entry]);
        }
      } catch (error) {
        this.#logger.warn({ code: asQuorateError(error).code }, 'stray locks were not looked for');
      }
    }
  }
}

/** Deletes those that are still what they were. */
export async function deleteOwn(coordinator: Coordinator, keys: readonly OwnKey[]): Promise<void> {
  for (let i = 0; i < keys.length; i += maxDeletes) {
    const chunk = keys.slice(i, i + maxDeletes);
    const { succeeded } = await coordinator.transaction({
      compares: chunk.map(stillOurs),
      success: chunk.map(({ key }) => ({ type: 'delete', key })),
      failure: [],
    });
    if (succeeded) continue;
    // At least one is not ours any more; the others still have to go.
    for (const own of chunk) {
      await coordinator.transaction({
        compares: [stillOurs(own)],
        success: [{ type: 'delete', key: own.key }],
        failure: [],
      });
    }
  }
}

export function stillOurs(own: OwnKey): Compare {
  return { key: own.key, target: 'createRevision', op: '=', operand: own.createRevision };
}

function* delays(): Generator<number, never, undefined> {
  for (let ms = firstRetryMs; ; ms = Math.min(2 * ms, lastRetryMs)) yield ms;
}
