import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { keys } from '../contract/keys.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { readDamages, reportDamage } from './damage.js';
import { markNode } from './node-marks.js';
import { peerSourceOf } from './peers.js';
import { takeStep } from './set-steps.js';
import { readGround } from './set-view.js';
import { until } from '../contract/testing/until.js';

import { ControllerScene } from './testing/controller-scene.js';

let scene: ControllerScene;
beforeEach(async () => {
  scene = await ControllerScene.open();
});
afterEach(() => scene.close());

test('a copy whose refs were changed behind our back is set aside and filled anew', async () => {
  const [damaged] = scene.stores(2);
  assert.ok(damaged !== undefined);
  await damaged.replica.apply(scene.repository.id, 1);
  await scene.damagePack(damaged);
  scene.controller.start();
  await reportDamage(scene.set.coordinator, scene.repository.id, damaged.storeId);
  await until('it votes again', async () => {
    const { epoch } = await scene.record();
    return epoch >= 3 && scene.votersAre(scene.stores(0, 1, 2))();
  });
  await scene.assertSound(scene.stores(0, 1, 2));
  assert.equal(readdirSync(join(damaged.root, 'set-aside')).length, 1);
});

test('a reader that takes the place of a voter is verified before it votes', async () => {
  const [reading] = scene.stores(3);
  assert.ok(reading !== undefined);
  const { storeId, replica } = reading;
  await scene.change({ readers: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  const source = peerSourceOf(
    { ...scene.set, clock: systemClock },
    { id: scene.repository.id, storeId },
  );
  const { signal } = new AbortController();
  await replica.catchUp(scene.repository.id, { atLeast: 1, source, signal });
  await scene.damagePack(reading);
  await markNode(scene.set.coordinator, 'node-0', 'draining');
  scene.controller.start();
  await until('it votes', async () =>
    (await scene.record()).voters.some((voter) => voter.storeId === storeId),
  );
  assert.equal(readdirSync(join(reading.root, 'set-aside')).length, 1);
  await until('the drained one is gone', scene.votersAre(scene.stores(1, 2, 3)));
  await scene.assertSound(scene.stores(1, 2, 3));
  assert.equal(
    await scene.set.coordinator.get(keys.damage(scene.repository.id, storeId)),
    undefined,
  );
});

test('a copy in which damage was found does not become a voter, and a later report outlives a filling', async () => {
  const [learning] = scene.stores(3);
  assert.ok(learning !== undefined);
  const { storeId } = learning;
  const { coordinator } = scene.set;
  const { signal } = new AbortController();
  await scene.change({ learners: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  await reportDamage(coordinator, scene.repository.id, storeId);
  const before = await readGround(coordinator, scene.repository.id);
  assert.ok(before !== undefined);
  assert.equal(await takeStep(scene.stepping, before, { type: 'promote', storeId }, signal), false);
  await reportDamage(coordinator, scene.repository.id, storeId);
  await takeStep(scene.stepping, before, { type: 'fill', storeId, fresh: true }, signal);
  assert.notEqual(await coordinator.get(keys.damage(scene.repository.id, storeId)), undefined);
  const after = await readGround(coordinator, scene.repository.id);
  assert.ok(after !== undefined);
  await takeStep(scene.stepping, after, { type: 'fill', storeId, fresh: true }, signal);
  assert.equal(await takeStep(scene.stepping, after, { type: 'promote', storeId }, signal), true);
});

test('the only voter is relieved of a damaged copy once another has it whole', async () => {
  const { voters } = await scene.record();
  const [only] = voters;
  assert.ok(only !== undefined);
  await scene.change({ voters: [only], learners: voters.slice(1) });
  await reportDamage(scene.set.coordinator, scene.repository.id, only.storeId);
  scene.controller.start();
  await until('all of them vote again', scene.votersAre(scene.stores(0, 1, 2)));
  await scene.assertSound(scene.stores(0, 1, 2));
  const report = keys.damage(scene.repository.id, only.storeId);
  assert.equal(await scene.set.coordinator.get(report), undefined);
});

/** Damages two of the three copies, and waits until all is well again. */
async function healTwoDamaged(): Promise<void> {
  for (const store of scene.stores(1, 2)) {
    await store.replica.apply(scene.repository.id, 1);
    await scene.damagePack(store);
    await reportDamage(scene.set.coordinator, scene.repository.id, store.storeId);
  }
  scene.controller.start();
  await until('three copies vote, and none is damaged', async () => {
    const { voters, learners } = await scene.record();
    const { size } = await readDamages(scene.set.coordinator);
    return voters.length === 3 && learners.length === 0 && size === 0;
  });
}

test('most copies are damaged: another store takes the place of one, and all are sound again', async () => {
  await healTwoDamaged();
  const { voters } = await scene.record();
  const voting = scene.set.stores.filter(({ storeId }) =>
    voters.some((one) => one.storeId === storeId),
  );
  await scene.assertSound(voting);
});

test('most copies are damaged and no other store is there: all are sound again, one after the other', async () => {
  for (const spare of scene.set.stores.slice(3)) spare.down = true;
  await healTwoDamaged();
  await scene.assertSound(scene.stores(0, 1, 2));
});

test('a copy is filled although the first that is asked for it is damaged, and nobody knows', async () => {
  const [first, second] = scene.stores(0, 1);
  assert.ok(first !== undefined && second !== undefined);
  await scene.damagePack(first);
  second.down = true;
  scene.controller.start();
  await until('another store has the copy', async () => {
    const { voters } = await scene.record();
    return voters.some(({ storeId }) => storeId === scene.set.stores[3]?.storeId);
  });
  await scene.assertSound(scene.stores(2, 3));
});

test('what was found in a copy goes with it', async () => {
  const [leaving] = scene.stores(2);
  assert.ok(leaving !== undefined);
  const { storeId } = leaving;
  const { coordinator } = scene.set;
  await reportDamage(coordinator, scene.repository.id, storeId);
  const ground = await readGround(coordinator, scene.repository.id);
  assert.ok(ground !== undefined);
  const { signal } = new AbortController();
  assert.equal(
    await takeStep(scene.stepping, ground, { type: 'remove-voter', storeId }, signal),
    true,
  );
  assert.equal(await coordinator.get(keys.damage(scene.repository.id, storeId)), undefined);
});
