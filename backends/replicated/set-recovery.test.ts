import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { comeTo } from '../local/testing/come-to.js';
import {
  packOf,
  judging,
  pushRequest,
  runGit,
  systemClock,
  zeroOid,
} from '../local/testing/local-fixture.js';
import { obeyEvictions } from './evictions.js';
import { markNode } from './node-marks.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { intercepting } from './testing/fault-coordinator.js';
import { LostScene } from './testing/lost-set.js';
import { away, type ReplicaSet, type TestStore, unhurried } from './testing/replica-set.js';

const main = 'refs/heads/main';
let scene: LostScene;
let set: ReplicaSet;
let backend: ReplicatedBackend;
let repository: Repository;
let one: string;

beforeEach(async () => {
  scene = await LostScene.open();
  ({ set, backend, repository, one } = scene);
});
afterEach(() => scene.close());

describe('the majority is gone', () => {
  test('nothing is recovered while a majority answers, or while the others may come back', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    assert.match((await scene.recover()).refusal ?? '', /nothing is lost/);
    scene.lose(scene.store(1));
    assert.match((await scene.recover({ gone: ['node-1'] })).refusal ?? '', /nothing is lost/);
    await assert.rejects(scene.recover({ accept: 1 }), { code: 'failed-precondition' });
    scene.lose(scene.store(2));
    const report = await scene.recover();
    assert.match(report.refusal ?? '', /node-1, node-2 may come back/);
    await assert.rejects(scene.recover({ accept: 1 }), { code: 'failed-precondition' });
    await assert.rejects(scene.recover({ gone: ['node-0'] }), /it is not gone/);
    await assert.rejects(scene.recover({ gone: ['node-9'] }), /has no copy/);
    await markNode(set.coordinator, 'node-1', 'removed');
    assert.match((await scene.recover()).refusal ?? '', /^node-2 may come back/);
    assert.equal((await scene.recover({ gone: ['node-2'] })).refusal, undefined);
    await assert.rejects(scene.recover({ accept: 4, gone: ['node-2'] }), /generation 1, not 4/);
    assert.deepEqual((await scene.record()).voters.length, 3);
  });

  test('a survivor that has all of it: no ref changes, and pushes go on', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    scene.lose(scene.store(1), scene.store(2));
    const report = await scene.recover({ accept: 1, gone: ['node-1', 'node-2'] });
    assert.equal(report.recovered, 1);
    assert.deepEqual(report.overruled, []);
    const { voters, learners } = await scene.record();
    assert.deepEqual(
      voters.map(({ nodeId }) => nodeId),
      ['node-0'],
    );
    assert.deepEqual(learners, []);
    const two = await set.commit('two', one);
    await scene.push(main, one, two);
    assert.equal(await scene.head(), 2);
  });

  test('nothing is recovered by an older copy of the coordinator, which knows less than was acknowledged', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    scene.lose(scene.store(1), scene.store(2));
    const before = await scene.record();
    const older = intercepting(set.coordinator, ({ binding }) =>
      binding === true
        ? () => Promise.reject(new QuorateError('unavailable', 'it is an older copy'))
        : undefined,
    );
    const recovery = { accept: 1, gone: ['node-1', 'node-2'] };
    await assert.rejects(scene.recover(recovery, older), { code: 'unavailable' });
    assert.deepEqual(await scene.record(), before);
    assert.equal((await scene.recover(recovery)).recovered, 1);
  });

  test('a survivor that is behind the head: what is lost is named, what it has of it is kept as refs', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    const survivor = scene.store(0);
    // Generation 2 is on the others alone.
    survivor.down = true;
    const lost = await set.commit('lost', one);
    await scene.push(main, one, lost);
    await scene.everywhere(2, [scene.store(1), scene.store(2)]);
    survivor.down = false;
    const side = await set.commit('side', one);
    await prepareBehind(survivor, side);
    scene.lose(scene.store(1), scene.store(2));

    const gone = ['node-1', 'node-2'];
    const before = await scene.refsOf(survivor);
    const dry = await scene.recover({ gone, keepUnacknowledged: true });
    assert.equal(dry.refusal, undefined);
    assert.deepEqual(dry.survivor, { nodeId: 'node-0', generation: 1 });
    assert.equal(await scene.refsOf(survivor), before);
    assert.equal(await scene.head(), 2);

    const report = await scene.recover({ accept: 1, gone, keepUnacknowledged: true });
    assert.equal(report.recovered, 3);
    assert.equal(await scene.head(), 3);
    const [overruled, unacknowledged] = report.overruled;
    assert.deepEqual(overruled?.generation, 2);
    assert.deepEqual(overruled.refs, [{ ref: main, oid: lost, keptAs: undefined }]);
    const kept = 'refs/quorate/unacknowledged/prepared-behind/heads/side';
    assert.deepEqual(unacknowledged?.refs, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]);
    assert.equal(await scene.refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
    await runGit(survivor.gitDir(repository.id), ['fsck', '--connectivity-only']);
    assert.equal((await survivor.replica.state(repository.id))?.generation, 3);
    const two = await set.commit('two', one);
    await scene.push(main, one, two);
    assert.equal(await scene.head(), 4);
  });

  test('a committed push that the survivor has prepared, behind one that it lacks, is kept as a ref', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    const survivor = scene.store(0);
    const [side, lost] = [await set.commit('side', one), await set.commit('lost', one)];
    const prepared = new AbortController();
    const mainIsIn = new AbortController();
    const slow = await set.frontEnd({
      // The survivor is to have it prepared.
      clock: unhurried,
      pipeline: judging({
        preReceive: async () => {
          prepared.abort();
          await systemClock.sleep(60_000, mainIsIn.signal);
          return undefined;
        },
      }),
    });
    const pack = await packOf(set.source, [side], [one]);
    const command = { ref: 'refs/heads/side', oldOid: zeroOid, newOid: side };
    const pushing = slow.backend.push(repository, pushRequest([command], { pack }));
    await systemClock.sleep(60_000, prepared.signal);
    survivor.down = true;
    survivor.interfere = (name, go) => (name === 'apply' ? away() : go());
    await scene.push(main, one, lost);
    mainIsIn.abort();
    assert.equal((await pushing).generation, 3);
    await scene.everywhere(3, [scene.store(1), scene.store(2)]);
    survivor.down = false;
    survivor.interfere = undefined;
    scene.lose(scene.store(1), scene.store(2));
    const report = await scene.recover({ accept: 1, gone: ['node-1', 'node-2'] });
    assert.equal(report.recovered, 4);
    const kept = 'refs/quorate/overruled/3/heads/side';
    assert.deepEqual(
      report.overruled.map(({ generation, refs }) => [generation, refs]),
      [
        [2, [{ ref: main, oid: lost, keptAs: undefined }]],
        [3, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]],
      ],
    );
    assert.equal(await scene.refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
    await scene.push(main, one, await set.commit('two', one));
    assert.equal(await scene.head(), 5);
  });

  test('of a large push that is overruled, what it was refused is neither told nor kept', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    const survivor = scene.store(0);
    const [side, lost] = [await set.commit('side', one), await set.commit('lost', one)];
    const prepared = new AbortController();
    const mainIsIn = new AbortController();
    const refused = 'refs/heads/refused';
    const slow = await set.frontEnd({
      clock: unhurried,
      // The stores keep the updates.
      maxInlineUpdatesBytes: 100,
      pipeline: judging({
        update: () => Promise.resolve(new Map([[refused, 'not this one']])),
      }),
    });
    const pack = await packOf(set.source, [side], [one]);
    const commands = ['refs/heads/side', refused].map((ref) => ({
      ref,
      oldOid: zeroOid,
      newOid: side,
    }));
    scene.store(1).interfere = async (name, go) => {
      if (name === 'storeUpdates') {
        prepared.abort();
        await systemClock.sleep(60_000, mainIsIn.signal);
      }
      return go();
    };
    const pushing = slow.backend.push(repository, pushRequest(commands, { pack }));
    await systemClock.sleep(60_000, prepared.signal);
    await comeTo(true, () => keptUpdatesIn(survivor));
    survivor.down = true;
    survivor.interfere = (name, go) => (name === 'apply' ? away() : go());
    await scene.push(main, one, lost);
    mainIsIn.abort();
    assert.equal((await pushing).generation, 3);
    await scene.everywhere(3, [scene.store(1), scene.store(2)]);
    survivor.down = false;
    survivor.interfere = undefined;
    scene.lose(scene.store(1), scene.store(2));
    const report = await scene.recover({ accept: 1, gone: ['node-1', 'node-2'] });
    const kept = 'refs/quorate/overruled/3/heads/side';
    const [, overruled] = report.overruled;
    assert.deepEqual(overruled?.refs, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]);
    assert.equal(await scene.refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
  });

  test('of two survivors the one with more is gone on from, and what only the other prepared is kept too', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    const other = await set.commit('other', one);
    await prepareBehind(scene.store(1), other);
    scene.store(1).down = true;
    const two = await set.commit('two', one);
    await scene.push(main, one, two);
    await scene.everywhere(2, [scene.store(0), scene.store(2)]);
    const three = await set.commit('three', two);
    scene.store(0).down = true;
    await scene.push(main, two, three, 'eventual');
    scene.store(0).down = false;
    scene.store(1).down = false;
    scene.lose(scene.store(2));
    const gone = ['node-2'];
    const report = await scene.recover({ accept: 2, gone, keepUnacknowledged: true });
    assert.equal(report.recovered, 4);
    const kept = 'refs/quorate/unacknowledged/prepared-behind/heads/side';
    assert.equal(await scene.refsOf(scene.store(0)), `${main} ${two}\n${kept} ${other}\n`);
    const { voters, learners } = await scene.record();
    assert.deepEqual(
      [voters, learners].map((members) => members.map(({ nodeId }) => nodeId)),
      [['node-0'], ['node-1']],
    );
    await comeTo([], () => quarantinesOf(scene.store(0)));
  });

  test('a recovery whose process dies before or after its transaction changes nothing, or is finished by the log', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    const survivor = scene.store(0);
    survivor.down = true;
    await scene.push(main, one, await set.commit('lost', one));
    await scene.everywhere(2, [scene.store(1), scene.store(2)]);
    survivor.down = false;
    scene.lose(scene.store(1), scene.store(2));
    await prepareBehind(survivor, await set.commit('side', one));
    const word = { accept: 1, gone: ['node-1', 'node-2'], keepUnacknowledged: true };
    const before = await scene.record();
    const transaction = set.coordinator.transaction.bind(set.coordinator);
    set.coordinator.transaction = (request) =>
      request.success.some(({ type, key }) => type === 'put' && key === keys.head(repository.id))
        ? Promise.reject(new QuorateError('unavailable', 'the coordinator is away'))
        : transaction(request);
    await assert.rejects(scene.recover(word), { code: 'unavailable' });
    set.coordinator.transaction = transaction;
    assert.deepEqual(await scene.record(), before);
    assert.equal(await scene.head(), 2);
    assert.deepEqual(quarantinesOf(survivor).length, 1);

    // Asked first for what is committed, then, by the transaction, to apply what follows from that.
    let applies = 0;
    survivor.interfere = (name, go) => (name === 'apply' && ++applies > 1 ? away() : go());
    assert.equal((await scene.recover(word)).recovered, 3);
    assert.equal((await survivor.replica.state(repository.id))?.generation, 1);
    survivor.interfere = undefined;
    await backend.takeOver();
    await scene.push(main, one, await set.commit('two', one));
    assert.match(
      await scene.refsOf(survivor),
      /refs\/quorate\/unacknowledged\/prepared-behind\/heads\/side/,
    );
    assert.match((await scene.recover()).refusal ?? '', /nothing is lost/);
  });

  test('a lost store that comes back puts its copy aside', async () => {
    await scene.everywhere(1, set.stores.slice(0, 3));
    scene.lose(scene.store(1), scene.store(2));
    await scene.recover({ accept: 1, gone: ['node-1', 'node-2'] });
    scene.store(1).down = false;
    const { replica, root } = scene.store(1);
    await obeyEvictions({ coordinator: set.coordinator, replica, logger: silentLogger });
    assert.equal(await replica.state(repository.id), undefined);
    assert.equal(readdirSync(join(root, 'set-aside')).length, 1);
  });
});

/** A push to `refs/heads/side` that this store has prepared, and that came to nothing. */
async function prepareBehind(target: TestStore, oid: string): Promise<void> {
  const key = { repositoryId: repository.id, pushId: 'prepared-behind', attempt: 1 };
  const { signal } = new AbortController();
  const pack = await packOf(set.source, [oid], [one]);
  await target.replica.upload(
    key,
    (async function* () {
      yield pack;
    })(),
    { settings: {}, signal, progress: () => undefined },
  );
  const { refused } = await target.replica.prepare({
    key,
    basis: 1,
    commands: [{ ref: 'refs/heads/side', oldOid: zeroOid, newOid: oid }],
    settings: {},
    shallow: [],
    lockRevisions: [],
    signal,
  });
  assert.equal(refused.size, 0);
}

function keptUpdatesIn({ root }: TestStore): boolean {
  return quarantinesOf({ root }).some((name) =>
    readdirSync(join(root, 'quarantine', name)).some((file) => file.startsWith('updates-')),
  );
}

function quarantinesOf({ root }: Pick<TestStore, 'root'>): readonly string[] {
  return readdirSync(join(root, 'quarantine'));
}
