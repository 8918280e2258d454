import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { claimStore } from './store-owner.js';

const [ours, theirs] = ['1'.repeat(32), '2'.repeat(32)];
const id = 'ab'.repeat(16);
const unknown = (): Promise<boolean> => Promise.resolve(false);
const refused = { code: 'failed-precondition', message: /belongs to another cluster/ };

async function store(t: TestContext, repositories: readonly string[] = []): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'quorate-owner-'));
  t.after(() => rm(root, { recursive: true }));
  for (const one of repositories) {
    await mkdir(join(root, 'store', 'repos', one.slice(0, 2), one), { recursive: true });
  }
  return join(root, 'store');
}

test('a new store belongs to the cluster that uses it first', async (t) => {
  const root = await store(t);
  await claimStore(root, ours, unknown);
  await claimStore(root, ours, unknown);
  await assert.rejects(
    claimStore(root, theirs, () => Promise.resolve(true)),
    refused,
  );
});

test('a store of before there were owners is ours when its repositories are', async (t) => {
  const asked: string[] = [];
  const root = await store(t, [id]);
  await claimStore(root, ours, (one) => {
    asked.push(one);
    return Promise.resolve(true);
  });
  assert.deepEqual(asked, [id]);
});

test('a store whose repositories nobody knows is not touched', async (t) => {
  const root = await store(t, [id]);
  await assert.rejects(claimStore(root, ours, unknown), refused);
  assert.deepEqual(await readdir(root), ['repos']);
});
