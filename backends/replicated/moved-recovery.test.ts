import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { KeyValue, Operation } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { HeadFound, HeadRecovery } from '../contract/recovery.js';
import type { PeerSource } from '../contract/replica.js';
import type { Repository } from '../contract/repository.js';
import { packOf, pushRequest, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { evicted, obeyEvictions } from './evictions.js';
import { createHeadRecovery } from './head-recovery.js';
import { markNode } from './node-marks.js';
import { encodeNode } from './node-record.js';
import { peerSourceOf } from './peers.js';
import {
  decodeHead,
  decodeRepository,
  encodeRecord,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import { silentLogger as logger } from '../coordination/test-environment.js';
import { recoverLost } from './testing/lost-set.js';
import { away, openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

const { signal } = new AbortController();

/** A repository that was on the first three stores when a copy of the coordinator was made. */
class MovedScene {
  readonly set: ReplicaSet;
  readonly repository: Repository;
  readonly recovery: HeadRecovery;
  #old: readonly KeyValue[] = [];

  constructor(set: ReplicaSet, repository: Repository) {
    this.set = set;
    this.repository = repository;
    this.recovery = createHeadRecovery({
      ...set,
      clock: systemClock,
      logger,
      replicationFactor: 3,
    });
  }

  static async make(t: TestContext, stores = 6): Promise<MovedScene> {
    const set = await openReplicaSet(stores);
    t.after(() => set.close());
    const { backend } = await set.frontEnd({ consistency: 'strong' });
    const repository = await backend.repositories.create({
      name: 'team/app',
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
    const scene = new MovedScene(set, repository);
    await scene.push('one');
    const { coordinator } = set;
    const old = [keys.repo(repository.id), keys.head(repository.id)];
    scene.#old = (await Promise.all(old.map((key) => coordinator.get(key)))).filter(
      (entry) => entry !== undefined,
    );
    return scene;
  }

  store(index: number): TestStore {
    const store = this.set.stores[index];
    assert.ok(store);
    return store;
  }

  put(...success: Operation[]): Promise<unknown> {
    return this.set.coordinator.transaction({ compares: [], success, failure: [] });
  }

  async record(): Promise<RepositoryRecord> {
    const entry = await this.set.coordinator.get(keys.repo(this.repository.id));
    assert.ok(entry);
    return decodeRepository(entry);
  }

  async head(): Promise<number> {
    const entry = await this.set.coordinator.get(keys.head(this.repository.id));
    assert.ok(entry);
    return decodeHead(entry).generation;
  }

  /** Indices of the stores of a role, in order. */
  async indices(role: 'voters' | 'learners'): Promise<readonly number[]> {
    const members: readonly Voter[] = (await this.record())[role];
    return members
      .map(({ storeId }) => this.set.stores.findIndex((store) => store.storeId === storeId))
      .toSorted((a, b) => a - b);
  }

  /** Each of these voters applies it. */
  async push(branch: string): Promise<number> {
    const { backend } = await this.set.frontEnd({ consistency: 'strong' });
    const oid = await this.set.commit(branch);
    const pack = await packOf(this.set.source, [oid], []);
    const request = pushRequest([create(`refs/heads/${branch}`, oid)], { pack });
    const { generation = 0 } = await backend.push(this.repository, request);
    for (const index of await this.indices('voters')) {
      await this.store(index).replica.apply(this.repository.id, generation);
    }
    return generation;
  }

  /** As drains and moves do it: who comes is filled, and who leaves removes its copy, if it `obeys`. */
  async move(to: readonly number[], obeys: readonly number[]): Promise<void> {
    const { coordinator, replicas } = this.set;
    const { id } = this.repository;
    const before = await this.record();
    const voters = to.map((index): Voter => {
      return { nodeId: `node-${index}`, storeId: this.store(index).storeId, joinedEpoch: 9 };
    });
    const key = keys.repo(id);
    await this.put({ type: 'put', key, value: encodeRepository({ ...before, learners: voters }) });
    for (const { storeId } of voters) {
      const source = peerSourceOf({ coordinator, replicas, clock: systemClock }, { id, storeId });
      const atLeast = await this.head();
      await replicas.find(storeId)?.catchUp(id, { atLeast, source, signal });
    }
    await this.put({ type: 'put', key, value: encodeRepository({ ...before, voters, epoch: 9 }) });
    for (const index of obeys) await this.store(index).replica.destroy(id);
  }

  /** The older copy of the coordinator. */
  async putBack(): Promise<void> {
    await this.put(
      { type: 'delete', key: keys.log(this.repository.id), rangeEnd: `log/${this.repository.id}0` },
      ...this.#old.map(({ key, value }): Operation => ({ type: 'put', key, value })),
    );
  }

  async find(): Promise<HeadFound | undefined> {
    return (await this.recovery.compare(signal, { frozen: true })).found[0];
  }

  async raise(verdict: HeadFound['verdict']): Promise<void> {
    const found = await this.find();
    assert.equal(found?.verdict, verdict);
    await this.recovery.raise(found);
    assert.equal((await this.find())?.verdict, undefined);
  }

  generationOf(index: number): Promise<number | undefined> {
    return this.store(index)
      .replica.state(this.repository.id)
      .then((state) => state?.generation);
  }
}

test('who took all copies since votes, when none of those that the record names has anything', async (t) => {
  const scene = await MovedScene.make(t);
  await scene.move([3, 4, 5], [0, 1, 2]);
  await scene.push('two');
  await scene.putBack();
  const found = await scene.find();
  assert.deepEqual(
    found?.copies.map(({ nodeId, generation, named }) => [nodeId, generation, named]),
    [
      ['node-0', undefined, true],
      ['node-1', undefined, true],
      ['node-2', undefined, true],
      ['node-3', 2, false],
      ['node-4', 2, false],
      ['node-5', 2, false],
    ],
  );
  await scene.raise('behind');
  assert.deepEqual([await scene.indices('voters'), await scene.head()], [[3, 4, 5], 2]);
  assert.equal(await scene.push('three'), 3);
});

test('a push that is on no store that the record names is not lost, nor are the older copies', async (t) => {
  const scene = await MovedScene.make(t);
  await scene.move([2, 3, 4], [1]);
  // Acknowledged by a majority, the third voter being away.
  const generation = await scene.push('two');
  await scene.store(2).replica.destroy(scene.repository.id);
  await scene.putBack();
  assert.equal(await scene.generationOf(0), 1);
  await scene.raise('behind');
  assert.deepEqual(
    [await scene.indices('voters'), await scene.indices('learners'), await scene.head()],
    [[3, 4], [0], generation],
  );
  assert.equal(await scene.generationOf(0), 1, 'nothing was set aside');
});

test('who holds the latest beside one of the voters votes with it', async (t) => {
  const scene = await MovedScene.make(t, 4);
  await scene.move([0, 2, 3], [1]);
  await scene.store(2).replica.destroy(scene.repository.id);
  await scene.putBack();
  const before = await scene.find();
  assert.equal(before?.verdict, 'moved');
  await scene.raise('moved');
  assert.deepEqual([await scene.indices('voters'), await scene.head()], [[0, 3], 1]);
  assert.equal(await scene.push('two'), 2);
});

test('where a majority of the voters has the latest, they go on, and the other copy is shown', async (t) => {
  const scene = await MovedScene.make(t, 4);
  await scene.move([0, 1, 3], [2]);
  await scene.push('two');
  await scene.putBack();
  const found = await scene.find();
  assert.deepEqual(
    found?.copies.map(({ nodeId, generation, named }) => [nodeId, generation, named]),
    [
      ['node-0', 2, true],
      ['node-1', 2, true],
      ['node-2', undefined, true],
      ['node-3', 2, false],
    ],
  );
  await scene.raise('behind');
  assert.deepEqual([await scene.indices('voters'), await scene.head()], [[0, 1, 2], 2]);
});

test('copies of one generation that differ are not chosen between, whoever has them', async (t) => {
  const scene = await MovedScene.make(t, 4);
  await scene.move([0, 1, 3], [2]);
  await scene.putBack();
  const { replica } = scene.store(3);
  const state = await replica.state(scene.repository.id);
  scene.store(3).interfere = (call, go) =>
    call === 'state' ? Promise.resolve({ ...state, digest: 'c'.repeat(128) }) : go();
  assert.equal((await scene.find())?.verdict, 'split');
});

test('a store that does not say what it holds is named; one that then does not say how far it is holds up its repository', async (t) => {
  const scene = await MovedScene.make(t, 4);
  await scene.move([0, 1, 3], [2]);
  await scene.putBack();
  const announced = {
    nodeId: 'node-9',
    storeId: 'f'.repeat(32),
    address: 'h:1',
    zone: '',
    weight: 1,
    capacityBytes: 1,
    usedBytes: 0,
    draining: false,
    version: '0',
  };
  for (const nodeId of ['node-9', 'gone']) {
    const value = encodeNode({ ...announced, nodeId });
    await scene.put({ type: 'put', key: keys.node(nodeId), value });
  }
  await markNode(scene.set.coordinator, 'gone', 'removed');
  scene.store(3).interfere = (call, go) => (call === 'copies' ? away() : go());
  const { unheard, found } = await scene.recovery.compare(signal, { frozen: true });
  assert.deepEqual([unheard, found], [['node-3', 'node-9'], []]);
  scene.store(3).interfere = (call, go) => (call === 'state' ? away() : go());
  const held = await scene.find();
  assert.deepEqual(
    [held?.verdict, held?.copies.filter(({ silent }) => silent).map(({ nodeId }) => nodeId)],
    ['unreachable', ['node-3']],
  );
});

test('nodes that are gone for good are not waited for, where as many others have the latest', async (t) => {
  const scene = await MovedScene.make(t, 5);
  await scene.move([2, 3, 4], []);
  await scene.push('two');
  await scene.putBack();
  for (const index of [0, 1]) scene.store(index).down = true;
  assert.equal((await scene.find())?.verdict, 'unreachable');
  for (const nodeId of ['node-0', 'node-1']) {
    await markNode(scene.set.coordinator, nodeId, 'removed');
  }
  await scene.raise('behind');
  assert.deepEqual(await scene.indices('voters'), [2, 3, 4]);
  // Should they come back all the same, what they have is put aside, and not removed.
  for (const index of [0, 1]) {
    const { storeId } = scene.store(index);
    const word = await scene.set.coordinator.get(keys.eviction(storeId, scene.repository.id));
    assert.deepEqual(JSON.parse(new TextDecoder().decode(word?.value)), { setAside: true });
  }
});

test('a copy that was only begun when others were found to have all goes, although it is filled after that', async (t) => {
  const scene = await MovedScene.make(t);
  const { coordinator } = scene.set;
  const { id } = scene.repository;
  await scene.move([3, 4, 5], [0, 1, 2]);
  await scene.putBack();
  const filled = scene.store(0).replica;
  let asked = 0;
  const source: PeerSource = async (have, atLeast, ended) => {
    // When the copy is begun, which its store is to have by the record that there is then.
    if (++asked === 2) await scene.raise('moved');
    return scene.store(3).replica.export(id, { have, atLeast, signal: ended });
  };
  await filled.catchUp(id, { atLeast: 1, source, signal });
  assert.deepEqual([asked, await scene.indices('voters')], [2, [3, 4, 5]]);
  assert.equal(await scene.generationOf(0), 1);
  await obeyEvictions({ coordinator, replica: filled, logger });
  assert.equal(await scene.generationOf(0), undefined);
});

test('what was to be removed when the copy was made is not, where it has come back since', async (t) => {
  const scene = await MovedScene.make(t);
  const { coordinator } = scene.set;
  const { id } = scene.repository;
  await scene.move([3, 4, 5], [0, 1, 2]);
  await scene.push('two');
  await scene.putBack();
  await scene.put(evicted(id, scene.store(3).storeId));
  await scene.raise('behind');
  await obeyEvictions({ coordinator, replica: scene.store(3).replica, logger });
  assert.equal(await scene.generationOf(3), 2);
});

test('a copy that cannot be raised to stays, whatever was to be removed when the copy of the coordinator was made', async (t) => {
  const scene = await MovedScene.make(t);
  const { coordinator } = scene.set;
  const { id } = scene.repository;
  await scene.move([3, 4, 5], [0, 1]);
  await scene.push('two');
  await scene.putBack();
  scene.store(2).down = true;
  scene.store(4).down = true;
  for (const index of [3, 4]) await scene.put(evicted(id, scene.store(index).storeId));
  const found = await scene.find();
  assert.equal(found?.verdict, 'unreachable');
  await scene.recovery.keepCopies([found]);
  for (const index of [3, 4]) {
    await obeyEvictions({ coordinator, replica: scene.store(index).replica, logger });
  }
  for (const index of [3, 4]) assert.equal(await scene.generationOf(index), 2);
  // It goes on when those are back that were waited for.
  for (const index of [2, 4]) scene.store(index).down = false;
  await scene.raise('behind');
  assert.deepEqual(await scene.indices('voters'), [3, 4, 5]);
});

test('a head without copies that would make it good is no news, and a tombstone is not compared', async (t) => {
  const scene = await MovedScene.make(t, 3);
  const { id } = scene.repository;
  const key = keys.head(id);
  await scene.put({ type: 'put', key, value: encodeRecord({ generation: 7, digest: 'a' }) });
  assert.equal(await scene.find(), undefined);
  const gone = encodeRepository({ ...(await scene.record()), state: 'deleted' });
  await scene.put({ type: 'put', key: keys.repo(id), value: gone });
  assert.equal((await scene.recovery.compare(signal, { frozen: true })).compared, 0);
});

test('the one store that is left with the latest, which the record does not name, is gone on from by an explicit word', async (t) => {
  const scene = await MovedScene.make(t);
  await scene.move([3, 4, 5], [1, 2]);
  await scene.push('two');
  await scene.putBack();
  for (const index of [1, 2, 4, 5]) {
    scene.store(index).down = true;
    await markNode(scene.set.coordinator, `node-${index}`, 'removed', 1);
  }
  assert.equal((await scene.find())?.verdict, 'majority-lost');
  const { locks } = await scene.set.frontEnd();
  const lost = { set: scene.set, locks, repositoryId: scene.repository.id };
  const { survivor, copies, refusal } = await recoverLost(lost, {});
  assert.deepEqual([survivor, refusal], [{ nodeId: 'node-3', generation: 2 }, undefined]);
  assert.deepEqual(
    copies.map(({ nodeId, role, usable }) => [nodeId, role, usable]),
    [
      ['node-0', 'voter', false],
      ['node-1', 'voter', false],
      ['node-2', 'voter', false],
      ['node-3', 'unnamed', true],
    ],
  );
  assert.equal((await recoverLost(lost, { accept: 2 })).recovered, 2);
  assert.deepEqual(
    [await scene.indices('voters'), await scene.indices('learners'), await scene.head()],
    [[3], [0], 2],
  );
});
