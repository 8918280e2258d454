import type { Clock } from '../contract/environment.js';

/**
 * The time on the wall; where somebody has put the clock forward since the call, the time that it would show without
 * that. For what goes by its age while something may use it: a clock that jumps makes nothing old. It falls behind by
 * as long as the machine sleeps, until the process is started again: then some things go later.
 */
export function evenTime(clock: Pick<Clock, 'nowMs' | 'monotonicMs'>): () => number {
  const beganMs = clock.nowMs() - clock.monotonicMs();
  return () => Math.min(clock.nowMs(), beganMs + clock.monotonicMs());
}
