import type { Clock, Logger } from '../contract/environment.js';

/** A clock for tests: time passes only in `advance`, and sleepers wake in the order of their deadlines. */
export interface ManualClock extends Clock {
  advance(ms: number): void;
}

export function createManualClock(startMs = 1_000_000): ManualClock {
  let now = startMs;
  const sleepers = new Set<{ readonly deadlineMs: number; readonly wake: () => void }>();
  return {
    nowMs: () => now,
    monotonicMs: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted === true) {
          resolve();
          return;
        }
        const wake = (): void => {
          sleepers.delete(sleeper);
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        const sleeper = { deadlineMs: now + ms, wake };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', wake, { once: true });
      }),
    advance: (ms) => {
      now += ms;
      const due = [...sleepers].filter((sleeper) => sleeper.deadlineMs <= now);
      due.sort((a, b) => a.deadlineMs - b.deadlineMs);
      for (const sleeper of due) sleeper.wake();
    },
  };
}

/** A logger for tests that says nothing. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};
