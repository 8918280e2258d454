import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { PeerSource, QuarantineKey } from '../contract/replica.js';
import { comeTo } from './testing/come-to.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const signal = new AbortController().signal;
const main = 'refs/heads/main';

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const quarantines = (): string[] => readdirSync(join(scene.root, 'quarantine'));

/** A push from upload to its log entry; not applied. */
async function commitPush(ref = main, content = 'one'): Promise<string> {
  const tip = await scene.commit(content);
  const key = await scene.prepare([create(ref, tip)]);
  scene.log.commit(key.pushId, [create(ref, tip)]);
  return tip;
}

async function seen(replica = scene.replica): Promise<Record<string, string>> {
  const read = await replica.read(scene.id, scene.log.committed.generation);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

test('the updates of a large push are read from its quarantine, and only if they are the ones', async () => {
  const tip = await scene.commit('large');
  const commands = [create(main, tip)];
  const key = await scene.prepare(commands);
  const updatesDigest = await scene.replica.storeUpdates(key, commands);
  scene.log.commit(key.pushId, commands, { updatesDigest });
  const path = join(scene.root, 'quarantine', readdirSync(join(scene.root, 'quarantine'))[0] ?? '');
  const file = join(path, `updates-${updatesDigest}`);
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.replaceAll('main', 'evil'));
  await assert.rejects(scene.replica.apply(scene.id, 1), { code: 'data-corrupt' });
  writeFileSync(file, text);
  assert.deepEqual(await seen(), { [main]: tip });
});

/** Prepares a push of refs to what is here already; it has no pack. */
async function prepareWithout(
  commands: Parameters<ReplicaScene['prepare']>[0],
): Promise<QuarantineKey> {
  const key = { repositoryId: scene.id, pushId: 'brings-nothing', attempt: 1 };
  await scene.replica.prepare(scene.request(key, commands));
  return key;
}

test('a large push that brings no objects is prepared for good once its updates are kept', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip)];
  const key = await prepareWithout(commands);
  const updatesDigest = await scene.replica.storeUpdates(key, commands);
  const again = await scene.reopen();
  assert.deepEqual(again.leftQuarantines, [key]);
  // Who was never prepared has no locks, and is over.
  await again.dropIfOver(key, async (mark) => mark?.lockRevisions[0]?.createRevision !== 7);
  scene.log.commit(key.pushId, commands, { updatesDigest });
  assert.deepEqual(await seen(again), { [main]: tip, 'refs/tags/one': tip });
  await comeTo([], quarantines);
});

test('the updates of a push that goes on under locks are kept with these, whatever comes late', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip)];
  const key = { repositoryId: scene.id, pushId: 'brings-nothing', attempt: 1 };
  const locked = scene.request(key, commands);
  const unlocked = { ...locked, headRevision: 3, lockRevisions: [] };
  await scene.replica.prepare(unlocked);
  await scene.replica.storeUpdates(key, commands);
  await scene.replica.prepare(locked);
  await scene.replica.prepare(unlocked).catch(() => undefined);
  await scene.replica.storeUpdates(key, commands);
  let found: unknown;
  await (
    await scene.reopen()
  ).dropIfOver(key, async (mark) => {
    found = [mark?.lockRevisions, mark?.headRevision];
    return false;
  });
  assert.deepEqual(found, [locked.lockRevisions, undefined]);
});

test('a store that was started again since it prepared a push keeps no updates of it', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip)];
  const key = await prepareWithout(commands);
  const again = await scene.reopen();
  await assert.rejects(again.storeUpdates(key, commands), { code: 'unavailable' });
  assert.deepEqual(quarantines(), []);
});

test('what a large push was allowed before it was judged again is not in the way of what counts', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip), create('refs/tags/two', tip)];
  const key = await prepareWithout(commands);
  const accepted = commands.slice(0, 1);
  const updatesDigest = await scene.replica.storeUpdates(key, accepted);
  // Of the time before, and late.
  await scene.replica.storeUpdates(key, commands);
  scene.log.commit(key.pushId, accepted, { updatesDigest });
  assert.deepEqual(await seen(), { [main]: tip, 'refs/tags/one': tip });
  await comeTo([], quarantines);
});

test('of two verdicts on a large push the digest in the log tells which counts', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = Array.from({ length: 1_001 }, (_, n) => create(`refs/tags/${n}`, tip));
  const key = await prepareWithout(commands);
  const updates = commands.slice(0, 1_000);
  const updatesDigest = await scene.replica.storeUpdates(key, updates);
  await scene.replica.storeUpdates(key, commands);
  const held = async (...digests: readonly string[]): Promise<unknown> =>
    (await scene.replica.heldPushes(scene.id, digests)).map((push) => [
      push.updates,
      push.updatesDigest,
      push.anyOf?.length,
    ]);
  assert.deepEqual(await held(), [[undefined, undefined, 1_001]], 'which of them, nobody knows');
  assert.deepEqual(await held('ab'.repeat(32), updatesDigest), [
    [updates, updatesDigest, undefined],
  ]);
  const [name = ''] = quarantines();
  writeFileSync(join(scene.root, 'quarantine', name, `updates-${updatesDigest}`), '[{"ref');
  const unknown = [[undefined, undefined, undefined]];
  assert.deepEqual([await held(updatesDigest), await held()], [unknown, unknown]);
});

test('what an earlier version kept of a large push is applied', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip)];
  const key = await prepareWithout(commands);
  const updatesDigest = await scene.replica.storeUpdates(key, commands);
  const [name = ''] = quarantines();
  const path = join(scene.root, 'quarantine', name);
  renameSync(join(path, `updates-${updatesDigest}`), join(path, 'updates'));
  scene.log.commit(key.pushId, commands, { updatesDigest });
  assert.deepEqual(await seen(), { [main]: tip, 'refs/tags/one': tip });
});

test('a disk that does not take the updates of a large push is said to be the reason', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const commands = [create('refs/tags/one', tip)];
  const key = await prepareWithout(commands);
  const place = join(scene.root, 'quarantine', `${scene.id}.${key.pushId}.1`);
  writeFileSync(place, 'in the way');
  await assert.rejects(scene.replica.storeUpdates(key, commands), { code: 'storage-failure' });
  // Nor the question whether the push is prepared.
  const other = { ...key, pushId: 'f'.repeat(24) };
  mkdirSync(join(scene.root, 'quarantine', `${scene.id}.${other.pushId}.1`, 'prepared'), {
    recursive: true,
  });
  await assert.rejects(scene.replica.storeUpdates(other, commands), { code: 'storage-failure' });
});

test('a copy in the place of one that had kept the updates of a large push gets them from a peer', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const second = await scene.second();
  const source: PeerSource = (have, atLeast) =>
    scene.replica.export(scene.id, { have, atLeast, signal });
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  const commands = [create('refs/tags/one', tip)];
  const key = await prepareWithout(commands);
  const updatesDigest = await scene.replica.storeUpdates(key, commands);
  scene.log.prepared = [scene.replica.storeId, second.storeId];
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands, { updatesDigest }));
  await second.apply(scene.id, 2);
  assert.deepEqual(await second.state(scene.id), scene.log.committed);
});
