import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SweepSchedule } from './sweep-schedule.js';

/** Rounds in which there is a sweep, of so many; each sweep leaves what `leaves` says of its round. */
function roundsOf(
  count: number,
  {
    leaves,
    left = () => 0,
    stores = () => undefined,
  }: {
    leaves: (round: number) => number;
    left?: (round: number) => number;
    stores?: (round: number) => string | undefined;
  },
): readonly number[] {
  const schedule = new SweepSchedule();
  const found: number[] = [];
  let total = 0;
  for (let round = 1; round <= count; round++) {
    total += left(round);
    if (!schedule.due(total, stores(round))) continue;
    found.push(round);
    total += leaves(round);
    schedule.swept(total);
  }
  return found;
}

test('in the first round, then every fortieth', () => {
  assert.deepEqual(roundsOf(100, { leaves: () => 0 }), [1, 41, 81]);
});

test('after twice as many rounds each time while something stays, and as before once nothing does', () => {
  assert.deepEqual(roundsOf(80, { leaves: (round) => (round < 10 ? 1 : 0) }), [1, 3, 7, 15, 55]);
  assert.deepEqual(roundsOf(140, { leaves: () => 1 }), [1, 3, 7, 15, 31, 63, 103]);
});

test('in the next round when something was left meanwhile', () => {
  assert.deepEqual(
    roundsOf(70, { leaves: () => 0, left: (round) => (round === 20 ? 1 : 0) }),
    [1, 20, 60],
  );
});

test('again soon when it failed', () => {
  const schedule = new SweepSchedule();
  assert.ok(schedule.due(0));
  schedule.swept(undefined);
  assert.deepEqual([schedule.due(0), schedule.due(0)], [false, true]);
});

test('in the round after a store came or went for good, while something stays', () => {
  const rounds = roundsOf(60, {
    leaves: (round) => (round < 20 ? 1 : 0),
    stores: (round) => (round < 20 ? 'a' : round < 50 ? 'b' : 'c'),
  });
  assert.deepEqual(rounds, [1, 3, 7, 15, 20, 60]);
});
