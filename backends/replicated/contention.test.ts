import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createManualClock } from '../coordination/test-environment.js';
import { Contention } from './contention.js';

/** Whether a change that comes now would be alone. */
function isAlone(contention: Contention, id = 'r'): boolean {
  const { alone, leave } = contention.enter(id);
  leave();
  return alone;
}

test('a change is alone while no other of its repository runs', () => {
  const contention = new Contention(createManualClock());
  const first = contention.enter('r');
  const second = contention.enter('r');
  assert.deepEqual([first.alone, second.alone, isAlone(contention, 'other')], [true, false, true]);
  first.leave();
  assert.equal(isAlone(contention), false);
  second.leave();
  assert.equal(isAlone(contention), true);
});

test('after a lost race nobody goes without locks there for a while', () => {
  const clock = createManualClock();
  const contention = new Contention(clock);
  contention.lost('r');
  assert.deepEqual([isAlone(contention), isAlone(contention, 'other')], [false, true]);
  clock.advance(4_999);
  assert.equal(isAlone(contention), false);
  clock.advance(1);
  assert.equal(isAlone(contention), true);
});

test('where changes are judged for long, locks are taken for longer', () => {
  const clock = createManualClock();
  const contention = new Contention(clock);
  contention.judged('r', 2_999);
  assert.equal(isAlone(contention), true);
  contention.judged('r', 3_000);
  contention.lost('r');
  clock.advance(10 * 60_000 - 1);
  assert.equal(isAlone(contention), false);
  clock.advance(1);
  assert.equal(isAlone(contention), true);
});

test('no more repositories are remembered than so many, the latest of them', () => {
  const contention = new Contention(createManualClock());
  for (let i = 0; i <= 1_000; i++) contention.lost(`r${i}`);
  const alone = ['r0', 'r1', 'r1000'].map((id) => isAlone(contention, id));
  assert.deepEqual(alone, [true, false, false]);
});
