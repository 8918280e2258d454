import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import { packOf, pushRequest, runGit, zeroOid } from '../local/testing/local-fixture.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { away, openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';
import { until } from '../contract/testing/until.js';

// Forks on three stores: each has a pool of its own, and stores that were away come back to what is right.

const main = 'refs/heads/main';
const access = { public: false, grants: {} };

let set: ReplicaSet;
let backend: ReplicatedBackend;
let source: Repository;
beforeEach(async () => {
  set = await openReplicaSet();
  ({ backend } = await set.frontEnd());
  source = await backend.repositories.create({
    name: 'source',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access,
  });
  await push(source);
});
afterEach(async () => {
  await set.close();
});

async function push(repository: Repository): Promise<string> {
  const read = await backend.read(repository, new AbortController().signal);
  const oldOid = read.snapshot.find(main)?.oid ?? zeroOid;
  read.release();
  const have = oldOid === zeroOid ? [] : [oldOid];
  const newOid = await set.commit(`after ${oldOid}`, ...have);
  const pack = await packOf(set.source, [newOid], have);
  const { refs } = await backend.push(
    repository,
    pushRequest([{ ref: main, oldOid, newOid }], { pack }),
  );
  assert.equal(refs[0]?.status, 'ok');
  return newOid;
}

const fork = (name: string): Promise<Repository> =>
  backend.repositories.fork(source, { name, access, visible: allRefs });

async function votersOf({ id }: Repository): Promise<readonly string[]> {
  const kv = await set.coordinator.get(keys.repo(id));
  const { voters } = JSON.parse(new TextDecoder().decode(kv?.value));
  return voters.map(({ storeId }: { storeId: string }) => storeId);
}

function poolCount({ root }: TestStore): number {
  const pools = join(root, 'pools');
  return readdirSync(pools).flatMap((shard) => readdirSync(join(pools, shard))).length;
}

const borrows = (store: TestStore, { id }: Repository): boolean =>
  existsSync(join(store.gitDir(id), 'objects/info/alternates'));

async function assertWhole(store: TestStore, repository: Repository, tip: string): Promise<void> {
  const head = await set.coordinator.get(keys.head(repository.id));
  const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
  await store.replica.apply(repository.id, generation);
  assert.deepEqual(await store.replica.state(repository.id), { generation, digest });
  const gitDir = store.gitDir(repository.id);
  assert.equal(await runGit(gitDir, ['fsck', '--full', '--no-dangling']), '');
  assert.equal((await runGit(gitDir, ['rev-parse', main])).trim(), tip);
}

async function poolOf({ id }: Repository): Promise<string | undefined> {
  const kv = await set.coordinator.get(keys.repo(id));
  return JSON.parse(new TextDecoder().decode(kv?.value)).pool;
}

async function poolKeys(): Promise<number> {
  const { entries } = await set.coordinator.range('pool', { rangeEnd: prefixEnd('pool') });
  return entries.length;
}

test('a fork is on the stores of its source, and borrows on each', async () => {
  const made = await fork('made');
  const tip = await push(made);
  const ahead = await push(source);
  assert.deepEqual(await votersOf(made), await votersOf(source));
  for (const store of set.stores) {
    await assertWhole(store, made, tip);
    await assertWhole(store, source, ahead);
    assert.ok(borrows(store, made) && borrows(store, source));
  }
  assert.equal((await backend.repositories.stats(made.id)).sharedBy, 2);
  await backend.repositories.delete(source.id);
  await until('the pools are gone', async () => (await poolKeys()) === 0);
  for (const store of set.stores) {
    assert.equal(poolCount(store), 0);
    await assertWhole(store, made, tip);
  }
});

test('a store that cannot be reached is left out of the fork; one that fails half-way, too', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  third.down = true;
  const made = await fork('made');
  assert.deepEqual(await votersOf(made), [first.storeId, second.storeId]);
  const tip = await push(made);
  await assertWhole(first, made, tip);
  third.down = false;
  // The answer is lost: the files are there, and count for nothing.
  third.interfere = async (call, go) => {
    const result = await go();
    return call === 'fork' ? away() : result;
  };
  const other = await fork('other');
  third.interfere = undefined;
  assert.deepEqual(await votersOf(other), [first.storeId, second.storeId]);
  assert.ok(borrows(third, other));
  const before = await push(source);
  // The pool goes from the third store as well, and nothing there loses what it may need again.
  for (const { id } of [made, source]) await backend.repositories.delete(id);
  await until('the pools are gone', async () => (await poolKeys()) === 0);
  assert.ok(!borrows(third, other));
  assert.equal(await runGit(third.gitDir(other.id), ['fsck', '--full', '--no-dangling']), '');
  assert.notEqual(before, '');
});

test('without a majority of stores there is no fork, and nothing of it stays', async () => {
  for (const store of set.stores.slice(1)) {
    store.interfere = (call, go) => (call === 'fork' ? away() : go());
  }
  await assert.rejects(fork('made'), { code: 'unavailable' });
  for (const store of set.stores) store.interfere = undefined;
  assert.equal(await backend.repositories.get('made'), undefined);
  await until('the pool is given up', async () => (await poolKeys()) === 0);
  const tip = await push(source);
  for (const store of set.stores) {
    assert.equal(poolCount(store), 0);
    await assertWhole(store, source, tip);
  }
});

test('a pool waits for a store that is away, and goes when it is back', async () => {
  const made = await fork('made');
  const tip = await push(made);
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  await backend.repositories.delete(source.id);
  const { backend: again } = await set.frontEnd();
  assert.equal((await backend.repositories.get('source')) ?? 'gone', 'gone');
  assert.ok((await poolKeys()) > 0);
  assert.ok(set.stores.every((store) => poolCount(store) === 1));
  third.down = false;
  await again.close(1000);
  await set.frontEnd();
  await until('the pools are gone', async () => (await poolKeys()) === 0);
  for (const store of set.stores) {
    assert.equal(poolCount(store), 0);
    await assertWhole(store, made, tip);
  }
});

test('a copy that is put aside is whole by itself, whatever becomes of the pool', async () => {
  const made = await fork('made');
  const tip = await push(made);
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  await assertWhole(third, made, tip);
  await third.replica.setAside(made.id);
  const [copy = ''] = readdirSync(join(third.root, 'set-aside'));
  const aside = join(third.root, 'set-aside', copy, 'git');
  await third.replica.destroyPool((await poolOf(made)) ?? '');
  assert.equal(poolCount(third), 0);
  assert.equal(await runGit(aside, ['fsck', '--full', '--no-dangling']), '');
  assert.equal((await runGit(aside, ['rev-parse', main])).trim(), tip);
});
