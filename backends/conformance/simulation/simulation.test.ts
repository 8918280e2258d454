import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mutants } from './mutants.js';
import { runSeeds } from './run-seeds.js';
import type { SeedResult } from './simulation.js';

const seeds = 500;
const workers = 2;

test(`${seeds} seeds hold what is promised`, async () => {
  const { failed, acknowledged } = await runSeeds({ first: 1, count: seeds, workers });
  assert.deepEqual(failed.map(describe), []);
  assert.ok(acknowledged > 5 * seeds, 'pushes get through, between all the trouble');
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
  return `seed ${seed}: ${violations.join('; ')}`;
}
