import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { openDataDirectory } from './data-directory.js';

let place: string;
before(async () => {
  place = await mkdtemp(path.join(tmpdir(), 'data-'));
});
after(() => rm(place, { recursive: true }));

test('it is made for this user alone, and is fresh until a server wrote its addresses', async () => {
  const directory = path.join(place, 'new', 'data');
  const data = await openDataDirectory(directory);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  assert.equal(data.fresh, true);
  await data.write('server.json', '{}');
  await data.release();
  const again = await openDataDirectory(directory);
  assert.equal(again.fresh, false);
  await again.release();
});

test('a second server is refused, by whatever name it calls the directory, until the first is gone', async () => {
  const directory = path.join(place, 'locked');
  const data = await openDataDirectory(directory);
  const link = path.join(place, 'link');
  await symlink(directory, link);
  for (const name of [directory, link, `${directory}/../locked`]) {
    await assert.rejects(openDataDirectory(name), {
      code: 'failed-precondition',
      message: /^the data directory is in use by another quorate server/,
    });
  }
  await data.release();
  await (await openDataDirectory(directory)).release();
});

test('files are replaced whole, readable by this user alone, without leftovers', async () => {
  const data = await openDataDirectory(path.join(place, 'files'));
  await data.write('admin-token', 'old');
  await data.write('admin-token', 'new');
  const file = path.join(data.path, 'admin-token');
  assert.equal(await readFile(file, 'utf8'), 'new');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(data.path), ['admin-token']);
  await data.release();
});

test('where nothing can be made, although what is above is there, the start ends', async (t) => {
  if (process.platform !== 'linux') return t.skip('there is no /proc');
  for (const directory of ['/proc/quorate', '/proc/quorate/deep/data']) {
    await assert.rejects(openDataDirectory(directory), {
      code: 'storage-failure',
      message: `the data directory ${directory} cannot be used (ENOENT): choose another with --data DIR`,
    });
  }
});

test('a place that cannot be a directory is named', async () => {
  const file = path.join(place, 'a-file');
  await writeFile(file, '');
  await assert.rejects(openDataDirectory(path.join(file, 'data')), {
    code: 'storage-failure',
    message: /a-file\/data cannot be used \(ENOTDIR: a file is in its place\)/,
  });
  await assert.rejects(openDataDirectory(file), {
    code: 'storage-failure',
    message: /a-file cannot be used \(EEXIST: a file is in its place\)/,
  });
});
