import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { lacksPushes, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Voter } from './records.js';
import { LostScene } from './testing/lost-set.js';
import { away } from './testing/replica-set.js';

const main = 'refs/heads/main';
let scene: LostScene;
beforeEach(async () => {
  scene = await LostScene.open();
});
afterEach(() => scene.close());

const namesOf = (members: readonly Voter[] | undefined): readonly string[] =>
  (members ?? []).map(({ nodeId }) => nodeId);

test('a reader that has more than the voters that are left is gone on from; others stay readers', async () => {
  await scene.everywhere(1, scene.set.stores.slice(0, 3));
  await scene.addReaders(3);
  const [survivor, behind] = [scene.store(3), scene.store(0)];
  behind.down = true;
  const two = await scene.set.commit('two', scene.one);
  await scene.push(main, scene.one, two);
  await scene.everywhere(2, [scene.store(1), scene.store(2), survivor]);
  behind.down = false;
  behind.interfere = (name, go) => (name === 'apply' ? away() : go());
  scene.lose(scene.store(1), scene.store(2));
  const gone = ['node-1', 'node-2'];
  const dry = await scene.recover({ gone });
  assert.deepEqual(dry.survivor, { nodeId: 'node-3', generation: 2 });
  const report = await scene.recover({ accept: 2, gone });
  assert.deepEqual([report.recovered, report.overruled], [2, []]);
  const { voters, learners, readers } = await scene.record();
  assert.deepEqual([voters, learners, readers].map(namesOf), [['node-3'], ['node-0'], []]);
  behind.interfere = undefined;
  await scene.push(main, two, await scene.set.commit('three', two));
  assert.equal(await scene.head(), 3);
});

test('a reader that may come back with more than what is left is waited for, and is not otherwise', async () => {
  await scene.everywhere(1, scene.set.stores.slice(0, 3));
  await scene.addReaders(3);
  const [behind, reader] = [scene.store(0), scene.store(3)];
  behind.down = true;
  await scene.push(main, scene.one, await scene.set.commit('two', scene.one));
  await scene.everywhere(2, [scene.store(1), scene.store(2), reader]);
  behind.down = false;
  const lacking = new QuorateError('unavailable', 'nobody sends it', { details: lacksPushes });
  behind.interfere = (name, go) => (name === 'apply' ? Promise.reject(lacking) : go());
  scene.lose(scene.store(1), scene.store(2), reader);
  const gone = ['node-1', 'node-2'];
  const waits = (await scene.recover({ gone })).refusal ?? '';
  assert.match(waits, /^node-3 may come back/);
  // What is to be typed then is all of it.
  assert.ok(waits.includes(`--gone ${[...gone, 'node-3'].join(',')},`), waits);
  await assert.rejects(scene.recover({ accept: 1, gone }), { code: 'failed-precondition' });
  assert.equal((await scene.recover({ gone: [...gone, 'node-3'] })).refusal, undefined);
  scene.store(1).down = false;
  scene.lose(behind);
  const { survivor, refusal } = await scene.recover({ gone: ['node-0', 'node-2'] });
  assert.deepEqual([survivor?.generation, refusal], [2, undefined]);
});

test('a reader beside a voter that has as much stays a reader; one that is lost is put aside', async () => {
  await scene.everywhere(1, scene.set.stores.slice(0, 3));
  await scene.change(({ voters: [first, second], ...rest }) => ({
    ...rest,
    voters: [first, second].filter((voter) => voter !== undefined),
  }));
  await scene.addReaders(2, 3);
  await scene.everywhere(1, [scene.store(3)]);
  scene.lose(scene.store(0), scene.store(2));
  await scene.recover({ accept: 1, gone: ['node-0', 'node-2'] });
  const { voters, learners, readers } = await scene.record();
  assert.deepEqual([voters, learners, readers].map(namesOf), [['node-1'], [], ['node-3']]);
  const word = await scene.set.coordinator.get(
    keys.eviction(scene.store(2).storeId, scene.repository.id),
  );
  assert.match(new TextDecoder().decode(word?.value), /setAside/);
  await scene.push(main, scene.one, await scene.set.commit('two', scene.one));
  assert.equal(await scene.head(), 2);
});
