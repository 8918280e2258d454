import { Seeded, seedFrom } from './seeded.js';

/** Beyond every step of a push or a start: a fault that never comes would run for ever. */
export const maxPoints = 200;

/**
 * Of the points of long ways only every so many-th is tried in one run, from another first one each time; the whole
 * way takes minutes. `CRASH_POINTS=all` takes each.
 */
const everyPoint = process.env['CRASH_POINTS'] === 'all';
const random = new Seeded(seedFrom('CRASH_POINTS_SEED'));

export function* points(stride: number): Generator<number> {
  const step = everyPoint ? 1 : stride;
  for (let nth = random.between(1, step); nth < maxPoints; nth += step) yield nth;
  throw new Error('the faults never end');
}
