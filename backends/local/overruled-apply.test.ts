import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import { digestAfter } from '../git/digest.js';
import { zeroOid } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const main = 'refs/heads/main';
const goes = 'refs/heads/goes';
const made = 'refs/heads/made';

let scene: ReplicaScene;
let one: string;
let two: string;
beforeEach(async () => {
  scene = await openReplica();
  one = await scene.commit('one');
  two = await scene.commit('two', one);
  await apply(await commitPush([create(main, one), create(goes, one)]));
});
afterEach(() => scene.close());

async function commitPush(commands: readonly RefCommand[], have: string[] = []): Promise<number> {
  const key = await scene.prepare(commands, have);
  return scene.log.commit(key.pushId, commands);
}

const apply = (generation: number): Promise<void> => scene.replica.apply(scene.id, generation);

/** Deletions come first, in a transaction of their own: one is on disk when what follows fails. */
async function stopHalfWay(): Promise<void> {
  const updates = [{ ref: goes, oldOid: one, newOid: zeroOid }, create(made, two)];
  const generation = await commitPush(updates, [one]);
  const inTheWay = join(scene.gitDir, made);
  mkdirSync(inTheWay);
  writeFileSync(join(inTheWay, 'file'), '');
  await assert.rejects(apply(generation), { code: 'storage-failure' });
  rmSync(inTheWay, { recursive: true });
  assert.deepEqual(await onDisk(), [`${main} ${one}`]);
}

/** A recovery has gone on from what this copy has applied. */
function overrule(updates: readonly RefCommand[]): void {
  const [before, lost] = scene.log.kept.splice(0);
  assert.ok(before !== undefined && lost !== undefined);
  const { digest } = before;
  const after = { generation: 1, digest };
  const entry = { generation: 3, updates, digest: digestAfter(digest, updates), after };
  scene.log.kept.push({ ...lost, pushId: 'recover', ...entry });
  scene.log.committed = { generation: 3, digest: entry.digest };
}

const format = '--format=%(refname) %(objectname)';
const onDisk = async (): Promise<readonly string[]> =>
  (await scene.git('for-each-ref', format)).split('\n');

const kept = 'refs/quorate/overruled/2/heads/made';

for (const [desc, updates] of [
  ['nothing is kept', () => []],
  ['something is kept', () => [create(kept, one)]],
] as const) {
  test(`what was written of an overruled push is written back, where ${desc} of it`, async () => {
    await stopHalfWay();
    overrule(updates());
    scene.failures.set('commitEither', 1);
    await assert.rejects(apply(3), { code: 'storage-failure' });
    await apply(3);
    const expected = [`${goes} ${one}`, `${main} ${one}`];
    assert.deepEqual(await onDisk(), [...expected, ...updates().map(() => `${kept} ${one}`)]);
    const again = await scene.reopen();
    const { generation, frozen } = (await again.state(scene.id)) ?? {};
    assert.deepEqual([generation, frozen], [3, undefined]);
    const read = await again.read(scene.id, 3);
    read.release();
    assert.deepEqual(
      read.snapshot.refs.slice(0, 2).map(({ name, oid }) => `${name} ${oid}`),
      expected,
    );
  });
}

for (const [desc, updates] of [
  ['nothing is kept', () => []],
  ['something is kept', () => [create(kept, one)]],
] as const) {
  test(`a start does not finish what was overruled meanwhile, and writes it back, where ${desc} of it`, async () => {
    await stopHalfWay();
    overrule(updates());
    // It is killed in the midst of that, too.
    scene.failures.set('commitEither', 1);
    await assert.rejects((await scene.reopen()).state(scene.id), { code: 'storage-failure' });
    const started = await scene.reopen();
    const { generation, frozen } = (await started.state(scene.id)) ?? {};
    assert.deepEqual([generation, frozen], [1, undefined]);
    const expected = [`${goes} ${one}`, `${main} ${one}`];
    assert.deepEqual(await onDisk(), expected);
    // Nor is it begun again.
    const again = await scene.reopen();
    assert.equal((await again.state(scene.id))?.generation, 1);
    await again.apply(scene.id, 3);
    assert.deepEqual(await onDisk(), [...expected, ...updates().map(() => `${kept} ${one}`)]);
    assert.equal((await (await scene.reopen()).state(scene.id))?.generation, 3);
  });
}

test('a recovery that was being applied itself is finished by the start', async () => {
  await stopHalfWay();
  overrule([create(kept, one)]);
  scene.failures.set('commitEither', 1);
  await assert.rejects(apply(3), { code: 'storage-failure' });
  assert.equal((await (await scene.reopen()).state(scene.id))?.generation, 3);
  assert.deepEqual(await onDisk(), [`${goes} ${one}`, `${main} ${one}`, `${kept} ${one}`]);
});

test('a start that cannot ask whether it was overruled finishes nothing, and does so later', async () => {
  await stopHalfWay();
  const head = scene.log.head.bind(scene.log);
  scene.log.head = () => Promise.reject(new QuorateError('unavailable', 'the coordinator is lost'));
  const started = await scene.reopen();
  await assert.rejects(started.state(scene.id), { code: 'unavailable' });
  assert.deepEqual(await onDisk(), [`${main} ${one}`]);
  scene.log.head = head;
  assert.equal((await started.state(scene.id))?.generation, 2);
});

test('verifying a copy does not finish what was overruled either', async () => {
  await stopHalfWay();
  overrule([]);
  const { problems } = await scene.replica.verify(scene.id, {
    signal: new AbortController().signal,
  });
  assert.deepEqual(problems, []);
  await apply(3);
  assert.deepEqual(await onDisk(), [`${goes} ${one}`, `${main} ${one}`]);
});

test('what stopped half-way is finished before what was committed since is applied', async () => {
  await stopHalfWay();
  const three = await scene.commit('three', two);
  const { committed } = scene.log;
  scene.log.committed = { ...committed, generation: 1 };
  const key = await scene.prepare([create('refs/heads/three', three)], [one]);
  scene.log.committed = committed;
  await apply(scene.log.commit(key.pushId, [create('refs/heads/three', three)]));
  assert.deepEqual(await onDisk(), [
    `${made} ${two}`,
    `${main} ${one}`,
    `refs/heads/three ${three}`,
  ]);
});
