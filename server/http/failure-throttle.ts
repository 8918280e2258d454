import type { Clock } from '../../backends/contract/environment.js';

/** 10,000 addresses of some 200 bytes: 2 MB at most. The one that failed first makes room. */
const maxAddresses = 10_000;
const windowMs = 60_000;

/** Counts wrong credentials by address in windows of a minute. Bounded in memory. */
export class FailureThrottle {
  readonly #clock: Clock;
  readonly #maxFailures: number;
  readonly #windows = new Map<string, { failures: number; endsAtMs: number }>();

  /** `maxFailures` in one window; 0: never throttles. */
  constructor(clock: Clock, maxFailures: number) {
    this.#clock = clock;
    this.#maxFailures = maxFailures;
  }

  /** How long the address has to wait, in milliseconds; 0 when it may try. */
  waitMs(address: string): number {
    const window = this.#windows.get(address);
    if (window === undefined || this.#maxFailures === 0) return 0;
    const leftMs = window.endsAtMs - this.#clock.monotonicMs();
    if (leftMs <= 0) {
      this.#windows.delete(address);
      return 0;
    }
    return window.failures >= this.#maxFailures ? leftMs : 0;
  }

  failed(address: string): void {
    const nowMs = this.#clock.monotonicMs();
    const window = this.#windows.get(address);
    if (window !== undefined && window.endsAtMs > nowMs) {
      window.failures += 1;
      return;
    }
    this.#windows.delete(address);
    if (this.#windows.size >= maxAddresses) {
      for (const oldest of this.#windows.keys()) {
        this.#windows.delete(oldest);
        break;
      }
    }
    this.#windows.set(address, { failures: 1, endsAtMs: nowMs + windowMs });
  }

  get size(): number {
    return this.#windows.size;
  }
}
