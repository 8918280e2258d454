import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';

/** Deletions remembered between a read and the wait after it; beyond, the waiter reads again. */
const maxRemembered = 10_000;
const firstRetryMs = 100;
const lastRetryMs = 2_000;

export interface WatchedRange {
  readonly key: string;
  readonly rangeEnd: string;
}

/** One waiter's ear on the lock space. */
export interface LockSubscription {
  /** To be called before reading: deletions from here on are remembered. */
  begin(): void;
  /** Resolves when all these keys were deleted after `revision`, or history was lost, or `stop` aborts. */
  deleted(keys: Iterable<string>, revision: number, stop: AbortSignal): Promise<void>;
  end(): void;
}

class Subscriber {
  #deletions = new Map<string, number>();
  #remaining = new Set<string>();
  #readAgain = false;
  #wake: (() => void) | undefined;

  begin(): void {
    this.#deletions = new Map();
    this.#readAgain = false;
  }

  onDelete(key: string, revision: number): void {
    if (this.#wake === undefined) {
      if (this.#deletions.size >= maxRemembered) this.onHistoryLost();
      else this.#deletions.set(key, revision);
      return;
    }
    this.#remaining.delete(key);
    if (this.#remaining.size === 0) this.#wake();
  }

  onHistoryLost(): void {
    this.#readAgain = true;
    this.#wake?.();
  }

  async deleted(keys: Iterable<string>, revision: number, stop: AbortSignal): Promise<void> {
    this.#remaining = new Set(keys);
    for (const [key, deletedAt] of this.#deletions) {
      if (deletedAt > revision) this.#remaining.delete(key);
    }
    if (this.#readAgain || this.#remaining.size === 0 || stop.aborted) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      stop.addEventListener('abort', () => resolve(), { once: true });
    });
    this.#wake = undefined;
  }
}

interface SharedWatch {
  readonly subscribers: Set<Subscriber>;
  readonly leaving: AbortController;
}

/** Watches of the lock space, one for each range that somebody waits on, shared by all who do. */
export class LockEvents {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #watches = new Map<string, SharedWatch>();

  constructor(coordinator: Coordinator, clock: Clock, logger: Logger) {
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#logger = logger;
  }

  subscribe(ranges: readonly WatchedRange[]): LockSubscription {
    const subscriber = new Subscriber();
    for (const range of ranges) this.#join(range, subscriber);
    return {
      begin: () => subscriber.begin(),
      deleted: (keys, revision, stop) => subscriber.deleted(keys, revision, stop),
      end: () => {
        for (const range of ranges) this.#leave(range, subscriber);
      },
    };
  }

  #join(range: WatchedRange, subscriber: Subscriber): void {
    let watch = this.#watches.get(range.key);
    if (watch === undefined) {
      watch = { subscribers: new Set(), leaving: new AbortController() };
      this.#watches.set(range.key, watch);
      void this.#follow(range, watch);
    }
    watch.subscribers.add(subscriber);
  }

  #leave(range: WatchedRange, subscriber: Subscriber): void {
    const watch = this.#watches.get(range.key);
    if (watch === undefined || !watch.subscribers.delete(subscriber)) return;
    if (watch.subscribers.size > 0) return;
    this.#watches.delete(range.key);
    watch.leaving.abort();
  }

  /** A watch that fails is begun again; whoever waits reads again, since something may have happened in between. */
  async #follow(range: WatchedRange, watch: SharedWatch): Promise<void> {
    const signal = watch.leaving.signal;
    let retryMs = firstRetryMs;
    for (let first = true; !signal.aborted; first = false) {
      try {
        const batches = this.#coordinator.watch(range.key, { rangeEnd: range.rangeEnd, signal });
        if (!first) for (const subscriber of watch.subscribers) subscriber.onHistoryLost();
        for await (const batch of batches) {
          retryMs = firstRetryMs;
          for (const event of batch.events) {
            if (event.type === 'put') continue;
            for (const subscriber of watch.subscribers) {
              subscriber.onDelete(event.key, batch.revision);
            }
          }
        }
      } catch (error) {
        const { code } = asQuorateError(error);
        this.#logger.warn({ code }, 'the watch for lock releases failed');
      }
      // Also when it ended without an error: the coordinator is closing.
      await this.#clock.sleep(retryMs, signal);
      retryMs = Math.min(2 * retryMs, lastRetryMs);
    }
  }
}
