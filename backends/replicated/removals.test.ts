import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { obeyEvictions } from './evictions.js';
import { markNode } from './node-marks.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

let set: ReplicaSet;
let backend: ReplicatedBackend;
let repository: Repository;

beforeEach(async () => {
  set = await openReplicaSet(3);
  ({ backend } = await set.frontEnd());
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
});
afterEach(() => set.close());

function lost(): TestStore {
  const store = set.stores[2];
  assert.ok(store !== undefined);
  return store;
}

async function tombstones(): Promise<number> {
  const { entries } = await set.coordinator.range(keys.repos, { rangeEnd: prefixEnd(keys.repos) });
  return entries.length;
}

/** Deletes the repository, and sweeps as a server does at its start. */
async function deleted(): Promise<void> {
  await backend.repositories.delete(repository.id);
  await set.frontEnd();
}

test('a tombstone waits for a store that may come back', async () => {
  lost().down = true;
  await deleted();
  assert.equal(await tombstones(), 1);
  lost().down = false;
  await set.frontEnd();
  assert.equal(await tombstones(), 0);
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('a tombstone does not wait for a node that was removed, and its store is told if it comes back', async () => {
  lost().down = true;
  await markNode(set.coordinator, 'node-2', 'removed');
  await deleted();
  assert.equal(await tombstones(), 0);
  assert.ok(existsSync(lost().gitDir(repository.id)));
  const { replica } = lost();
  await obeyEvictions({ coordinator: set.coordinator, replica, logger: silentLogger });
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('a tombstone does not wait for a store in whose place there is another', async () => {
  lost().down = true;
  const alive = set.replicas.nodes();
  const another = alive.slice(0, 1).map((node) => ({ ...node, nodeId: 'node-2', storeId: 'new' }));
  set.replicas.nodes = () => [...alive, ...another];
  await deleted();
  assert.equal(await tombstones(), 0);
});

test('a removed node that answers is asked all the same', async () => {
  await markNode(set.coordinator, 'node-2', 'removed');
  await deleted();
  assert.equal(await tombstones(), 0);
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});
