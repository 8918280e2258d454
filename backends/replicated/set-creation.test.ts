import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { awaited } from '../contract/testing/until.js';
import { silentLogger } from '../coordination/test-environment.js';
import { obeyEvictions } from './evictions.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { ComingBack } from './testing/coming-back.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';

let set: ReplicaSet;
let backend: ReplicatedBackend;
beforeEach(async () => {
  set = await openReplicaSet();
  ({ backend } = await set.frontEnd());
});
afterEach(async () => {
  await set.close();
});

function createRepository(name: string, through = backend): Promise<Repository> {
  return through.repositories.create({
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
}

test('a repository is made in the moment in which nodes come back', async () => {
  const coming = new ComingBack();
  const { backend: through } = await set.frontEnd({ clock: coming.clock });
  for (const store of set.stores) store.down = true;
  const making = createRepository('team/other', through);
  await coming.back(set.stores, 1);
  const made = await awaited('the repository', making);
  const read = await backend.read(made, new AbortController().signal);
  assert.equal(read.snapshot.refs.length, 0);
  read.release();
});

test('a set with too few nodes is refused with numbers', async () => {
  for (const store of set.stores.slice(1)) store.down = true;
  await assert.rejects(createRepository('small'), /3 storage nodes, and only 1/);
});

test('a store that fails while a repository is made is left out of its set', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  first.interfere = (name, go) =>
    name === 'create' ? Promise.reject(new QuorateError('storage-failure', 'full')) : go();
  const made = await createRepository('other');
  const kv = await set.coordinator.get(keys.repo(made.id));
  const { voters, state } = JSON.parse(new TextDecoder().decode(kv?.value));
  assert.deepEqual(
    [voters.map(({ storeId }: { storeId: string }) => storeId), state],
    [set.stores.slice(1).map(({ storeId }) => storeId), 'active'],
  );
});

test('a store whose answer is lost while a repository is made keeps no files that count for nothing', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  first.interfere = async (name, go) => {
    const result = await go();
    if (name === 'create') throw new QuorateError('unavailable', 'the answer was lost');
    return result;
  };
  const made = await createRepository('other');
  first.interfere = undefined;
  assert.ok(existsSync(first.gitDir(made.id)));
  const { coordinator } = set;
  await obeyEvictions({ coordinator, replica: first.replica, logger: silentLogger });
  assert.ok(!existsSync(first.gitDir(made.id)));
});
