import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildPack, sealPack } from '../testing/build-pack.js';
import {
  declaredObjectCount,
  entryEndsAt,
  entryHeader,
  isEmptyPack,
  readPackIndex,
} from './pack-format.js';

const content = Buffer.from('hello, hello, hello');
const pack = buildPack([{ type: 'blob', content }]);

test('headers of packs and entries', () => {
  assert.equal(declaredObjectCount(pack), 1);
  assert.equal(declaredObjectCount(pack.subarray(0, 11)), undefined);
  assert.equal(declaredObjectCount(Buffer.from('no pack at all')), undefined);
  assert.deepEqual(entryHeader(pack, 12), {
    kind: 'blob',
    sizeBytes: content.length,
    dataOffset: 14,
  });
  assert.equal(entryHeader(pack, pack.length), undefined);
  assert.equal(entryHeader(Buffer.from([0x90]), 0), undefined);
  assert.equal(entryHeader(Buffer.from([0x50]), 0), undefined);
  assert.equal(entryHeader(Buffer.alloc(20, 0xbf), 0), undefined);
});

test('the end of an entry', () => {
  const end = pack.length - 20;
  assert.ok(entryEndsAt(pack, 12, end, 1000));
  assert.ok(!entryEndsAt(pack, 12, end - 1, 1000));
  assert.ok(!entryEndsAt(pack, 12, end, content.length - 1));
  const hiding = sealPack(Buffer.concat([pack.subarray(0, end), Buffer.from('garbage')]));
  assert.ok(!entryEndsAt(hiding, 12, hiding.length - 20, 1000));
});

test('empty packs', () => {
  assert.ok(isEmptyPack(buildPack([]), 'sha1'));
  assert.ok(!isEmptyPack(buildPack([]), 'sha256'));
  assert.ok(!isEmptyPack(pack, 'sha1'));
  const damaged = Buffer.from(buildPack([]));
  damaged[31] = (damaged[31] ?? 0) ^ 1;
  assert.ok(!isEmptyPack(damaged, 'sha1'));
});

test('an index that is none', () => {
  assert.equal(readPackIndex(Buffer.alloc(2000)), undefined);
  assert.equal(readPackIndex(Buffer.alloc(10)), undefined);
});
