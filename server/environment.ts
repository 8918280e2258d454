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

export const systemRandom: Random = { bytes: (length) => randomBytes(length) };
