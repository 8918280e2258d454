import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Replica } from '../contract/replica.js';
import { reportDamage } from './damage.js';
import { decodeRepository, scan } from './records.js';

export interface ScrubDependencies {
  readonly coordinator: Coordinator;
  readonly replica: Pick<Replica, 'storeId' | 'verify' | 'state'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In how long everything is to be read once; 0: never. */
  readonly intervalMs: number;
}

/** Between two repositories at least, so that scrubbing never takes all of a disk. */
const minPauseMs = 1_000;
/** How soon a node that has nothing looks again. */
const idlePauseMs = 60_000;

/**
 * Reads what a store has from its disk again, one repository at a time, spread over the interval. Equal digests say
 * that refs agree; only reading says that their objects are sound.
 */
export class Scrub {
  readonly #dependencies: ScrubDependencies;
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: ScrubDependencies) {
    this.#dependencies = dependencies;
  }

  start(): void {
    if (this.#dependencies.intervalMs > 0) this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  /** Verifies everything once. Answers how many copies were read, and how many are damaged. */
  async round(pauseMs = 0): Promise<{ readonly copies: number; readonly damaged: number }> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    let damaged = 0;
    const ids = await this.#own();
    for (const id of ids) {
      if (signal.aborted) break;
      if (!(await this.#verify(id))) damaged++;
      await clock.sleep(pauseMs, signal);
    }
    return { copies: ids.length, damaged };
  }

  async #run(): Promise<void> {
    const { clock, logger, intervalMs } = this.#dependencies;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const count = (await this.#own()).length;
        await clock.sleep(Math.min(idlePauseMs, intervalMs), signal);
        if (count > 0) await this.round(Math.max(minPauseMs, intervalMs / count));
      } catch (error) {
        logger.warn({ component: 'scrub', err: error }, 'scrubbing goes on later');
        await clock.sleep(idlePauseMs, signal);
      }
    }
  }

  /** Repositories that count on a copy in this store, or have it read. */
  async #own(): Promise<readonly string[]> {
    const { coordinator, replica } = this.#dependencies;
    const ids: string[] = [];
    for await (const entry of scan(coordinator, keys.repos)) {
      const { id, state, voters, readers = [] } = decodeRepository(entry);
      if (state !== 'active') continue;
      if ([...voters, ...readers].some(({ storeId }) => storeId === replica.storeId)) ids.push(id);
    }
    return ids;
  }

  /** False: it is damaged, and that was said. What cannot be verified now is left to the next round. */
  async #verify(id: string): Promise<boolean> {
    const { coordinator, replica, logger } = this.#dependencies;
    try {
      const { problems } = await replica.verify(id, { signal: this.#closing.signal });
      if (problems.length === 0) return true;
      logger.error({ component: 'scrub', repo: id, problems }, 'a copy is damaged');
      await reportDamage(coordinator, id, replica.storeId);
      return false;
    } catch (error) {
      const { code } = asQuorateError(error);
      logger.warn({ component: 'scrub', repo: id, err: error }, 'a copy could not be verified');
      return code !== 'data-corrupt';
    }
  }
}
