import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMessageCheck } from './message-check.js';

test('finds the first message that does not match', async () => {
  const check = createMessageCheck();
  assert.equal(await check.firstMismatch('^[A-Z]+-\\d+', ['AB-1 x', 'no', 'neither']), 1);
  assert.equal(await check.firstMismatch('^[A-Z]+-\\d+', ['AB-1 x']), undefined);
  assert.equal(await check.firstMismatch('ü', ['grün']), undefined);
});

test('a machine that is busy when the check is begun is not taken for an expression that runs away', async () => {
  const check = createMessageCheck();
  const asked = check.firstMismatch('^A', ['A', 'B']);
  await Promise.resolve();
  // No timer and no answer is looked at meanwhile.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_000);
  assert.equal(await asked, 1);
});

test('an expression that runs away is ended, and the next one is answered', async () => {
  const check = createMessageCheck();
  const runaway = check.firstMismatch('^(a+)+$', [`${'a'.repeat(64)}!`]);
  const next = check.firstMismatch('a', ['b']);
  await assert.rejects(runaway, { code: 'deadline-exceeded' });
  assert.equal(await next, 0);
});

test('more than can wait are refused at once', async () => {
  const check = createMessageCheck();
  const asked = Array.from({ length: 64 }, () => check.firstMismatch('a', ['a']));
  assert.throws(() => check.firstMismatch('a', ['a']), { code: 'resource-exhausted' });
  await Promise.all(asked);
  assert.equal(await check.firstMismatch('a', ['b']), 0);
});
