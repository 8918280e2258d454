import assert from 'node:assert/strict';
import { changingCalls, type Fault } from './fault-injection.js';
import { countFrom, Seeded, seedFrom } from './seeded.js';

/** Beyond every step of a push or a start: a fault that never comes would run for ever. */
export const maxPoints = 200;

/**
 * Of the points of long ways only every so many-th is tried in one run, from another first one each time; the whole
 * way takes minutes. `CRASH_POINTS=all` takes each; `CRASH_POINTS=4` one in four of the calls, other ones in each run.
 */
const everyPoint = process.env['CRASH_POINTS'] === 'all';
const oneIn = everyPoint ? 1 : countFrom('CRASH_POINTS', 1);
const random = new Seeded(seedFrom('CRASH_POINTS_SEED'));

/** The calls to be cut at. */
export function cutCalls(): readonly Fault['call'][] {
  const first = random.between(0, oneIn - 1);
  return changingCalls.filter((_, index) => index % oneIn === first);
}

export function* points(stride: number): Generator<number> {
  const step = everyPoint ? 1 : stride;
  for (let nth = random.between(1, step); nth < maxPoints; nth += step) yield nth;
  throw new Error('the faults never end');
}

/** Asserts that more than `least` points were met. Of a few calls there may be none. */
export function assertMet(count: number, least: number): void {
  if (oneIn === 1) assert.ok(count > least, `only ${count} points were met`);
}
