import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { lacksPushes, QuorateError } from '../contract/errors.js';
import type { LossRecovery, LossReport } from '../contract/cluster.js';
import type { Clock } from '../contract/environment.js';
import type { RefCommand } from '../contract/objects.js';
import type { Locks } from '../coordination/locks.js';
import { packOf, runGit, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { recoverLost } from './testing/lost-set.js';
import type { ReplicaSet, TestStore } from './testing/replica-set.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

const main = 'refs/heads/main';
let scene: SetScene;
let set: ReplicaSet;
let through: ReplicatedBackend;
let locks: Locks;
let one: string;

/** No store is left out of a push because the machine is busy. */
const patient: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms < 200 ? ms : 10_000, signal),
};

beforeEach(async () => {
  scene = await openSetScene();
  ({ set } = scene);
  ({ backend: through, locks } = await set.frontEnd({ clock: patient }));
  one = await set.commit('one');
  await scene.push([create(main, one)], { through });
  for (const { replica } of set.stores) await replica.apply(scene.repository.id, 1);
});
afterEach(() => scene.close());

function store(index: number): TestStore {
  const found = set.stores[index];
  assert.ok(found !== undefined);
  return found;
}

/** More than the mark of a push says of it, and few enough for the log. */
function manyRefs(oid: string): readonly RefCommand[] {
  return Array.from({ length: 1_001 }, (_, n) => create(`refs/heads/side-${n}`, oid));
}

const lacking = (): Promise<never> =>
  Promise.reject(new QuorateError('unavailable', 'nobody sends it', { details: lacksPushes }));

/** It lacks what is committed, and nobody can send it. */
function applyNothing(target: TestStore): void {
  target.interfere = (name, go) => (name === 'apply' ? lacking() : go());
}

/** What the push that it holds was allowed when it was judged for the first time. */
function keepBeside({ root }: TestStore, updates: readonly RefCommand[]): void {
  const text = JSON.stringify(updates);
  const digest = createHash('sha256').update(text).digest('hex');
  const [name = ''] = readdirSync(join(root, 'quarantine'));
  writeFileSync(join(root, 'quarantine', name, `updates-${digest}`), text);
}

function recover(recovery: Partial<LossRecovery>): Promise<LossReport> {
  const lost = { set, locks, repositoryId: scene.repository.id };
  return recoverLost(lost, { gone: ['node-2'], ...recovery });
}

async function keptIn(target: TestStore): Promise<readonly string[]> {
  const refs = ['for-each-ref', '--format=%(refname)', 'refs/quorate'];
  const told = await runGit(target.gitDir(scene.repository.id), refs);
  return told.split('\n').filter(Boolean);
}

test('a committed push of many refs that another store has prepared is kept, by what the log says of it', async () => {
  applyNothing(store(1));
  store(0).down = true;
  const side = await set.commit('side', one);
  const { generation } = await scene.push(manyRefs(side), { through, have: [one] });
  assert.equal(generation, 2);
  store(0).down = false;
  applyNothing(store(0));
  store(2).down = true;
  const report = await recover({});
  assert.deepEqual(report.survivor, { nodeId: 'node-0', generation: 1 });
  const { recovered, overruled } = await recover({ accept: 1 });
  assert.equal(recovered, 3);
  const [large] = overruled;
  assert.equal(large?.refs?.filter(({ keptAs }) => keptAs !== undefined).length, 1_001);
});

test('a large push that was judged twice is kept as the log has it', async () => {
  applyNothing(store(1));
  store(0).down = true;
  const large = await set.frontEnd({ clock: patient, maxInlineUpdatesBytes: 100 });
  const side = await set.commit('side', one);
  const updates = manyRefs(side);
  await scene.push(updates, { through: large.backend, have: [one] });
  keepBeside(store(1), updates.slice(1));
  store(0).down = false;
  applyNothing(store(0));
  store(2).down = true;
  const [push] = (await recover({ accept: 1 })).overruled;
  assert.equal(push?.refs?.filter(({ keptAs }) => keptAs !== undefined).length, 1_001);
});

test('a large push that was judged twice, and committed by neither, is kept as any of the two allowed it', async () => {
  const other = await set.commit('other', one);
  const commands = manyRefs(other);
  const key = { repositoryId: scene.repository.id, pushId: 'judged-twice', attempt: 1 };
  const pack = await packOf(set.source, [other], [one]);
  const { signal } = new AbortController();
  for (const { replica } of [store(0), store(1)]) {
    const request = { key, basis: 1, commands, pack, settings: {}, shallow: [] };
    await replica.prepare({ ...request, lockRevisions: [], signal });
  }
  // The first store, of which all is taken, kept neither.
  await store(1).replica.storeUpdates(key, commands.slice(2));
  await store(1).replica.storeUpdates(key, commands.slice(0, -1));
  const two = await set.commit('two', one);
  applyNothing(store(0));
  store(1).down = true;
  await scene.push([create('refs/heads/two', two)], { through, have: [one] });
  store(1).down = false;
  applyNothing(store(1));
  store(2).down = true;
  const { overruled } = await recover({ accept: 1, keepUnacknowledged: true });
  const [, push] = overruled;
  assert.equal(push?.refs?.filter(({ keptAs }) => keptAs !== undefined).length, 1_001);
});

test('a prepared push whose many refs nobody knows keeps no recovery from going on', async () => {
  const other = await set.commit('other', one);
  const key = { repositoryId: scene.repository.id, pushId: 'prepared-behind', attempt: 1 };
  const { signal } = new AbortController();
  await store(1).replica.prepare({
    key,
    basis: 1,
    commands: manyRefs(other),
    pack: await packOf(set.source, [other], [one]),
    settings: {},
    shallow: [],
    lockRevisions: [],
    signal,
  });
  // A later one is committed, and prepared by the first store alone of those that are left.
  applyNothing(store(0));
  store(1).down = true;
  const two = await set.commit('two', one);
  const { generation } = await scene.push([create('refs/heads/two', two)], {
    through,
    have: [one],
  });
  assert.equal(generation, 2);
  store(1).down = false;
  applyNothing(store(1));
  store(2).down = true;
  const { recovered, overruled } = await recover({ accept: 1, keepUnacknowledged: true });
  assert.equal(recovered, 3);
  const kept = 'refs/quorate/overruled/2/heads/two';
  assert.deepEqual(
    overruled.map(({ refs }) => refs?.map(({ keptAs }) => keptAs)),
    [[kept], undefined],
  );
  store(0).interfere = undefined;
  await store(0).replica.apply(scene.repository.id, 3);
  assert.deepEqual(await keptIn(store(0)), [kept]);
});
