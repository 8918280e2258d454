import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KeyValue } from '../contract/coordinator.js';
import { rememberingDecoder } from './records.js';

function entry(key: string, modRevision: number): KeyValue {
  return { key, value: new Uint8Array(), createRevision: 1, modRevision, version: 1 };
}

/** A decoder of two entries, and what it was asked to decode. */
function counted(): { decode: (kv: KeyValue) => string; decoded: string[] } {
  const decoded: string[] = [];
  const decode = rememberingDecoder(({ key, modRevision }: KeyValue) => {
    decoded.push(`${key}${modRevision}`);
    return `${key}${modRevision}`;
  }, 2);
  return { decode, decoded };
}

test('an entry is decoded once per revision', () => {
  const { decode, decoded } = counted();
  assert.deepEqual(
    [entry('a', 1), entry('a', 1), entry('a', 2), entry('a', 2), entry('a', 1)].map(decode),
    ['a1', 'a1', 'a2', 'a2', 'a1'],
  );
  assert.deepEqual(decoded, ['a1', 'a2', 'a1']);
});

test('the least recently used entry is forgotten first', () => {
  const { decode, decoded } = counted();
  for (const key of ['a', 'b', 'a', 'c', 'a', 'b']) decode(entry(key, 1));
  assert.deepEqual(decoded, ['a1', 'b1', 'c1', 'b1']);
});

test('a damaged entry is not remembered', () => {
  let broken = true;
  const decode = rememberingDecoder(() => {
    if (broken) throw new Error('damaged');
    return 'whole';
  }, 2);
  assert.throws(() => decode(entry('a', 1)), /damaged/);
  broken = false;
  assert.equal(decode(entry('a', 1)), 'whole');
});
