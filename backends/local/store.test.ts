import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { Store } from './store.js';

test('what lies in a store is told page by page, in order, each of it once', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'quorate-store-'));
  t.after(() => rm(root, { recursive: true }));
  const store = await Store.open(root, { bytes: (length) => randomBytes(length) });
  const ids = ['0a', '0b', '3c', 'f0', 'ff'].flatMap((shard) =>
    ['1', '2'].map((rest) => shard + rest.repeat(30)),
  );
  for (const id of ids.toReversed()) await store.makeRepositoryDirectory(id);
  await mkdir(join(root, 'repos', '0a', 'no-repository'));
  for (const count of [1, 3, 100]) {
    const told: string[] = [];
    for (let after = '0'.repeat(32); ;) {
      const page = await store.repositories(after, count);
      told.push(...page.ids);
      if (!page.more) break;
      after = page.ids.at(-1) ?? assert.fail('a page without ids says that there are more');
    }
    assert.deepEqual(told, ids, `${count} at a time`);
  }
});

test('what lies among the repositories, and is called as none, is told apart and in nobody’s way', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'quorate-store-'));
  t.after(() => rm(root, { recursive: true }));
  const open = (): Promise<Store> => Store.open(root, { bytes: (length) => randomBytes(length) });
  const store = await open();
  const ids = ['0a', '3c'].map((shard) => shard + '1'.repeat(30));
  for (const id of ids) {
    await store.makeRepositoryDirectory(id);
    await store.makePoolDirectory(id);
  }
  const elsewhere = `0a/${'f'.repeat(32)}`;
  for (const kind of ['repos', 'pools']) {
    for (const name of ['lost+found', '0b/README', elsewhere]) {
      await mkdir(join(root, kind, name), { recursive: true });
    }
    for (const name of ['0c', 'note.txt', '.DS_Store']) await writeFile(join(root, kind, name), '');
  }
  // A page ends with the shard that the one of another shard's id lies in.
  const first = await store.repositories('0'.repeat(32), 1);
  assert.deepEqual([first.ids, first.more], [ids.slice(0, 1), true]);
  const page = await store.repositories('0'.repeat(32), 100);
  assert.deepEqual(page.ids, ids);
  const strays = ['.DS_Store', elsewhere, '0b/README', '0c', 'lost+found', 'note.txt'];
  assert.deepEqual(page.strays.toSorted(), strays);
  assert.deepEqual(await (await open()).pools(), ids);
});

test('what a removal that failed half-way left in the trash is in the way of none to come', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'quorate-store-'));
  t.after(() => rm(root, { recursive: true }));
  const store = await Store.open(root, { bytes: (length) => randomBytes(length) });
  const id = 'a'.repeat(32);
  const key = { repositoryId: id, pushId: 'a-push-of-it', attempt: 1 };
  const quarantine = store.quarantineDirectory(key);
  for (const name of [id, `pool-${id}`, basename(quarantine)]) {
    await mkdir(join(store.trashDirectory, name, 'left'), { recursive: true });
  }
  for (const directory of [store.repositoryDirectory(id), store.poolDirectory(id), quarantine]) {
    await mkdir(join(directory, 'git'), { recursive: true });
  }
  await store.destroy(id);
  await store.destroyPool(id);
  await store.dropQuarantine(key);
  await store.close();
  const page = await store.repositories('0'.repeat(32), 1);
  assert.deepEqual([page.ids, await store.pools(), await store.quarantines()], [[], [], []]);
  assert.deepEqual(await readdir(store.trashDirectory), []);
});
