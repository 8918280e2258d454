import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { readStoreShape } from './store-shape.js';

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'shape-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A repository with so many packs of one commit, one tree and one blob each. */
function packed(directory: string, packs: number, format: 'sha1' | 'sha256'): string {
  const git = (args: string[], input = ''): string =>
    execFileSync('git', ['-C', directory, ...args], { input })
      .toString()
      .trim();
  git(['init', '-q', '--bare', `--object-format=${format}`]);
  for (let pack = 0; pack < packs; pack += 1) {
    const blob = git(['hash-object', '-w', '--stdin'], `content ${pack}`);
    const tree = git(['mktree'], `100644 blob ${blob}\tfile\n`);
    const person = 'user.name=T';
    const mail = 'user.email=t@example.org';
    git(['-c', person, '-c', mail, 'commit-tree', tree, '-m', 'c']);
    const oids = git(['cat-file', '--batch-all-objects', '--batch-check=%(objectname)']);
    git(['pack-objects', '-q', 'objects/pack/pack'], `${oids}\n`);
    git(['prune-packed', '-q']);
  }
  return join(directory, 'objects');
}

test('packs are counted, and their objects by the sizes of the indexes', async (t) => {
  for (const format of ['sha1', 'sha256'] as const) {
    const objects = packed(await place(t), 2, format);
    // The second pack holds the objects of the first as well: 3, then 6.
    assert.deepEqual(await readStoreShape(objects, format), { objectCount: 9, packCount: 2 });
  }
});

test('a repository that borrows objects counts those of its alternate', async (t) => {
  const pool = packed(await place(t), 1, 'sha1');
  const objects = join(await place(t), 'objects');
  await mkdir(join(objects, 'info'), { recursive: true });
  await writeFile(join(objects, 'info', 'alternates'), `${pool}\n`);
  assert.deepEqual(await readStoreShape(objects, 'sha1'), { objectCount: 3, packCount: 1 });
});

test('alternates in a circle come to an end, and what is absent counts nothing', async (t) => {
  const objects = join(await place(t), 'objects');
  assert.deepEqual(await readStoreShape(objects, 'sha1'), { objectCount: 0, packCount: 0 });
  await mkdir(join(objects, 'info'), { recursive: true });
  await writeFile(join(objects, 'info', 'alternates'), `${objects}\n`);
  assert.deepEqual(await readStoreShape(objects, 'sha1'), { objectCount: 0, packCount: 0 });
});
