import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { mutants } from './mutants.js';
import { enoughSeeds, neverHappened, runSeeds, runSweep } from './run-seeds.js';
import type { SeedResult } from './simulation.js';

const workers = 2;

/** The same every time, so that what fails was changed; and some that nobody has seen yet. */
const ranges = [
  { desc: 'known', first: 1, count: enoughSeeds - 100 },
  { desc: 'new', first: 1_000_000 + randomInt(1_000_000_000), count: 100 },
];
const happened = new Map<string, number>();

for (const { desc, first, count } of ranges) {
  test(`${count} ${desc} seeds, from ${first} on, hold what is promised`, async () => {
    const summary = await runSeeds({ first, count, workers });
    assert.deepEqual(summary.failed.map(describe), []);
    assert.ok(summary.acknowledged > 5 * count, 'pushes get through, between all the trouble');
    for (const [what, times] of summary.happened) {
      happened.set(what, (happened.get(what) ?? 0) + times);
    }
  });
}

test('whatever ought to come about in so many seeds did', () => {
  assert.deepEqual(neverHappened({ happened }, { count: enoughSeeds }), []);
});

/** `npm run simulate -- --sweep` takes every one. */
const sweepStride = 60;

test('a crash at any step of a standard scenario leaves nothing wrong', async () => {
  const { points, failed } = await runSweep({ workers, stride: sweepStride });
  assert.deepEqual(failed.map(describe), []);
  assert.ok(points > 1_000, 'the scenario has many steps');
});

test('a seed replays exactly', async () => {
  const [once, again] = await Promise.all([replay(), replay()]);
  assert.equal(once.length, 6);
  assert.deepEqual(once, again);
});

async function replay(): Promise<readonly SeedResult[]> {
  const results: SeedResult[] = [];
  const onResult = (result: SeedResult): unknown => results.push(result);
  await runSeeds({ first: 101, count: 6, workers: 1, onResult });
  return results;
}

/** How far each is looked for, in a fixed order of seeds; far beyond where it was found. */
const mutantSeeds = 1_000;

for (const mutation of mutants) {
  test(`a mutant is noticed: ${mutation.name}`, async () => {
    const options = { first: 1, count: mutantSeeds, workers, untilFailure: true };
    const { failed } = await runSeeds({ ...options, mutation });
    assert.notEqual(failed.length, 0, 'no seed failed');
  });
}

function describe({ seed, violations }: SeedResult): string {
  return `npm run simulate -- --seed ${seed}: ${violations.join('; ')}`;
}
