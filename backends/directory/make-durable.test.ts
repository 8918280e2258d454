import assert from 'node:assert/strict';
import promises, { type FileHandle, mkdir, mkdtemp, rm, utimes } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, mock, test } from 'node:test';
import { makeDurable } from './make-durable.js';

let gitDir: string;
const synced: string[] = [];

before(async () => {
  gitDir = await mkdtemp(join(tmpdir(), 'quorate-durable-'));
  for (const path of [
    'objects/pack',
    'objects/aa',
    'objects/bb',
    'objects/info',
    'refs/heads/a/b',
  ]) {
    await mkdir(join(gitDir, path), { recursive: true });
  }
  await utimes(join(gitDir, 'objects/bb'), 1_000, 1_000);
  const { open } = promises;
  mock.method(promises, 'open', async (path: string, flags: string): Promise<FileHandle> => {
    const handle = await open(path, flags);
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      synced.push(relative(gitDir, path));
      return sync();
    };
    return handle;
  });
  syncBuiltinESMExports();
});
after(async () => {
  mock.restoreAll();
  syncBuiltinESMExports();
  await rm(gitDir, { recursive: true });
});

test('every directory that may have a new name in it is synced, up to the repository itself', async () => {
  const refs = ['refs/heads/a/b/c', 'refs/heads/main', 'refs/gone/x'];
  await makeDurable({ gitDir, refs, sinceMs: Date.now() });
  assert.deepEqual(synced.toSorted(), [
    '',
    'objects',
    'objects/aa',
    'objects/pack',
    'refs',
    'refs/heads',
    'refs/heads/a',
    'refs/heads/a/b',
  ]);
});

test('a push that changed nothing costs nothing', async () => {
  synced.length = 0;
  await makeDurable({ gitDir, refs: [], sinceMs: 0 });
  assert.deepEqual(synced, []);
});
