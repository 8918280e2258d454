import type { Clock } from '../../backends/contract/environment.js';

/** 10,000 keys of some 150 bytes: 2 MB at most. Who has not asked for longest makes room. */
const maxKeys = 10_000;
const minuteMs = 60_000;

interface Bucket {
  tokens: number;
  filledAtMs: number;
}

/** So many requests of one key a minute, and as many at once: a bucket of tokens for each key. Bounded in memory. */
export class RateLimit {
  readonly #perMinute: number;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  /** `perMinute` 0: no limit. */
  constructor(perMinute: number, clock: Clock) {
    this.#perMinute = perMinute;
    this.#clock = clock;
  }

  get off(): boolean {
    return this.#perMinute === 0;
  }

  /** 0 when the key may go on, which is counted; else how long until it may, in milliseconds. */
  take(key: string): number {
    if (this.off) return 0;
    const nowMs = this.#clock.monotonicMs();
    const bucket = this.#bucketOf(key, nowMs);
    const refilled = ((nowMs - bucket.filledAtMs) * this.#perMinute) / minuteMs;
    bucket.tokens = Math.min(this.#perMinute, bucket.tokens + refilled);
    bucket.filledAtMs = nowMs;
    const missing = 1 - bucket.tokens;
    // Parts of tokens do not add up exactly.
    if (missing > 1e-9) return Math.ceil((missing * minuteMs) / this.#perMinute - 1e-6);
    bucket.tokens -= 1;
    return 0;
  }

  /** The key last used is last in the map. */
  #bucketOf(key: string, nowMs: number): Bucket {
    const known = this.#buckets.get(key);
    const bucket = known ?? { tokens: this.#perMinute, filledAtMs: nowMs };
    if (known !== undefined) this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > maxKeys) {
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined) this.#buckets.delete(oldest);
    }
    return bucket;
  }
}
