import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../contract/environment.js';
import { Gathering } from './gathering.js';
import { PruneGate } from './prune-gate.js';

/** A clock whose sleepers wake by the signal, or by `ring`. */
function handClock(): { clock: Clock; sleeps: number[]; ring: () => void } {
  const sleeps: number[] = [];
  const bell: { ring?: () => void } = {};
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        sleeps.push(ms);
        bell.ring = resolve;
        signal?.addEventListener('abort', () => resolve());
      }),
  };
  return { clock, sleeps, ring: () => bell.ring?.() };
}

test('a push that is alone is applied at once', async () => {
  const { clock, sleeps } = handClock();
  const gate = new PruneGate();
  const gathering = new Gathering(clock, gate);
  await gate.enter();
  let applied = 0;
  await gathering.join(() => Promise.resolve(void (applied += 1)));
  assert.deepEqual([applied, sleeps], [1, []]);
});

test('who comes first waits for the other, and both go on when it is there', async () => {
  const { clock, sleeps } = handClock();
  const gate = new PruneGate();
  const gathering = new Gathering(clock, gate);
  gathering.took(8);
  await gate.enter();
  await gate.enter();
  const order: string[] = [];
  const first = gathering.join(() => Promise.resolve(void order.push('first')));
  await new Promise(setImmediate);
  assert.deepEqual([order, sleeps], [[], [8]]);
  await gathering.join(() => Promise.resolve(void order.push('second')));
  await first;
  assert.deepEqual(order.toSorted(), ['first', 'second']);
});

test('the wait for a push that does not come is bounded, and so is its length', async () => {
  const { clock, sleeps, ring } = handClock();
  const gate = new PruneGate();
  const gathering = new Gathering(clock, gate);
  gathering.took(5_000);
  await gate.enter();
  await gate.enter();
  let applied = false;
  const joined = gathering.join(() => Promise.resolve(void (applied = true)));
  await new Promise(setImmediate);
  assert.equal(applied, false);
  ring();
  await joined;
  assert.deepEqual([applied, sleeps], [true, [20]]);
});

test('an apply that fails leaves nothing behind that others would wait for', async () => {
  const { clock, sleeps } = handClock();
  const gate = new PruneGate();
  const gathering = new Gathering(clock, gate);
  const leave = await gate.enter();
  await assert.rejects(
    gathering.join(() => Promise.reject(new Error('disk full'))),
    /disk full/,
  );
  leave();
  await gate.enter();
  await gathering.join(() => Promise.resolve());
  assert.deepEqual(sleeps, []);
});
