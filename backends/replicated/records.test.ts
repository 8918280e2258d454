import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KeyValue } from '../contract/coordinator.js';
import {
  decodeHead,
  decodeLogEntry,
  decodeOutbox,
  decodePool,
  decodeRepository,
  decodeRepositoryEvent,
  encodeRecord,
  encodeRepository,
  rememberingDecoder,
} from './records.js';
import { plainRecord } from './testing/plain-record.js';

function entry(key: string, modRevision: number, value: Uint8Array = new Uint8Array()): KeyValue {
  return { key, value, createRevision: 1, modRevision, version: 1 };
}

const later = { later: { a: [1] } };
const voter = { nodeId: 'n', storeId: 's', joinedEpoch: 1 };

test('what a later version put into the record of a repository is no damage, and stays when it is changed here', () => {
  const stored = {
    ...plainRecord,
    name: 'team/app',
    settings: { 'later.setting': 'on' },
    access: { ...plainRecord.access, ...later },
    voters: [{ ...voter, ...later }],
    ...later,
  };
  const record = decodeRepository(entry('repos/id', 1, encodeRecord(stored)));
  assert.deepEqual([record.id, record.name], ['id', 'team/app']);
  const changed = encodeRepository({ ...record, name: 'team/new', epoch: 2 });
  assert.deepEqual(JSON.parse(new TextDecoder().decode(changed)), {
    ...stored,
    name: 'team/new',
    epoch: 2,
  });
});

test('nor is what it put into other records of repositories', () => {
  const head = { generation: 1, digest: 'd' };
  const push = { pushId: 'p', prepared: ['s'], actor: 'ada', atMs: 1 };
  const event = { repositoryId: 'r', name: 'team/app', epoch: 1, actor: 'ada', atMs: 1 };
  const read = (record: object): KeyValue => entry('k', 1, encodeRecord({ ...record, ...later }));
  assert.deepEqual(decodeHead(read(head)), head);
  assert.deepEqual(decodeOutbox(read({ generation: 1 })), { generation: 1 });
  const logged = { ...head, ...push, updates: [], after: head };
  assert.deepEqual(decodeLogEntry(read({ ...logged, after: { ...head, ...later } })), logged);
  const told = { ...event, change: { action: 'created' } };
  assert.deepEqual(decodeRepositoryEvent(read(told)), told);
  assert.equal(decodePool(read({ state: 'active', voters: [], createdAtMs: 1 })).state, 'active');
});

test('a word of a later version, where only some are known, is not passed over', () => {
  const stored = encodeRecord({ ...plainRecord, name: 'team/app', state: 'archived' });
  assert.throws(() => decodeRepository(entry('repos/id', 1, stored)), { code: 'data-corrupt' });
});

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
