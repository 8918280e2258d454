import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { LossRecovery, LossReport } from '../contract/cluster.js';
import { keys } from '../contract/keys.js';
import type { HeadFound } from '../contract/recovery.js';
import type { Repository } from '../contract/repository.js';
import { silentLogger as logger } from '../coordination/test-environment.js';
import { packOf, pushRequest, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { obeyEvictions } from './evictions.js';
import { createHeadRecovery } from './head-recovery.js';
import { markNode } from './node-marks.js';
import {
  decodeHead,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
} from './records.js';
import { recoverLost } from './testing/lost-set.js';
import { away, openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

interface Scene {
  readonly set: ReplicaSet;
  readonly repository: Repository;
  /** On these stores of the record, the rest of which are down. */
  readonly push: (branch: string, applied: readonly number[]) => Promise<number>;
  readonly store: (index: number) => TestStore;
  readonly find: () => Promise<HeadFound | undefined>;
  readonly recover: (how?: Partial<LossRecovery>) => Promise<LossReport>;
  readonly record: () => Promise<RepositoryRecord>;
  readonly headGeneration: () => Promise<number | undefined>;
  /** The coordinator is as it was after the first push. */
  readonly putBack: () => Promise<void>;
  /** These nodes are destroyed, and nobody has said so. */
  readonly lose: (...indexes: readonly number[]) => void;
}

/** A repository on three of four stores, pushed to once everywhere, of which an older copy of the coordinator knows. */
async function open(t: TestContext): Promise<Scene> {
  const set = await openReplicaSet(4);
  t.after(() => set.close());
  const { backend, locks } = await set.frontEnd();
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const { id } = repository;
  const { coordinator } = set;
  const read = async (): Promise<RepositoryRecord> => {
    const entry = await coordinator.get(keys.repo(id));
    assert.ok(entry);
    return decodeRepository(entry);
  };
  const first = await read();
  // Stores in the order of the record, and the one that it does not name.
  const storeOf = (storeId: string): TestStore | undefined =>
    set.stores.find(({ replica }) => replica.storeId === storeId);
  const named = first.voters.map(({ storeId }) => storeOf(storeId));
  const ordered = [...named, ...set.stores.filter((one) => !named.includes(one))];
  const store: Scene['store'] = (index) => {
    const one = ordered[index];
    assert.ok(one);
    return one;
  };
  const push: Scene['push'] = async (branch, applied) => {
    const oid = await set.commit(branch);
    const pack = await packOf(set.source, [oid], []);
    const command = create(`refs/heads/${branch}`, oid);
    const { generation = 0 } = await backend.push(repository, pushRequest([command], { pack }));
    assert.ok(generation > 0);
    for (const index of applied) await store(index).replica.apply(id, generation);
    return generation;
  };
  await push('one', [0, 1, 2]);
  const old = await coordinator.get(keys.head(id));
  assert.ok(old);
  const recovery = createHeadRecovery({ ...set, clock: systemClock, logger, replicationFactor: 3 });
  const { signal } = new AbortController();
  return {
    set,
    repository,
    push,
    store,
    find: async () => (await recovery.compare(signal, { frozen: true })).found[0],
    recover: (how = {}) => recoverLost({ set, locks, repositoryId: id }, how),
    record: read,
    headGeneration: async () => {
      const head = await coordinator.get(keys.head(id));
      return head && decodeHead(head).generation;
    },
    putBack: async () => {
      await coordinator.transaction({
        compares: [],
        success: [
          { type: 'put', key: old.key, value: old.value },
          { type: 'put', key: keys.repo(id), value: encodeRepository(first) },
        ],
        failure: [],
      });
      for (const { reopen } of set.stores) await reopen();
    },
    lose: (...indexes) => {
      for (const index of indexes) store(index).down = true;
    },
  };
}

const nodeOf = ({ voters }: RepositoryRecord, index: number): string => voters[index]?.nodeId ?? '';

test('what is left, ahead of an older copy of the coordinator, is gone on from by an explicit word, once the others are gone for good', async (t) => {
  const scene = await open(t);
  const { set, find, recover, record, headGeneration, store, repository } = scene;
  await scene.push('two', [0, 1, 2]);
  await scene.putBack();
  scene.lose(1, 2);
  assert.equal((await find())?.verdict, 'unreachable');
  const waiting = await recover();
  assert.match(waiting.refusal ?? '', /may come back, and might have the latest: .* \(--gone /);
  await assert.rejects(recover({ accept: 2 }), { code: 'failed-precondition' });

  const before = await record();
  for (const index of [1, 2]) await markNode(set.coordinator, nodeOf(before, index), 'removed', 1);
  assert.equal((await find())?.verdict, 'majority-lost');
  const report = await recover();
  assert.equal(report.refusal, undefined);
  assert.deepEqual(
    [report.generation, report.survivor],
    [1, { nodeId: nodeOf(before, 0), generation: 2 }],
  );
  await assert.rejects(recover({ accept: 1 }), /generation 2, not 1: look at the report again/);
  assert.equal(await headGeneration(), 1);

  assert.equal((await recover({ accept: 2 })).recovered, 2);
  assert.equal(await headGeneration(), 2);
  const after = await record();
  assert.deepEqual(
    after.voters.map(({ storeId }) => storeId),
    [store(0).replica.storeId],
  );
  assert.deepEqual(after.learners, []);
  assert.equal(await find(), undefined);
  assert.equal((await store(0).replica.state(repository.id))?.frozen, undefined);
  assert.equal(await scene.push('three', [0]), 3);
  // Should one of the others come back all the same.
  store(1).down = false;
  await obeyEvictions({ coordinator: set.coordinator, replica: store(1).replica, logger });
  assert.equal(await store(1).replica.state(repository.id), undefined);
});

test('who is said to be gone need not be removed first', async (t) => {
  const scene = await open(t);
  await scene.push('two', [0, 1, 2]);
  await scene.putBack();
  scene.lose(1, 2);
  const before = await scene.record();
  const gone = [nodeOf(before, 1), nodeOf(before, 2)];
  assert.equal((await scene.recover({ gone })).refusal, undefined);
  assert.equal((await scene.recover({ gone, accept: 2 })).recovered, 2);
  assert.equal(await scene.headGeneration(), 2);
});

test('a majority that answers is for quorate recover', async (t) => {
  const scene = await open(t);
  await scene.push('two', [0, 1, 2]);
  await scene.putBack();
  scene.lose(2);
  await markNode(scene.set.coordinator, nodeOf(await scene.record(), 2), 'removed', 1);
  assert.equal((await scene.find())?.verdict, 'behind');
  assert.match(
    (await scene.recover()).refusal ?? '',
    /ahead of the coordinator.*quorate recover is/,
  );
  await assert.rejects(scene.recover({ accept: 2 }), { code: 'failed-precondition' });
  assert.equal(await scene.headGeneration(), 1);
});

test('a copy that is left and has less learns from the one that has most', async (t) => {
  const scene = await open(t);
  const record = await scene.record();
  for (const index of [1, 2]) {
    scene.store(index).interfere = (call, go) => (call === 'apply' ? away() : go());
  }
  await scene.push('two', [0]);
  await scene.putBack();
  scene.store(1).interfere = undefined;
  // Of five voters two are left.
  const { coordinator } = scene.set;
  const others = ['x', 'y'].map((nodeId) => ({
    nodeId,
    storeId: nodeId.repeat(32),
    joinedEpoch: 1,
  }));
  const value = encodeRepository({ ...record, voters: [...record.voters, ...others] });
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.repo(record.id), value }],
    failure: [],
  });
  scene.lose(2);
  for (const nodeId of ['x', 'y', nodeOf(record, 2)])
    await markNode(coordinator, nodeId, 'removed', 1);
  assert.equal((await scene.recover({ accept: 2 })).recovered, 2);
  const { voters, learners } = await scene.record();
  assert.deepEqual(
    [voters, learners].map((members) => members.map(({ nodeId }) => nodeId)),
    [[nodeOf(record, 0)], [nodeOf(record, 1)]],
  );
});
