import type { Clock } from '../../contract/environment.js';
import { until } from '../../contract/testing/until.js';
import { lookEveryMs } from '../voters.js';
import { type TestStore, unhurried } from './replica-set.js';

/** Stores that are away until everybody who looks for them has found that, and are back before anybody looks again. */
export class ComingBack {
  /** For front-ends: whoever looks again for stores sleeps until `back`. */
  readonly clock: Clock = {
    ...unhurried,
    sleep: (ms, signal) => {
      if (ms !== lookEveryMs) return unhurried.sleep(ms, signal);
      return new Promise((resolve) => {
        this.#sleepers.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    },
  };
  #sleepers: (() => void)[] = [];

  /** Once so many have looked in vain, all the stores come back. */
  async back(stores: readonly TestStore[], lookers: number): Promise<void> {
    await until(`${lookers} to find no store`, () => this.#sleepers.length >= lookers);
    for (const store of stores) store.down = false;
    for (const wake of this.#sleepers.splice(0)) wake();
  }
}
