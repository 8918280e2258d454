/** A repository that is pushed to without a pause gets its copies all the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { packOf, pushRequest, zeroOid } from '../local/testing/local-fixture.js';
import { markNode } from './node-marks.js';
import { decodeRepository } from './records.js';
import { openReplicaSet, unhurried } from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

test('a copy becomes a voter though a push comes whenever it has been filled', async (t) => {
  const set = await openReplicaSet(4);
  t.after(() => set.close());
  const { coordinator } = set;
  const { backend, locks, lease } = await set.frontEnd({ clock: unhurried });
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const { id } = repository;
  const newOid = await set.commit('one');
  const pack = await packOf(set.source, [newOid], []);
  let pushed = 0;
  const push = async (): Promise<void> => {
    const command = { ref: `refs/heads/b${pushed++}`, oldOid: zeroOid, newOid };
    await backend.push(repository, pushRequest([command], { pack }));
  };
  await push();
  const newcomer = set.stores[3];
  assert.ok(newcomer !== undefined);
  let fills = 0;
  newcomer.interfere = async (name, go) => {
    const done = await go();
    if (name !== 'catchUp') return done;
    const locked = await coordinator.get(keys.exclusiveLock(id));
    // Nobody can push while the set changes.
    if (locked !== undefined) return done;
    fills += 1;
    // Told below; without an end the test would not have one.
    if (fills <= 5) await push();
    return done;
  };
  const controller = keeperOf(set, { lease, locks }, { settings: { maxLog: 10_000 } });
  t.after(() => controller.close());
  controller.start();
  await markNode(coordinator, 'node-0', 'draining');
  await until('it has moved', async () => {
    const kv = await coordinator.get(keys.repo(id));
    assert.ok(kv !== undefined);
    const { voters, learners } = decodeRepository(kv);
    return learners.length === 0 && voters.every(({ nodeId }) => nodeId !== 'node-0');
  });
  assert.equal(fills, 1, 'what came while it was filled comes with the lock');
  const head = await coordinator.get(keys.head(id));
  const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
  assert.deepEqual(await newcomer.replica.state(id), { generation, digest });
});
