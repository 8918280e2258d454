import { sleepInSteps } from '../../contract/testing/step-sleep.js';

/**
 * What the stores of a test do now. Its clock can be made to go on only while they do nothing, because their disks
 * hang or are slow: a store that works is late for nobody, however busy the machine is.
 */
export class StoreWork {
  #working = 0;

  /** Follows the answer of a store, and those to questions about what it has opened; anything else passes through. */
  follow(answer: unknown): unknown {
    if (!(answer instanceof Promise)) return answer;
    this.#working += 1;
    return answer
      .then((value: unknown) => (isRead(value) ? this.#followed(value) : value))
      .finally(() => (this.#working -= 1));
  }

  /** Within what is followed: a store that does nothing until this is over. */
  async idle<T>(until: Promise<T>): Promise<T> {
    this.#working -= 1;
    try {
      return await until;
    } finally {
      this.#working += 1;
    }
  }

  /** A store whose disk is slow. */
  slow(): Promise<void> {
    return this.idle(sleepInSteps(300));
  }

  /** Sleeps for so long a time in which no store worked, or until the signal aborts. */
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    for (let leftMs = ms; leftMs > 0;) {
      const stepMs = Math.min(10, leftMs);
      await sleepInSteps(stepMs, signal);
      if (signal?.aborted === true) return;
      if (this.#working === 0) leftMs -= stepMs;
    }
  }

  #followed(read: object): object {
    return new Proxy(read, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]): unknown =>
          this.follow(Reflect.apply(member, target, args) as unknown);
      },
    });
  }
}

function isRead(value: unknown): value is object {
  return typeof value === 'object' && value !== null && 'snapshot' in value && 'release' in value;
}
