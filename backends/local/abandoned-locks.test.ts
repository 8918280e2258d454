import assert from 'node:assert/strict';
import { existsSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
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

/** A push from upload to its log entry; not applied. */
async function commitPush(): Promise<string> {
  const tip = await scene.commit('one');
  const key = await scene.prepare([create(main, tip)]);
  scene.log.commit(key.pushId, [create(main, tip)]);
  return tip;
}

async function seen(): Promise<Record<string, string>> {
  const read = await scene.replica.read(scene.id, scene.log.committed.generation);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

const lockOut = async (pushId: string): Promise<number> => {
  const key = { repositoryId: scene.id, pushId, attempt: 1 };
  const tip = await scene.commit('locked');
  return (await scene.replica.prepare(scene.request(key, [create(main, tip)]))).refused.size;
};

test('a ref lock that a killed git left holds up neither a judgement nor an apply for long', async () => {
  await seen();
  const lock = join(scene.gitDir, `${main}.lock`);
  writeFileSync(lock, '');
  assert.equal(await lockOut('locked-out'), 1);
  scene.advance(61_000);
  const tip = await commitPush();
  assert.ok(!existsSync(lock), 'judged in spite of it');
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, 1), { code: 'storage-failure' });
  writeFileSync(lock, '');
  await assert.rejects(scene.replica.apply(scene.id, 1), {
    code: 'unavailable',
    message: /locked; try again in a minute/,
  });
  scene.advance(61_000);
  assert.deepEqual(await seen(), { [main]: tip });
});

test('packed refs that a killed git left half-written hold up no deletion for long', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  await scene.git('pack-refs', '--all');
  const left = ['packed-refs.lock', 'packed-refs.new'].map((name) => join(scene.gitDir, name));
  for (const path of left) writeFileSync(path, '');
  const removal = { ref: main, oldOid: tip, newOid: '0'.repeat(tip.length) };
  const remove = async (pushId: string): Promise<number> => {
    const key = { repositoryId: scene.id, pushId, attempt: 1 };
    return (await scene.replica.prepare(scene.request(key, [removal], 1))).refused.size;
  };
  assert.equal(await remove('held-up-for-now'), 1);
  scene.advance(61_000);
  assert.equal(await remove('goes-on-again'), 0);
  for (const path of left) assert.ok(!existsSync(path), path);
});

test('packed refs that a killed git left locked hold up no maintenance for long', async () => {
  await commitPush();
  await scene.replica.apply(scene.id, 1);
  const left = ['packed-refs.lock', 'packed-refs.new'].map((name) => join(scene.gitDir, name));
  for (const path of left) writeFileSync(path, '');
  const maintain = () => scene.replica.maintain(scene.id, { signal, kind: 'full' });
  // Which git says after it has waited half a minute.
  const locked = { exitCode: 128, signal: null, stdout: Buffer.alloc(0), stderr: '' };
  scene.gitEnds.set('pack-refs', () => Promise.resolve(locked));
  await assert.rejects(maintain(), { code: 'storage-failure' });
  for (const path of left) assert.ok(existsSync(path), 'it may be in use');
  scene.advance(61_000);
  await maintain();
  for (const path of left) assert.ok(!existsSync(path), path);
});

test('a lock that may be in use stays, whatever its time says, and however the clock is put', async () => {
  await seen();
  const lock = join(scene.gitDir, `${main}.lock`);
  writeFileSync(lock, '');
  const old = new Date(Date.now() - 3_600_000);
  utimesSync(lock, old, old);
  assert.equal(await lockOut('locked-out-1'), 1);
  scene.step(3_600_000);
  assert.equal(await lockOut('locked-out-2'), 1);
  scene.advance(61_000);
  // Another git's, in the place of the one that was met.
  rmSync(lock);
  writeFileSync(lock, 'another');
  assert.equal(await lockOut('locked-out-3'), 1);
  assert.ok(existsSync(lock));
});

test('a lock that a killed git left is removed though the clock was put back', async () => {
  await seen();
  const lock = join(scene.gitDir, `${main}.lock`);
  writeFileSync(lock, '');
  scene.step(-3_600_000);
  assert.equal(await lockOut('locked-out'), 1);
  scene.advance(61_000);
  await commitPush();
  assert.ok(!existsSync(lock));
});
