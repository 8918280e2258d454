import { EventEmitter, once } from 'node:events';
import type { Clock } from '../../contract/environment.js';
import { systemClock } from '../../local/testing/local-fixture.js';

/** A clock by which the rounds of a front-end come when they are asked for. */
export function inRounds(): { readonly clock: Clock; readonly round: () => Promise<void> } {
  const told = new EventEmitter();
  let next: (() => void) | undefined;
  const asleep = (signal?: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      next = resolve;
      signal?.addEventListener('abort', () => resolve());
      told.emit('asleep');
    });
  return {
    clock: {
      ...systemClock,
      sleep: (ms, signal) => (ms === 15_000 ? asleep(signal) : systemClock.sleep(ms, signal)),
    },
    round: async () => {
      // One that goes on now began before it was asked for.
      if (next === undefined) await once(told, 'asleep');
      const over = once(told, 'asleep');
      const wake = next;
      next = undefined;
      wake?.();
      await over;
    },
  };
}
