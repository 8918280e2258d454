import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { QuarantineKey } from '../contract/replica.js';
import { observeSyncs } from '../git/testing/observe-syncs.js';
import { LiveQuarantines } from './live-quarantines.js';
import { packOf, systemClock } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const quarantines = (): string[] => readdirSync(join(scene.root, 'quarantine'));

test('a prepared quarantine says on disk under which locks', async () => {
  const tip = await scene.commit('marked');
  const key = await scene.prepare([create(main, tip)]);
  const again = await scene.reopen();
  assert.deepEqual([again.quarantines, again.leftQuarantines], [[key], [key]]);
  await again.dropIfOver(key, async (mark) => {
    assert.deepEqual(mark?.lockRevisions, [{ key: 'lock', createRevision: 7 }]);
    assert.equal(mark?.headRevision, undefined);
    return false;
  });
  assert.deepEqual(again.quarantines, [key]);
  await again.dropIfOver(key, async () => true);
  assert.deepEqual([again.quarantines, quarantines()], [[], []]);
});

test('a prepared quarantine says on disk at which head, when there are no locks', async () => {
  const tip = await scene.commit('marked');
  const key = await uploaded(tip);
  const request = scene.request(key, [create(main, tip)]);
  await scene.replica.prepare({ ...request, headRevision: 9 });
  const again = await scene.reopen();
  await again.dropIfOver(key, async (mark) => {
    assert.equal(mark?.headRevision, 9);
    return true;
  });
  assert.deepEqual([again.quarantines, quarantines()], [[], []]);
});

/** Of a push whose store was killed before it was asked to prepare it. */
async function uploaded(tip: string): Promise<QuarantineKey> {
  const key = { repositoryId: scene.id, pushId: 'uploaded', attempt: 1 };
  const bytes = await packOf(scene.source, [tip], []);
  const pack = (async function* whole() {
    yield bytes;
  })();
  await scene.replica.upload(key, pack, { settings: {}, signal, progress: () => undefined });
  return key;
}

test('a quarantine whose push goes on is not dropped by what was found out before', async () => {
  const commands = [create(main, await scene.commit('going on'))];
  const key = await uploaded(commands[0]?.newOid ?? '');
  const again = await scene.reopen();
  await again.dropIfOver(key, async (locks) => {
    assert.equal(locks, undefined);
    await again.prepare(scene.request(key, commands));
    return true;
  });
  assert.deepEqual([again.quarantines, again.leftQuarantines], [[key], []]);
  scene.log.commit(key.pushId, commands);
  await again.apply(scene.id, 1);
  assert.deepEqual((await again.verify(scene.id, { signal })).problems, []);
});

test('a push of which only that is told goes on as well, and one that is unknown stays so', async () => {
  const commands = [create(main, await scene.commit('kept'))];
  const key = await scene.prepare(commands);
  await scene.replica.dropIfOver(key, async () => {
    await scene.replica.keep(key);
    return true;
  });
  assert.deepEqual(scene.replica.quarantines, [key]);
  await scene.replica.keep({ ...key, pushId: 'unknown' });
  assert.deepEqual(scene.replica.quarantines, [key]);
});

test('a push that goes on while its quarantine is dropped is judged by what stays of it', async () => {
  const commands = [create(main, await scene.commit('too late'))];
  const key = await uploaded(commands[0]?.newOid ?? '');
  const again = await scene.reopen();
  await again.applied(scene.id);
  const dropped = again.abort(key);
  const { refused } = await again.prepare(scene.request(key, commands));
  assert.deepEqual([...refused.keys()], [main]);
  await dropped;
});

test('a quarantine that cannot be removed stays known, and goes when it can', async () => {
  const directory = join(scene.root, 'away');
  const quarantines = new LiveQuarantines(systemClock, {
    quarantineDirectory: ({ pushId }) => join(directory, pushId),
    spares: { forget: () => undefined },
  });
  const key = { repositoryId: scene.id, pushId: 'refused', attempt: 1 };
  quarantines.remember(key);
  await assert.rejects(quarantines.remove(key), { code: 'ENOENT' }, 'its place cannot be synced');
  assert.deepEqual([quarantines.keys, quarantines.of(scene.id)], [[key], [key]]);
  assert.deepEqual(quarantines.idle(-1), [key], 'it is settled with those that lie idle');
  mkdirSync(join(directory, key.pushId), { recursive: true });
  await quarantines.remove(key);
  assert.deepEqual([quarantines.keys, readdirSync(directory)], [[], []]);
});

test('what applied pushes left cannot come back once their copy has gone, in either way', async () => {
  const commands = [create(main, await scene.commit('applied'))];
  const key = await scene.prepare(commands);
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
  for (const go of [
    () => scene.replica.setAside(scene.id, { prepared: true }),
    () => scene.replica.destroy(scene.id),
  ]) {
    const synced: string[] = [];
    await observeSyncs((path) => synced.push(path), go);
    assert.ok(synced.includes(join(scene.root, 'quarantine')), synced.join());
  }
});
