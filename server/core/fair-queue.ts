import type { Clock } from '../../backends/contract/environment.js';
import type { QuorateError } from '../../backends/contract/errors.js';
import { cancelledBy } from './service-error.js';

export interface FairQueueLimits {
  /** Cost of all that runs at once. What costs more runs alone. */
  readonly capacity: number;
  /** Cost that one key may have running, by the key's place in `Ask.keys`. A key with nothing running always may. */
  readonly perKey: readonly number[];
  /** Who waits, in all and of one turn key. */
  readonly maxWaiting: number;
  readonly maxWaitingPerKey: number;
  readonly maxWaitMs: number;
}

export interface Ask {
  readonly cost: number;
  /** The first is the one by which turns are taken. */
  readonly keys: readonly string[];
  readonly signal: AbortSignal;
}

/** `full`: no place left to wait. `too-long`: waited as long as is allowed. */
export type QueueRefusal = 'full' | 'too-long';

interface Waiter {
  readonly ask: Ask;
  readonly admit: () => void;
}

/**
 * Bounds what runs at once, in all and by key, and lets the rest wait in a bounded queue. Those who wait take turns by
 * key: one with a thousand requests waits behind itself, and not everybody else behind it. Within a key, first come,
 * first served; what finds no room is not overtaken by what is smaller. Admitting at once costs no promise.
 */
export class FairQueue {
  readonly #limits: FairQueueLimits;
  readonly #clock: Clock;
  readonly #refusal: (why: QueueRefusal) => QuorateError;
  readonly #heldBy: readonly Map<string, number>[];
  /** By turn key, whose turn is next first. */
  readonly #queues = new Map<string, Set<Waiter>>();
  #held = 0;
  #waiting = 0;

  constructor(
    limits: FairQueueLimits,
    options: { readonly clock: Clock; readonly refusal: (why: QueueRefusal) => QuorateError },
  ) {
    this.#limits = limits;
    this.#clock = options.clock;
    this.#refusal = options.refusal;
    this.#heldBy = limits.perKey.map(() => new Map());
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Cost of what runs. */
  get held(): number {
    return this.#held;
  }

  /**
   * Undefined: admitted. Else resolves when it is; rejects with the refusal, or with why the signal aborted. `leave`
   * has to follow once on what was admitted, with the same ask.
   */
  enter(ask: Ask): Promise<void> | undefined {
    if (this.#waiting === 0 && this.#fit(ask) === 'fits') {
      this.#take(ask, 1);
      return undefined;
    }
    return this.#wait(ask);
  }

  leave(ask: Ask): void {
    this.#take(ask, -1);
    if (this.#waiting > 0) this.#admitNext();
  }

  async #wait(ask: Ask): Promise<void> {
    const { maxWaiting, maxWaitingPerKey } = this.#limits;
    const [key = ''] = ask.keys;
    if (ask.signal.aborted) throw cancelledBy(ask.signal);
    const ahead = this.#queues.get(key)?.size ?? 0;
    if (this.#waiting >= maxWaiting || ahead >= maxWaitingPerKey) throw this.#refusal('full');
    const over = new AbortController();
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        over.abort();
        ask.signal.removeEventListener('abort', onAbort);
        this.#remove(key, waiter);
        if (error === undefined) resolve();
        else {
          reject(error);
          // It may have been the one that all others waited behind.
          this.#admitNext();
        }
      };
      const onAbort = (): void => settle(cancelledBy(ask.signal));
      const waiter: Waiter = { ask, admit: () => settle() };
      ask.signal.addEventListener('abort', onAbort);
      this.#add(key, waiter);
      void this.#endWait(over.signal, settle);
      this.#admitNext();
    });
  }

  async #endWait(over: AbortSignal, settle: (error: Error) => void): Promise<void> {
    await this.#clock.sleep(this.#limits.maxWaitMs, over);
    if (!over.aborted) settle(this.#refusal('too-long'));
  }

  #add(key: string, waiter: Waiter): void {
    const queue = this.#queues.get(key);
    if (queue === undefined) this.#queues.set(key, new Set([waiter]));
    else queue.add(waiter);
    this.#waiting += 1;
  }

  #remove(key: string, waiter: Waiter): void {
    const queue = this.#queues.get(key);
    if (queue?.delete(waiter) !== true) return;
    this.#waiting -= 1;
    if (queue.size === 0) this.#queues.delete(key);
  }

  /** Whoever is admitted goes behind all other keys, which a Map's iteration comes to again. */
  #admitNext(): void {
    for (const [key, queue] of this.#queues) {
      for (const waiter of queue) {
        const fit = this.#fit(waiter.ask);
        if (fit === 'no-room') return;
        if (fit === 'share-taken') break;
        if (fit === 'other-share-taken') continue;
        this.#take(waiter.ask, 1);
        this.#queues.delete(key);
        this.#queues.set(key, queue);
        waiter.admit();
        break;
      }
    }
  }

  #fit({ cost, keys }: Ask): 'fits' | 'no-room' | 'share-taken' | 'other-share-taken' {
    const { capacity, perKey } = this.#limits;
    for (let place = 0; place < perKey.length; place += 1) {
      const held = this.#heldBy[place]?.get(keys[place] ?? '') ?? 0;
      if (held > 0 && held + cost > (perKey[place] ?? 0)) {
        return place === 0 ? 'share-taken' : 'other-share-taken';
      }
    }
    return this.#held > 0 && this.#held + cost > capacity ? 'no-room' : 'fits';
  }

  #take({ cost, keys }: Ask, sign: 1 | -1): void {
    this.#held += sign * cost;
    for (let place = 0; place < this.#heldBy.length; place += 1) {
      const heldBy = this.#heldBy[place];
      const key = keys[place] ?? '';
      const held = (heldBy?.get(key) ?? 0) + sign * cost;
      if (held > 0) heldBy?.set(key, held);
      else heldBy?.delete(key);
    }
  }
}
