import type { Random } from '../../backends/contract/environment.js';

/** Longest pause between two attempts at one delivery. */
export const longestRetryMs = 3_600_000;
/** Longest time for which a receiver that fails is left alone altogether: so long it takes to see that it is back. */
const longestPauseMs = 300_000;

/**
 * Exponential, with jitter: the pause after the `failures`-th failure (from 1) lies between half of
 * `firstMs * 2^(failures - 1)` and all of it, so that what failed together does not come again together.
 */
function backoff(
  random: Random,
  failures: number,
  bounds: { firstMs: number; lastMs: number },
): number {
  const whole = Math.min(bounds.lastMs, bounds.firstMs * 2 ** Math.min(failures - 1, 30));
  const [high = 0, low = 0] = random.bytes(2);
  const fraction = (high * 256 + low) / 65_536;
  return Math.round(whole * (0.5 + fraction / 2));
}

/** Until the next attempt at a delivery that failed so many times. */
export function retryDelayMs(random: Random, attempts: number, firstMs: number): number {
  return backoff(random, attempts, { firstMs, lastMs: Math.max(firstMs, longestRetryMs) });
}

/**
 * For which a receiver is left alone that failed so many times in a row: at most as long as the delivery waits that
 * failed the last time, so that this is the one to find out whether it is back.
 */
export function pauseMs(random: Random, failures: number, firstMs: number): number {
  const bounds = { firstMs, lastMs: Math.max(firstMs, 2 * longestPauseMs) };
  return Math.round(backoff(random, failures, bounds) / 2);
}
