import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { QuorateError } from '../contract/errors.js';
import { observeSyncs } from '../git/testing/observe-syncs.js';
import { comeTo } from './testing/come-to.js';
import { packOf } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const main = 'refs/heads/main';

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const inPack = (path: string): boolean => path.includes('/pack/');
const quarantines = (): string[] => readdirSync(join(scene.root, 'quarantine'));

test('a pack that comes with the request to prepare is on disk before its mark is', async () => {
  const tip = await scene.commit('brought');
  const pack = await packOf(scene.source, [tip], []);
  const key = { repositoryId: scene.id, pushId: 'with-its-pack', attempt: 1 };
  const synced: string[] = [];
  await observeSyncs(
    (path) => synced.push(path),
    async () => {
      await scene.replica.prepare({ ...scene.request(key, [create(main, tip)]), pack });
    },
  );
  const [directory = ''] = quarantines();
  const packs = join(scene.root, 'quarantine', directory, 'pack');
  const names = [packs, ...readdirSync(packs).map((name) => join(packs, name))];
  assert.equal(names.length, 3);
  const mark = synced.indexOf(join(dirname(packs), 'prepared'));
  assert.ok(mark > 0);
  for (const path of names) assert.ok(synced.slice(0, mark).includes(path), path);
});

test('a pack that is taken before the request to prepare is taken once, and on disk by then', async () => {
  const tip = await scene.commit('early');
  const pack = await packOf(scene.source, [tip], []);
  const key = { repositoryId: scene.id, pushId: 'early-pack', attempt: 1 };
  const request = { ...scene.request(key, [create(main, tip)]), pack };
  const { settings } = request;
  const synced: string[] = [];
  await observeSyncs(
    (path) => synced.push(path),
    async () => {
      scene.replica.startTaking({ key, pack, settings, basis: 0 });
      await comeTo(2, () => synced.filter(inPack).length);
      const { refused, packBytes } = await scene.replica.prepare(request);
      assert.deepEqual([[...refused], packBytes], [[], pack.length]);
    },
  );
  assert.equal(synced.filter(inPack).length, 2, 'nothing of it is synced again');
  scene.log.commit('early-pack', [create(main, tip)]);
  await scene.replica.apply(scene.id, 1);
  const read = await scene.replica.read(scene.id, 1);
  read.release();
  assert.deepEqual(
    read.snapshot.refs.map(({ name, oid }) => [name, oid]),
    [[main, tip]],
  );
});

test('what is wrong with a pack that is taken early is told to the request', async () => {
  const tip = await scene.commit('bad');
  const pack = Buffer.from('PACK or not');
  const key = { repositoryId: scene.id, pushId: 'bad-early-pack', attempt: 1 };
  const request = { ...scene.request(key, [create(main, tip)]), pack };
  scene.replica.startTaking({ key, pack, settings: request.settings, basis: 0 });
  await assert.rejects(scene.replica.prepare(request), (error: QuorateError) => {
    assert.equal(error.code, 'invalid-argument');
    assert.ok('pack' in error.details);
    return true;
  });
  assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
  // A later try of the same push is taken for itself.
  const good = await packOf(scene.source, [tip], []);
  assert.deepEqual([...(await scene.replica.prepare({ ...request, pack: good })).refused], []);
  await scene.replica.abort(key);
});

test('a push that is over before its request to prepare leaves nothing of an early pack', async () => {
  const tip = await scene.commit('over');
  const pack = await packOf(scene.source, [tip], []);
  const key = { repositoryId: scene.id, pushId: 'over-too-early', attempt: 1 };
  const { settings } = scene.request(key, []);
  for (const wait of [20, 5, 1, 0]) {
    scene.replica.startTaking({ key, pack, settings, basis: 0 });
    await delay(wait);
    await scene.replica.abort(key);
    assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
  }
  // By then, what went on regardless would have left something.
  const later = { repositoryId: scene.id, pushId: 'comes-later', attempt: 1 };
  await scene.replica.prepare({ ...scene.request(later, [create(main, tip)]), pack });
  await scene.replica.abort(later);
  assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
});
