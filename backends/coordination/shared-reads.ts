import type { Coordinator, KeyValue, RangeOptions, RangeResult } from '../contract/coordinator.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';

/**
 * One question that many ask at the same time. Who comes while an answer is on its way waits for it to arrive, and then
 * shares the next question with all who came meanwhile: never the one on its way, which may have been judged before
 * something that the late comer already knows to have happened. So each answer is as fresh as one of one's own, at most
 * one question is on its way, and nobody waits for more than two.
 */
export class SharedRead<T> {
  readonly #ask: () => Promise<T>;
  /** Told when nobody asks any more. */
  readonly #rest: () => void;
  #onItsWay: Promise<T> | undefined;
  #next: Promise<T> | undefined;

  constructor(ask: () => Promise<T>, rest: () => void = () => undefined) {
    this.#ask = ask;
    this.#rest = rest;
  }

  /** An answer to a question that is asked after this call. A failure is the failure of all who share it. */
  read(): Promise<T> {
    if (this.#onItsWay === undefined) return this.#begin();
    this.#next ??= this.#afterwards(this.#onItsWay);
    return this.#next;
  }

  async #afterwards(before: Promise<T>): Promise<T> {
    await before.catch(() => undefined);
    // From here on it is on its way, and nobody may join any more.
    this.#next = undefined;
    return this.#begin();
  }

  #begin(): Promise<T> {
    const asked = this.#ask();
    this.#onItsWay = asked;
    const settled = (): void => {
      // Those who wait for it begin the next one by themselves.
      if (this.#next !== undefined) return;
      this.#onItsWay = undefined;
      this.#rest();
    };
    asked.then(settled, settled);
    return asked;
  }
}

/**
 * The coordinator, with linearizable reads of the same key (or range) shared: a thousand requests for one repository
 * cost as many reads of its head as fit one after the other, not a thousand. Everything else goes through as it is.
 */
export function shareReads(coordinator: Coordinator): Coordinator {
  const gets = new SharedReads<KeyValue | undefined>();
  const ranges = new SharedReads<RangeResult>();
  return {
    limits: coordinator.limits,
    get(key, options = {}): Promise<KeyValue | undefined> {
      const { linearizable = true, signal } = options;
      if (!linearizable) return coordinator.get(key, options);
      return gets.read(key, () => coordinator.get(key), signal);
    },
    range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
      const { linearizable = true, signal, ...which } = options;
      if (!linearizable) return coordinator.range(key, options);
      const { rangeEnd, limit, keysOnly } = which;
      const name = JSON.stringify([key, rangeEnd, limit, keysOnly]);
      return ranges.read(name, () => coordinator.range(key, which), signal);
    },
    transaction: (transaction) => coordinator.transaction(transaction),
    grantLease: (ttlMs) => coordinator.grantLease(ttlMs),
    leaseLeft: (id) => coordinator.leaseLeft(id),
    watch: (key, options) => coordinator.watch(key, options),
    identity: () => coordinator.identity(),
    ping: () => coordinator.ping(),
    close: () => coordinator.close(),
  };
}

/** As many as there are questions on their way: a name is forgotten with the last of its questions. */
class SharedReads<T> {
  readonly #reads = new Map<string, SharedRead<T>>();

  /** Who gives up leaves the others their answer. */
  async read(name: string, ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal !== undefined) refuseCancelled(signal);
    let shared = this.#reads.get(name);
    if (shared === undefined) {
      shared = new SharedRead(ask, () => this.#reads.delete(name));
      this.#reads.set(name, shared);
    }
    const answer = shared.read();
    return signal === undefined ? answer : unlessAborted(answer, signal);
  }
}

async function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  const over = new AbortController();
  const given = new Promise<never>((_, reject) => {
    const gaveUp = (): void => {
      reject(new QuorateError('cancelled', 'the caller gave up', { cause: signal.reason }));
    };
    signal.addEventListener('abort', gaveUp, { once: true, signal: over.signal });
  });
  try {
    return await Promise.race([answer, given]);
  } finally {
    over.abort();
  }
}
