/** A disk that is put back to an older copy: the log tells nothing of it, and people are to hear of it all the same. */
import assert from 'node:assert/strict';
import { cp, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Meter } from '../contract/environment.js';
import { until } from '../contract/testing/until.js';
import { Deferred } from '../git/spawner/deferred.js';
import { packOf, pushRequest, silentMeter, zeroOid } from '../local/testing/local-fixture.js';
import { CopiesBehind } from './copies-behind.js';
import { readRepairs } from './leadership.js';
import type { SetView } from './reconcile.js';
import { plainRecord } from './testing/plain-record.js';
import { openReplicaSet } from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

const main = 'refs/heads/main';

test('a copy of an older disk is told of by node from when copies are compared until it is filled', async (t) => {
  const set = await openReplicaSet();
  t.after(() => set.close());
  const { coordinator } = set;
  const { backend, locks, lease } = await set.frontEnd();
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const { id } = repository;
  let tip: string | undefined;
  const push = async (): Promise<void> => {
    const newOid = await set.commit(`after ${tip}`, ...(tip === undefined ? [] : [tip]));
    const pack = await packOf(set.source, [newOid], tip === undefined ? [] : [tip]);
    const command = { ref: main, oldOid: tip ?? zeroOid, newOid };
    await backend.push(repository, pushRequest([command], { pack }));
    tip = newOid;
    await until('all have it, and the log is empty', async () => {
      const rangeEnd = prefixEnd(keys.log(id));
      return (await coordinator.range(keys.log(id), { rangeEnd })).entries.length === 0;
    });
  };
  await push();
  const [store] = set.stores;
  assert.ok(store !== undefined);
  const [copy, older] = [dirname(store.gitDir(id)), join(store.root, 'older')];
  await cp(copy, older, { recursive: true });
  await push();
  await rm(copy, { recursive: true });
  await cp(older, copy, { recursive: true });
  await store.reopen();
  assert.equal((await store.replica.state(id))?.generation, 1);

  const filling = new Deferred<void>();
  store.interfere = async (name, go) => {
    if (name === 'catchUp') await filling.promise;
    return go();
  };
  const gauges = new Map<string, () => number>();
  const meter: Meter = { ...silentMeter, gauge: (name, _labels, read) => gauges.set(name, read) };
  const controller = keeperOf(set, { lease, locks }, { meter, settings: { compareEveryMs: 500 } });
  t.after(async () => {
    filling.resolve();
    await controller.close();
  });
  controller.start();
  const told = async (): Promise<object> => (await readRepairs(coordinator)).behind;
  await until('it is told of', async () => Object.keys(await told()).length > 0);
  assert.deepEqual([await told(), gauges.get('copies_behind')?.()], [{ 'node-0': 1 }, 1]);
  filling.resolve();
  await until('it is told of no more', async () => Object.keys(await told()).length === 0);
  assert.deepEqual(
    [(await store.replica.state(id))?.generation, gauges.get('copies_behind')?.()],
    [2, 0],
  );
});

function view(...behind: readonly string[]): SetView {
  const voters = ['a', 'b', 'c'].map((nodeId) => ({ nodeId, storeId: nodeId, joinedEpoch: 1 }));
  const stores = voters.map(({ storeId }) => {
    const generation = behind.includes(storeId) ? 1 : 9;
    const known = { alive: true, awayMs: 0, leaving: false };
    return [storeId, { ...known, state: { generation, digest: 'd' } }] as const;
  });
  return {
    record: { ...plainRecord, voters },
    wantedReaders: 0,
    head: { generation: 9, digest: 'd' },
    stores: new Map(stores),
    logLength: 2,
  };
}

test('copies are counted once each, as they were seen last, until they are filled or gone', () => {
  const behind = new CopiesBehind();
  behind.see('one', view('a', 'b'));
  behind.see('two', view('a'));
  assert.deepEqual([behind.byNode, behind.count], [{ a: 2, b: 1 }, 3]);
  behind.see('one', view('a'));
  behind.forget('two');
  assert.deepEqual([behind.byNode, behind.count], [{ a: 1 }, 1]);
  behind.see('one', view());
  assert.deepEqual([behind.byNode, [...behind.repositories]], [{}, []]);
});
