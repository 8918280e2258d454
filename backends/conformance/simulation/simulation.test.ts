import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mutants } from './mutants.js';
import { enoughSeeds, neverHappened, runSeeds, runSweep } from './run-seeds.js';
import type { SeedResult } from './simulation.js';

const workers = 2;

const happened = new Map<string, number>();

// The same every time, so that what fails was changed; `npm run simulate -- --seed N --seeds 1000` looks further.
test(`${enoughSeeds} seeds hold what is promised`, async () => {
  const summary = await runSeeds({ first: 1, count: enoughSeeds, workers });
  assert.deepEqual(summary.failed.map(failureOf), []);
  assert.ok(summary.acknowledged > 5 * enoughSeeds, 'pushes get through, between all the trouble');
  for (const [what, times] of summary.happened) happened.set(what, times);
});

test('whatever ought to come about in so many seeds did', () => {
  assert.deepEqual(neverHappened({ happened }, { count: enoughSeeds }), []);
});

/** `npm run simulate -- --sweep` takes every one. */
const sweepStride = 60;

test('a crash at any step of a standard scenario leaves nothing wrong', async () => {
  const { points, failed } = await runSweep({ workers, stride: sweepStride });
  assert.deepEqual(failed.map(failureOf), []);
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

/** `MUTANTS=none`: a second run, on another Node, changes the same compiled code in the same way. */
const wanted = process.env['MUTANTS'] === 'none' ? [] : mutants;

// Most are caught by the first seeds: a process for each of two is done sooner than two for one.
describe('a mutant is noticed', { concurrency: workers }, () => {
  for (const mutation of wanted) {
    test(mutation.name, async () => {
      const options = { first: mutation.from ?? 1, count: mutantSeeds, untilFailure: true };
      const { failed } = await runSeeds({ ...options, workers: 1, mutation });
      assert.notEqual(failed.length, 0, 'no seed failed');
    });
  }
});

function failureOf({ seed, violations }: SeedResult): string {
  return `npm run simulate -- --seed ${seed}: ${violations.join('; ')}`;
}
