import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { packOf, pushRequest, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { damageGone, reportDamage } from './damage.js';
import { KnownDamages } from './known-damages.js';
import { openReplicaSet, unhurried } from './testing/replica-set.js';

test('a copy that was reported damaged is read when nobody else is left, until it is healed', async (t) => {
  const set = await openReplicaSet();
  t.after(() => set.close());
  const { coordinator, stores } = set;
  const damages = new KnownDamages({ coordinator, clock: systemClock, logger: silentLogger });
  const { backend } = await set.frontEnd({ damages, clock: unhurried });
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const commands = [create('refs/heads/main', await set.commit('one'))] as const;
  const pack = await packOf(set.source, [commands[0].newOid], []);
  await backend.push(repository, pushRequest(commands, { pack }));
  let readFrom: string[] = [];
  for (const store of stores) {
    store.interfere = (call, go) => {
      if (call === 'read') readFrom.push(store.storeId);
      return go();
    };
  }
  const read = async (): Promise<readonly string[]> => {
    readFrom = [];
    (await backend.read(repository, new AbortController().signal)).release();
    return readFrom;
  };
  const [first, second, third] = stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  assert.deepEqual(await read(), [first.storeId]);
  await reportDamage(coordinator, repository.id, first.storeId);
  await until('it hears of it', () => damages.has(repository.id, first.storeId));
  assert.deepEqual(await read(), [second.storeId]);
  second.down = true;
  assert.deepEqual(await read(), [third.storeId]);
  third.down = true;
  assert.deepEqual(await read(), [first.storeId], 'better than nothing');
  const success = [damageGone(repository.id, first.storeId)];
  await coordinator.transaction({ compares: [], success, failure: [] });
  await until('it hears of it', () => !damages.has(repository.id, first.storeId));
  second.down = false;
  assert.deepEqual(await read(), [first.storeId]);
  assert.equal(await coordinator.get(keys.damage(repository.id, first.storeId)), undefined);
});

test('what was reported before the start is known after it', async (t) => {
  const set = await openReplicaSet(1);
  t.after(() => set.close());
  const { coordinator } = set;
  const key = keys.damage('r', 's');
  const success = [{ type: 'put' as const, key, value: Buffer.from('{}') }];
  await coordinator.transaction({ compares: [], success, failure: [] });
  const damages = new KnownDamages({ coordinator, clock: systemClock, logger: silentLogger });
  t.after(() => damages.close());
  damages.start();
  await until('it is known', () => damages.has('r', 's'));
  assert.equal(damages.has('r', 'other'), false);
});
