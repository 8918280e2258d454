import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
