import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import { Deferred } from '../git/spawner/deferred.js';
import { SerialQueue } from './serial-queue.js';

/** Each interruption is a fork; so many during one run of maintenance are a script's, and a later push tries again. */
const maxInterruptions = 20;

/**
 * Runs one task at a time: long ones that may be begun again, and short ones that end a long one rather than wait for
 * it. What was ended runs again behind the short ones.
 */
export class InterruptibleQueue {
  readonly #queue = new SerialQueue();
  #shortWaiting = 0;
  #running: AbortController | undefined;

  /**
   * `task` has to end soon, with `cancelled`, once its signal aborts. `aborted` when that happens again and again;
   * `cancelled` when `givenUp` aborts before it is its turn: what runs may take hours, and the caller may be the long
   * task of another queue, which somebody ends.
   */
  async runLong<T>(
    task: (ended: AbortSignal) => Promise<T>,
    givenUp = new AbortController().signal,
  ): Promise<T> {
    for (let tries = 0; tries <= maxInterruptions; tries++) {
      const done = await this.#inTurn(() => this.#tryLong(task), givenUp);
      if (done !== undefined) return done.result;
    }
    throw new QuorateError('aborted', 'maintenance was interrupted by forks again and again');
  }

  async runShort<T>(task: () => Promise<T>): Promise<T> {
    this.#shortWaiting++;
    this.#running?.abort();
    try {
      return await this.#queue.run(task);
    } finally {
      this.#shortWaiting--;
    }
  }

  /** Whoever gives up while it waits leaves its place behind, where nothing is run. */
  async #inTurn<T>(task: () => Promise<T>, givenUp: AbortSignal): Promise<T> {
    let begun = false;
    const turn = this.#queue.run(() => {
      refuseCancelled(givenUp);
      begun = true;
      return task();
    });
    const leaving = new Deferred<never>();
    const leave = (): void => {
      if (!begun) leaving.reject(new QuorateError('cancelled', 'nobody waits for it any more'));
    };
    givenUp.addEventListener('abort', leave);
    try {
      if (givenUp.aborted) leave();
      return await Promise.race([turn, leaving.promise]);
    } finally {
      givenUp.removeEventListener('abort', leave);
    }
  }

  /** Undefined when a short task came. */
  async #tryLong<T>(
    task: (ended: AbortSignal) => Promise<T>,
  ): Promise<{ readonly result: T } | undefined> {
    if (this.#shortWaiting > 0) return undefined;
    const ended = new AbortController();
    this.#running = ended;
    try {
      return { result: await task(ended.signal) };
    } catch (error) {
      if (ended.signal.aborted && asQuorateError(error).code === 'cancelled') return undefined;
      throw error;
    } finally {
      this.#running = undefined;
    }
  }
}
