import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  connectionsWithin,
  conversationsWithin,
  maxOpenFiles,
  parseOpenFiles,
} from './open-files.js';

test('the soft limit is read', () => {
  const limits =
    'Limit                     Soft Limit           Hard Limit           Units     \n' +
    'Max processes             95000                95000                processes \n' +
    'Max open files            1024                 524288               files     \n';
  assert.equal(parseOpenFiles(limits), 1024);
  assert.equal(parseOpenFiles('Max open files            unlimited  unlimited  files'), Infinity);
  assert.equal(parseOpenFiles(''), Infinity);
  assert.ok(maxOpenFiles() > 10);
});

test('two listeners together leave a quarter of the files', () => {
  assert.equal(connectionsWithin(524_288, 10_000), 10_000);
  assert.equal(connectionsWithin(Infinity, 10_000), 10_000);
  assert.equal(connectionsWithin(4096, 10_000), 1536);
  assert.equal(connectionsWithin(1, 10_000), 1);
});

test('as many gits are kept for repositories as there are files for', () => {
  assert.equal(conversationsWithin(1024), 256);
  assert.equal(conversationsWithin(8_192), 512);
  assert.equal(conversationsWithin(524_288), 1_024);
  assert.equal(conversationsWithin(Infinity), 1_024);
});
