import { QuorateError, retrySoon } from '../../contract/errors.js';

/** Bounded concurrency with a bounded FIFO queue. */
export class Slots {
  readonly #capacity: number;
  readonly #maxQueued: number;
  #taken = 0;
  readonly #queue = new Set<(error?: Error) => void>();

  constructor(capacity: number, maxQueued: number) {
    this.#capacity = capacity;
    this.#maxQueued = maxQueued;
  }

  get taken(): number {
    return this.#taken;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** Waits for a slot. Rejects with `resource-exhausted` when the queue is full, `cancelled` when the signal aborts. */
  async take(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) throw cancelled();
    if (this.#taken < this.#capacity) {
      this.#taken += 1;
      return;
    }
    if (this.#queue.size >= this.#maxQueued) {
      throw new QuorateError('resource-exhausted', 'too many git processes are waiting to start', {
        details: { ...retrySoon },
      });
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        this.#queue.delete(settle);
        signal?.removeEventListener('abort', onAbort);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = (): void => settle(cancelled());
      signal?.addEventListener('abort', onAbort);
      this.#queue.add(settle);
    });
  }

  /** Hands the slot to the first in the queue, if any. */
  release(): void {
    const [next] = this.#queue;
    if (next === undefined) this.#taken -= 1;
    else next();
  }

  /** Refuses everybody who waits. */
  refuseAll(error: Error): void {
    for (const waiter of this.#queue) waiter(error);
  }
}

export function cancelled(): QuorateError {
  return new QuorateError('cancelled', 'the request was cancelled');
}
