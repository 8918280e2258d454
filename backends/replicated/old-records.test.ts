import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PeerSource } from '../contract/replica.js';
import { packOf, pushRequest } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { away, openReplicaSet } from './testing/replica-set.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

test('an eventual read by an old record goes past a copy that is only being begun', async (t) => {
  const set = await openReplicaSet();
  t.after(() => set.close());
  const { backend } = await set.frontEnd();
  const repository = await backend.repositories.create({
    name: 'team/ci',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: { 'replication.readConsistency': 'eventual' },
    access: { public: false, grants: {} },
  });
  const { id } = repository;
  const one = await set.commit('one');
  const pack = await packOf(set.source, [one], []);
  await backend.push(repository, pushRequest([create(main, one)], { pack }));
  for (const { replica } of set.stores) await replica.apply(id, 1);
  let asked = 0;
  for (const { replica } of set.stores.slice(0, 2)) {
    await replica.destroy(id);
    let exports = 0;
    // Gone when the copy is begun, before it has sent anything for it.
    const leaving: PeerSource = (have, atLeast) =>
      exports++ === 0
        ? (set.stores[2]?.replica.export(id, { have, atLeast, signal }) ?? away())
        : away();
    await assert.rejects(replica.catchUp(id, { atLeast: 1, source: leaving, signal }));
  }
  for (const store of set.stores) {
    store.interfere = (name, go) => {
      if (name === 'read') asked++;
      return go();
    };
  }
  const read = await backend.read(repository, signal);
  t.after(() => read.release());
  assert.deepEqual([asked, read.snapshot.find(main)?.oid], [3, one]);
  const [size] = await read.objectSizes([one]);
  assert.ok(size !== undefined);
});
