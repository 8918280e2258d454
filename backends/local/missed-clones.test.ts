import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MissedClones } from './missed-clones.js';

test('clones are counted by repository, and anew for each generation', () => {
  const missed = new MissedClones();
  assert.deepEqual([missed.note('a', 1), missed.note('a', 1), missed.note('b', 1)], [1, 2, 1]);
  assert.equal(missed.of('a'), 2);
  assert.equal(missed.note('a', 2), 1);
  missed.forget('a');
  assert.deepEqual([missed.of('a'), missed.of('b')], [0, 1]);
});

test('many repositories do not pile up', () => {
  const missed = new MissedClones();
  for (let i = 0; i <= 10_000; i += 1) missed.note(`r${i}`, 1);
  assert.deepEqual([missed.of('r0'), missed.of('r1'), missed.of('r10000')], [0, 1, 1]);
});
