/** A node that is started with an earlier version again, or with a later one, finds what the other wrote on its disk. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { encodeCheckedLine } from './checked-line.js';
import { readPreparedMark } from './quarantine.js';
import { readState } from './state-file.js';

const state = { objectFormat: 'sha1', generation: 3, digest: 'd' } as const;
const key = { repositoryId: 'a'.repeat(32), pushId: 'push', attempt: 1 };
const mark = { push: key, basis: 2, lockRevisions: [{ key: 'locks/x', createRevision: 7 }] };

async function directory(t: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'quorate-later-'));
  t.after(() => rm(root, { recursive: true }));
  return root;
}

test('a marker with fields of a later version is whole', async (t) => {
  const at = await directory(t);
  await writeFile(join(at, 'state'), encodeCheckedLine({ ...state, later: { a: 1 } }));
  assert.deepEqual(await readState(at), state);
});

test('an intent with fields of a later version is finished', async (t) => {
  const at = await directory(t);
  const entry = { generation: 4, pushId: 'push', updates: [], digest: 'e' };
  const applying = { entries: [{ ...entry, later: 1 }], quarantines: [{ ...key, later: 1 }] };
  await writeFile(join(at, 'state'), encodeCheckedLine(state));
  await writeFile(join(at, 'intent'), encodeCheckedLine({ ...state, applying, later: 1 }));
  const expected = { entries: [entry], quarantines: [key] };
  assert.deepEqual(await readState(at), { ...state, applying: expected });
});

test('a quarantine whose mark has fields of a later version is prepared', async (t) => {
  const at = await directory(t);
  const store = { quarantineDirectory: () => join(at, 'quarantine') };
  await mkdir(store.quarantineDirectory());
  const path = join(store.quarantineDirectory(), 'prepared');
  await writeFile(path, encodeCheckedLine({ ...mark, later: 'x' }));
  assert.deepEqual(await readPreparedMark(store, key), mark);
});

test('a checksum of which a bit turned over is no field of a later version', async (t) => {
  const at = await directory(t);
  const text = encodeCheckedLine(state).replace('"checksum"', '"chebksum"');
  await writeFile(join(at, 'state'), text);
  await assert.rejects(readState(at), { code: 'data-corrupt' });
});
