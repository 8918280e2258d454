import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import type { Locks } from '../coordination/locks.js';
import type { LossRecovery, LossReport } from '../contract/cluster.js';
import { lacksPushes, QuorateError } from '../contract/errors.js';
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
import { peerSourceOf } from './peers.js';
import {
  decodeHead,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { intercepting } from './testing/fault-coordinator.js';
import { recoverLost } from './testing/lost-set.js';
import {
  away,
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';

const main = 'refs/heads/main';
let set: ReplicaSet;
let backend: ReplicatedBackend;
let locks: Locks;
let repository: Repository;
let one: string;

beforeEach(async () => {
  set = await openReplicaSet(4);
  // A store that was left out of a push still has it in quarantine: that would be found here.
  const ground = await set.frontEnd({ clock: unhurried });
  ({ backend, locks } = ground);
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  one = await set.commit('one');
  await push(main, zeroOid, one);
});
afterEach(() => set.close());

async function push(
  ref: string,
  oldOid: string,
  newOid: string,
  consistency: 'quorum' | 'eventual' = 'quorum',
): Promise<void> {
  const pack = await packOf(set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
  const { refs } = await backend.push(repository, {
    ...pushRequest([{ ref, oldOid, newOid }], { pack }),
    pushOptions: [`consistency=${consistency}`],
  });
  assert.deepEqual(
    refs.map(({ status }) => status),
    ['ok'],
  );
}

function store(index: number): TestStore {
  const found = set.stores[index];
  assert.ok(found !== undefined);
  return found;
}

async function record(): Promise<RepositoryRecord> {
  const kv = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(kv !== undefined);
  return decodeRepository(kv);
}

async function head(): Promise<number> {
  const kv = await set.coordinator.get(keys.head(repository.id));
  assert.ok(kv !== undefined);
  return decodeHead(kv).generation;
}

function recover(
  recovery: Partial<LossRecovery> = {},
  coordinator = set.coordinator,
): Promise<LossReport> {
  return recoverLost({ set, locks, repositoryId: repository.id, coordinator }, recovery);
}

async function everywhere(generation: number, stores: readonly TestStore[]): Promise<void> {
  for (const { replica } of stores) await replica.apply(repository.id, generation);
}

async function refsOf(target: TestStore): Promise<string> {
  return runGit(target.gitDir(repository.id), [
    'for-each-ref',
    '--format=%(refname) %(objectname)',
  ]);
}

/** What a store that was lost never says again. */
function lose(...lost: readonly TestStore[]): void {
  for (const target of lost) target.down = true;
}

describe('the majority is gone', () => {
  test('nothing is recovered while a majority answers, or while the others may come back', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    assert.match((await recover()).refusal ?? '', /nothing is lost/);
    lose(store(1));
    assert.match((await recover({ gone: ['node-1'] })).refusal ?? '', /nothing is lost/);
    await assert.rejects(recover({ accept: 1 }), { code: 'failed-precondition' });
    lose(store(2));
    const report = await recover();
    assert.match(report.refusal ?? '', /node-1, node-2 may come back/);
    await assert.rejects(recover({ accept: 1 }), { code: 'failed-precondition' });
    await assert.rejects(recover({ gone: ['node-0'] }), /it is not gone/);
    await assert.rejects(recover({ gone: ['node-9'] }), /has no copy/);
    await markNode(set.coordinator, 'node-1', 'removed');
    assert.match((await recover()).refusal ?? '', /^node-2 may come back/);
    assert.equal((await recover({ gone: ['node-2'] })).refusal, undefined);
    await assert.rejects(recover({ accept: 4, gone: ['node-2'] }), /generation 1, not 4/);
    assert.deepEqual((await record()).voters.length, 3);
  });

  test('a survivor that has all of it: no ref changes, and pushes go on', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    lose(store(1), store(2));
    const report = await recover({ accept: 1, gone: ['node-1', 'node-2'] });
    assert.equal(report.recovered, 1);
    assert.deepEqual(report.overruled, []);
    const { voters, learners } = await record();
    assert.deepEqual(
      voters.map(({ nodeId }) => nodeId),
      ['node-0'],
    );
    assert.deepEqual(learners, []);
    const two = await set.commit('two', one);
    await push(main, one, two);
    assert.equal(await head(), 2);
  });

  test('nothing is recovered by an older copy of the coordinator, which knows less than was acknowledged', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    lose(store(1), store(2));
    const before = await record();
    const older = intercepting(set.coordinator, ({ binding }) =>
      binding === true
        ? () => Promise.reject(new QuorateError('unavailable', 'it is an older copy'))
        : undefined,
    );
    const recovery = { accept: 1, gone: ['node-1', 'node-2'] };
    await assert.rejects(recover(recovery, older), { code: 'unavailable' });
    assert.deepEqual(await record(), before);
    assert.equal((await recover(recovery)).recovered, 1);
  });

  test('a survivor that is behind the head: what is lost is named, what it has of it is kept as refs', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    const survivor = store(0);
    // Generation 2 is on the others alone.
    survivor.down = true;
    const lost = await set.commit('lost', one);
    await push(main, one, lost);
    await everywhere(2, [store(1), store(2)]);
    survivor.down = false;
    const side = await set.commit('side', one);
    await prepareBehind(survivor, side);
    lose(store(1), store(2));

    const gone = ['node-1', 'node-2'];
    const before = await refsOf(survivor);
    const dry = await recover({ gone, keepUnacknowledged: true });
    assert.equal(dry.refusal, undefined);
    assert.deepEqual(dry.survivor, { nodeId: 'node-0', generation: 1 });
    assert.equal(await refsOf(survivor), before);
    assert.equal(await head(), 2);

    const report = await recover({ accept: 1, gone, keepUnacknowledged: true });
    assert.equal(report.recovered, 3);
    assert.equal(await head(), 3);
    const [overruled, unacknowledged] = report.overruled;
    assert.deepEqual(overruled?.generation, 2);
    assert.deepEqual(overruled.refs, [{ ref: main, oid: lost, keptAs: undefined }]);
    const kept = 'refs/quorate/unacknowledged/prepared-behind/heads/side';
    assert.deepEqual(unacknowledged?.refs, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]);
    assert.equal(await refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
    await runGit(survivor.gitDir(repository.id), ['fsck', '--connectivity-only']);
    assert.equal((await survivor.replica.state(repository.id))?.generation, 3);
    const two = await set.commit('two', one);
    await push(main, one, two);
    assert.equal(await head(), 4);
  });

  test('a committed push that the survivor has prepared, behind one that it lacks, is kept as a ref', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    const survivor = store(0);
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
    await push(main, one, lost);
    mainIsIn.abort();
    assert.equal((await pushing).generation, 3);
    await everywhere(3, [store(1), store(2)]);
    survivor.down = false;
    survivor.interfere = undefined;
    lose(store(1), store(2));
    const report = await recover({ accept: 1, gone: ['node-1', 'node-2'] });
    assert.equal(report.recovered, 4);
    const kept = 'refs/quorate/overruled/3/heads/side';
    assert.deepEqual(
      report.overruled.map(({ generation, refs }) => [generation, refs]),
      [
        [2, [{ ref: main, oid: lost, keptAs: undefined }]],
        [3, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]],
      ],
    );
    assert.equal(await refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
    await push(main, one, await set.commit('two', one));
    assert.equal(await head(), 5);
  });

  test('of a large push that is overruled, what it was refused is neither told nor kept', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    const survivor = store(0);
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
    store(1).interfere = async (name, go) => {
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
    await push(main, one, lost);
    mainIsIn.abort();
    assert.equal((await pushing).generation, 3);
    await everywhere(3, [store(1), store(2)]);
    survivor.down = false;
    survivor.interfere = undefined;
    lose(store(1), store(2));
    const report = await recover({ accept: 1, gone: ['node-1', 'node-2'] });
    const kept = 'refs/quorate/overruled/3/heads/side';
    const [, overruled] = report.overruled;
    assert.deepEqual(overruled?.refs, [{ ref: 'refs/heads/side', oid: side, keptAs: kept }]);
    assert.equal(await refsOf(survivor), `${main} ${one}\n${kept} ${side}\n`);
  });

  test('of two survivors the one with more is gone on from, and what only the other prepared is kept too', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    const other = await set.commit('other', one);
    await prepareBehind(store(1), other);
    store(1).down = true;
    const two = await set.commit('two', one);
    await push(main, one, two);
    await everywhere(2, [store(0), store(2)]);
    const three = await set.commit('three', two);
    store(0).down = true;
    await push(main, two, three, 'eventual');
    store(0).down = false;
    store(1).down = false;
    lose(store(2));
    const gone = ['node-2'];
    const report = await recover({ accept: 2, gone, keepUnacknowledged: true });
    assert.equal(report.recovered, 4);
    const kept = 'refs/quorate/unacknowledged/prepared-behind/heads/side';
    assert.equal(await refsOf(store(0)), `${main} ${two}\n${kept} ${other}\n`);
    const { voters, learners } = await record();
    assert.deepEqual(
      [voters, learners].map((members) => members.map(({ nodeId }) => nodeId)),
      [['node-0'], ['node-1']],
    );
    await comeTo([], () => quarantinesOf(store(0)));
  });

  test('a recovery whose process dies before or after its transaction changes nothing, or is finished by the log', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    const survivor = store(0);
    survivor.down = true;
    await push(main, one, await set.commit('lost', one));
    await everywhere(2, [store(1), store(2)]);
    survivor.down = false;
    lose(store(1), store(2));
    await prepareBehind(survivor, await set.commit('side', one));
    const word = { accept: 1, gone: ['node-1', 'node-2'], keepUnacknowledged: true };
    const before = await record();
    const transaction = set.coordinator.transaction.bind(set.coordinator);
    set.coordinator.transaction = (request) =>
      request.success.some(({ type, key }) => type === 'put' && key === keys.head(repository.id))
        ? Promise.reject(new QuorateError('unavailable', 'the coordinator is away'))
        : transaction(request);
    await assert.rejects(recover(word), { code: 'unavailable' });
    set.coordinator.transaction = transaction;
    assert.deepEqual(await record(), before);
    assert.equal(await head(), 2);
    assert.deepEqual(quarantinesOf(survivor).length, 1);

    // Asked first for what is committed, then, by the transaction, to apply what follows from that.
    let applies = 0;
    survivor.interfere = (name, go) => (name === 'apply' && ++applies > 1 ? away() : go());
    assert.equal((await recover(word)).recovered, 3);
    assert.equal((await survivor.replica.state(repository.id))?.generation, 1);
    survivor.interfere = undefined;
    await backend.takeOver();
    await push(main, one, await set.commit('two', one));
    assert.match(
      await refsOf(survivor),
      /refs\/quorate\/unacknowledged\/prepared-behind\/heads\/side/,
    );
    assert.match((await recover()).refusal ?? '', /nothing is lost/);
  });

  test('a reader that has more than the voters that are left is gone on from; others stay readers', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    await addReaders(3);
    const [survivor, behind] = [store(3), store(0)];
    behind.down = true;
    const two = await set.commit('two', one);
    await push(main, one, two);
    await everywhere(2, [store(1), store(2), survivor]);
    behind.down = false;
    behind.interfere = (name, go) => (name === 'apply' ? away() : go());
    lose(store(1), store(2));
    const gone = ['node-1', 'node-2'];
    const dry = await recover({ gone });
    assert.deepEqual(dry.survivor, { nodeId: 'node-3', generation: 2 });
    const report = await recover({ accept: 2, gone });
    assert.deepEqual([report.recovered, report.overruled], [2, []]);
    const { voters, learners, readers } = await record();
    assert.deepEqual([voters, learners, readers].map(namesOf), [['node-3'], ['node-0'], []]);
    behind.interfere = undefined;
    await push(main, two, await set.commit('three', two));
    assert.equal(await head(), 3);
  });

  test('a reader that may come back with more than what is left is waited for, and is not otherwise', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    await addReaders(3);
    const [behind, reader] = [store(0), store(3)];
    behind.down = true;
    await push(main, one, await set.commit('two', one));
    await everywhere(2, [store(1), store(2), reader]);
    behind.down = false;
    const lacking = new QuorateError('unavailable', 'nobody sends it', { details: lacksPushes });
    behind.interfere = (name, go) => (name === 'apply' ? Promise.reject(lacking) : go());
    lose(store(1), store(2), reader);
    const gone = ['node-1', 'node-2'];
    assert.match((await recover({ gone })).refusal ?? '', /^node-3 may come back/);
    await assert.rejects(recover({ accept: 1, gone }), { code: 'failed-precondition' });
    assert.equal((await recover({ gone: [...gone, 'node-3'] })).refusal, undefined);
    store(1).down = false;
    lose(behind);
    const { survivor, refusal } = await recover({ gone: ['node-0', 'node-2'] });
    assert.deepEqual([survivor?.generation, refusal], [2, undefined]);
  });

  test('a reader beside a voter that has as much stays a reader; one that is lost is put aside', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    await change(({ voters: [first, second], ...rest }) => ({
      ...rest,
      voters: [first, second].filter((voter) => voter !== undefined),
    }));
    await addReaders(2, 3);
    await everywhere(1, [store(3)]);
    lose(store(0), store(2));
    await recover({ accept: 1, gone: ['node-0', 'node-2'] });
    const { voters, learners, readers } = await record();
    assert.deepEqual([voters, learners, readers].map(namesOf), [['node-1'], [], ['node-3']]);
    const word = await set.coordinator.get(keys.eviction(store(2).storeId, repository.id));
    assert.match(new TextDecoder().decode(word?.value), /setAside/);
    await push(main, one, await set.commit('two', one));
    assert.equal(await head(), 2);
  });

  test('a lost store that comes back puts its copy aside', async () => {
    await everywhere(1, set.stores.slice(0, 3));
    lose(store(1), store(2));
    await recover({ accept: 1, gone: ['node-1', 'node-2'] });
    store(1).down = false;
    const { replica, root } = store(1);
    await obeyEvictions({ coordinator: set.coordinator, replica, logger: silentLogger });
    assert.equal(await replica.state(repository.id), undefined);
    assert.equal(readdirSync(join(root, 'set-aside')).length, 1);
  });
});

const namesOf = (members: readonly Voter[] | undefined): readonly string[] =>
  (members ?? []).map(({ nodeId }) => nodeId);

async function change(edit: (record: RepositoryRecord) => RepositoryRecord): Promise<void> {
  const value = encodeRepository(edit(await record()));
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.repo(repository.id), value }],
    failure: [],
  });
}

/** Filled, like any that is read. */
async function addReaders(...indexes: readonly number[]): Promise<void> {
  const readers = indexes.map((index): Voter => ({
    nodeId: `node-${index}`,
    storeId: store(index).storeId,
    joinedEpoch: 2,
  }));
  await change((before) => ({ ...before, readers }));
  const { signal } = new AbortController();
  for (const { storeId } of readers) {
    const source = peerSourceOf({ ...set, clock: systemClock }, { id: repository.id, storeId });
    const replica = set.replicas.find(storeId);
    await replica?.catchUp(repository.id, { atLeast: 1, source, signal });
  }
}

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
