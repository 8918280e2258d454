import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Patience } from './patience.js';

test('a store is waited for until it was late three times in a row', () => {
  const patience = new Patience();
  const usualMs = patience.graceMs(['a']);
  patience.late('a');
  patience.late('a');
  assert.equal(patience.graceMs(['a']), usualMs);
  patience.late('a');
  assert.ok(patience.graceMs(['a']) < usualMs);
  assert.equal(patience.graceMs(['a', 'b']), usualMs, 'another store is waited for');
});

test('one that answers in time is waited for again', () => {
  const patience = new Patience();
  const usualMs = patience.graceMs(['a']);
  for (let pushes = 0; pushes < 5; pushes++) patience.late('a');
  patience.answered('a');
  assert.equal(patience.graceMs(['a']), usualMs);
});
