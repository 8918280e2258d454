import { randomBytes } from 'node:crypto';
import type { Clock, Random } from '../backends/contract/environment.js';

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms).unref();
      signal?.addEventListener('abort', done, { once: true });
    }),
};

/** Asked for at once: each call of the system's source takes longer than the bytes. */
const poolBytes = 4096;
let pool = Buffer.alloc(0);

/** Nothing that was given away stays in the pool. */
function takeRandom(length: number): Buffer {
  if (length > poolBytes / 4) return randomBytes(length);
  if (pool.length < length) pool = randomBytes(poolBytes);
  const taken = Buffer.from(pool.subarray(0, length));
  pool.fill(0, 0, length);
  pool = pool.subarray(length);
  return taken;
}

export const systemRandom: Random = { bytes: takeRandom };
