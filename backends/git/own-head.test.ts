import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { makeOwnHead } from './environment.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'quorate-heads-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test('a git directory with a HEAD alone has all else from the other', async () => {
  const made = await makeOwnHead({ headsDirectory: directory }, '/repositories/one/git');
  assert.deepEqual(readdirSync(made).toSorted(), ['HEAD', 'commondir']);
  assert.equal(readFileSync(join(made, 'commondir'), 'utf8'), '/repositories/one/git\n');
});

test('one that cannot be made whole, on a full disk say, leaves nothing', async () => {
  // Linux takes no path of more bytes than this: HEAD is made, and `commondir` is not.
  const longestPath = 4095;
  let deep = directory;
  const length = longestPath - '/of-123456/commondi'.length;
  while (deep.length < length) deep += `/${'d'.repeat(Math.min(200, length - deep.length - 1))}`;
  mkdirSync(deep, { recursive: true });
  await assert.rejects(makeOwnHead({ headsDirectory: deep }, '/repositories/one/git'), {
    code: 'ENAMETOOLONG',
  });
  assert.deepEqual(readdirSync(deep), []);
});
