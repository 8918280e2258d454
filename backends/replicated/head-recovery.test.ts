import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { keys } from '../contract/keys.js';
import type { HeadFound, HeadRecovery } from '../contract/recovery.js';
import type { Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { createLocks } from '../coordination/locks.js';
import { createProcessLease } from '../coordination/process-lease.js';
import { silentLogger as logger } from '../coordination/test-environment.js';
import { packOf, pushRequest, silentMeter, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { basisUnderLocks } from './basis.js';
import { CommitQueue } from './commit-queue.js';
import { createHeadRecovery } from './head-recovery.js';
import { markNode } from './node-marks.js';
import { decodeRepository, encodeRecord, encodeRepository } from './records.js';
import { openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

const { signal } = new AbortController();

interface Rewound {
  readonly set: ReplicaSet;
  readonly repository: Repository;
  readonly recovery: HeadRecovery;
  readonly putHead: (value: Uint8Array) => Promise<void>;
  /** The head after the first push. */
  readonly old: Uint8Array;
  readonly newest: Uint8Array;
  readonly store: (index: number) => TestStore;
  /** What the comparison finds, of the one repository there is. */
  readonly find: () => Promise<HeadFound | undefined>;
}

/** A repository on three stores, pushed to twice, whose coordinator can be put back. */
async function makeRewound(t: TestContext): Promise<Rewound> {
  const set = await openReplicaSet();
  t.after(() => set.close());
  const { backend } = await set.frontEnd({ consistency: 'strong' });
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const headKey = keys.head(repository.id);
  const pushed = async (branch: string): Promise<Uint8Array> => {
    const oid = await set.commit(branch);
    const pack = await packOf(set.source, [oid], []);
    const command = create(`refs/heads/${branch}`, oid);
    const { generation = 0 } = await backend.push(repository, pushRequest([command], { pack }));
    for (const { replica } of set.stores) await replica.apply(repository.id, generation);
    const head = await set.coordinator.get(headKey);
    assert.ok(head);
    return head.value;
  };
  const old = await pushed('one');
  const newest = await pushed('two');
  const recovery = createHeadRecovery({ ...set, clock: systemClock, logger, replicationFactor: 3 });
  return {
    set,
    repository,
    recovery,
    old,
    newest,
    putHead: async (value) => {
      const success = [{ type: 'put' as const, key: headKey, value }];
      await set.coordinator.transaction({ compares: [], success, failure: [] });
    },
    store: (index) => {
      const store = set.stores[index];
      assert.ok(store);
      return store;
    },
    find: async () => {
      const { compared, found } = await recovery.compare(signal, { frozen: true });
      assert.equal(compared, 1);
      return found[0];
    },
  };
}

test('a head that agrees with the disks, or is ahead of some, is not mentioned', async (t) => {
  const { find, putHead, newest } = await makeRewound(t);
  assert.equal(await find(), undefined);
  const { generation } = JSON.parse(new TextDecoder().decode(newest));
  // Committed, and applied nowhere yet: the log makes it good.
  await putHead(encodeRecord({ generation: generation + 1, digest: 'a'.repeat(128) }));
  assert.equal(await find(), undefined);
});

test('what is pushed, or deleted, while the stores are asked is not mentioned', async (t) => {
  const { set, repository, recovery, store } = await makeRewound(t);
  const { backend } = await set.frontEnd({ consistency: 'strong' });
  const meanwhile = async (change: () => Promise<unknown>): Promise<void> => {
    let begun: Promise<unknown> | undefined;
    store(1).interfere = async (call, go) => {
      if (call !== 'state') return go();
      begun ??= change();
      await begun;
      return go();
    };
    const { found } = await recovery.compare(signal, { frozen: false });
    assert.ok(begun);
    assert.deepEqual(found, []);
  };
  await meanwhile(async () => {
    const oid = await set.commit('three');
    const pack = await packOf(set.source, [oid], []);
    const request = pushRequest([create('refs/heads/three', oid)], { pack });
    await backend.push(repository, request);
    await store(1).replica.apply(repository.id, 3);
  });
  store(1).interfere = undefined;
  await meanwhile(async () => {
    store(1).interfere = undefined;
    await backend.repositories.delete(repository.id);
    await until('it is gone', async () => {
      return (await set.coordinator.get(keys.repo(repository.id))) === undefined;
    });
  });
});

test('what is deleted once the stores have said that they have it is not unknown to the coordinator', async (t) => {
  const { set, repository, recovery, store } = await makeRewound(t);
  const { backend } = await set.frontEnd();
  store(2).interfere = async (call, go) => {
    if (call !== 'copies') return go();
    store(2).interfere = undefined;
    const page = await go();
    await backend.repositories.delete(repository.id);
    await until('it is gone', async () => {
      return (await set.coordinator.get(keys.repo(repository.id))) === undefined;
    });
    return page;
  };
  const { found, unrecorded } = await recovery.compare(signal, { frozen: false });
  assert.deepEqual([found, unrecorded], [[], []]);
});

test('a head that went back is raised to what a voter holds, once', async (t) => {
  const { set, repository, recovery, find, putHead, old, newest } = await makeRewound(t);
  await putHead(old);
  const found = await find();
  assert.equal(found?.verdict, 'behind');
  assert.deepEqual(
    [found.headGeneration, found.generation, found.copies.map(({ generation }) => generation)],
    [1, 2, [2, 2, 2]],
  );
  await recovery.raise(found);
  const raised = await set.coordinator.get(keys.head(repository.id));
  assert.deepEqual(raised?.value, newest);
  assert.equal(await find(), undefined);
  await assert.rejects(recovery.raise(found), { code: 'aborted' });
  // And it goes on from there.
  const { backend } = await set.frontEnd({ consistency: 'strong' });
  const oid = await set.commit('three');
  const pack = await packOf(set.source, [oid], []);
  const request = pushRequest([create('refs/heads/three', oid)], { pack });
  assert.equal((await backend.push(repository, request)).generation, 3);
});

test('a push that was judged by the head that went back is judged again by the one that was raised', async (t) => {
  const { set, repository, recovery, find, putHead, old } = await makeRewound(t);
  const { coordinator } = set;
  await putHead(old);
  const lease = createProcessLease({ coordinator, clock: systemClock, logger });
  const around = { coordinator, clock: systemClock, meter: silentMeter, logger };
  const random = { bytes: (length: number) => randomBytes(length) };
  const locks = createLocks({ ...around, lease, random, holder: 'one' });
  // By two stores that had not applied the second push yet, in which this branch came to be.
  const ref = 'refs/heads/two';
  const held = await locks.acquire({
    repositoryId: repository.id,
    scope: { refs: [ref] },
    pushId: 'three',
    timeoutMs: 30_000,
    signal,
    read: [keys.head(repository.id), keys.repo(repository.id)],
  });
  const basis = basisUnderLocks(repository.id, held.reads);
  const found = await find();
  assert.ok(found);
  await recovery.raise(found);
  const updates = [create(ref, await set.commit('three'))];
  const queue = new CommitQueue(repository.id, around);
  const outcome = await queue.commit({
    held,
    configRevision: basis.configRevision,
    basis: basis.head.generation,
    headSeen: basis,
    frontEnd: 'somebody',
    changes: { updates },
    entry: { pushId: 'three', updates, prepared: ['a', 'b'], actor: 'a', atMs: 1 },
  });
  assert.equal(outcome.status, 'reconfigured');
  await locks.close();
  await lease.close();
});

test('a head that is gone is made again', async (t) => {
  const { set, repository, recovery, find, newest } = await makeRewound(t);
  const headKey = keys.head(repository.id);
  const success = [{ type: 'delete' as const, key: headKey }];
  await set.coordinator.transaction({ compares: [], success, failure: [] });
  const found = await find();
  assert.equal(found?.verdict, 'behind');
  await recovery.raise(found);
  assert.deepEqual((await set.coordinator.get(headKey))?.value, newest);
});

test('a voter that does not answer might hold more', async (t) => {
  const { recovery, find, putHead, old, store } = await makeRewound(t);
  await putHead(old);
  store(2).down = true;
  const found = await find();
  assert.equal(found?.verdict, 'unreachable');
  assert.equal(found.copies[2]?.generation, undefined);
  await assert.rejects(recovery.raise(found), { code: 'aborted' });
});

test('disks that differ from the head, or from each other, are not chosen between', async (t) => {
  const { find, putHead, old, newest, store } = await makeRewound(t);
  const head = JSON.parse(new TextDecoder().decode(newest));
  await putHead(encodeRecord({ ...head, digest: 'b'.repeat(128) }));
  assert.equal((await find())?.verdict, 'split');
  await putHead(old);
  store(1).interfere = (call, go) =>
    call === 'state' ? Promise.resolve({ ...head, digest: 'c'.repeat(128) }) : go();
  assert.equal((await find())?.verdict, 'split');
});

test('a repository of which no disk has anything is told apart', async (t) => {
  const { set, find } = await makeRewound(t);
  for (const one of set.stores) {
    one.interfere = (call, go) => (call === 'state' ? Promise.resolve(undefined) : go());
  }
  const found = await find();
  assert.equal(found?.verdict, 'missing');
  assert.equal(found.generation, 0);
});

test('who is gone for good is not waited for, where a majority of the voters answers', async (t) => {
  const { set, recovery, find, putHead, old, newest, repository, store } = await makeRewound(t);
  await putHead(old);
  const { nodeId } = set.replicas.nodes()[2] ?? { nodeId: '' };
  store(2).down = true;
  const waits = await find();
  assert.equal(waits?.verdict, 'unreachable');
  assert.deepEqual(
    waits.copies.filter(({ silent }) => silent).map((copy) => copy.nodeId),
    [nodeId],
  );
  await markNode(set.coordinator, nodeId, 'removed');
  const found = await find();
  assert.equal(found?.verdict, 'behind');
  assert.ok(found.copies.every(({ silent }) => !silent));
  // One voter alone may lack what the two that are gone acknowledged.
  store(1).down = true;
  await markNode(set.coordinator, 'node-1', 'removed');
  const alone = await find();
  assert.equal(alone?.verdict, 'majority-lost');
  await assert.rejects(recovery.raise(found), { code: 'aborted' });
  store(1).down = false;
  await recovery.raise(found);
  assert.deepEqual((await set.coordinator.get(keys.head(repository.id)))?.value, newest);
});

/** From the next start of its process on, refs of this copy cannot be read. */
async function makeUnreadable({ repository }: Rewound, store: TestStore): Promise<void> {
  const packed = join(store.gitDir(repository.id), 'packed-refs');
  await rm(packed, { force: true });
  await mkdir(packed);
  await store.reopen();
  await assert.rejects(store.replica.state(repository.id), { code: 'storage-failure' });
}

test('a copy that cannot be read is named, and the others are gone on from', async (t) => {
  const scene = await makeRewound(t);
  const { recovery, find, putHead, old, newest, set, repository, store } = scene;
  await makeUnreadable(scene, store(2));
  await putHead(old);
  const found = await find();
  assert.equal(found?.verdict, 'behind');
  assert.deepEqual(
    found.copies.map(({ generation, silent, trouble }) => [
      generation,
      silent,
      trouble !== undefined,
    ]),
    [
      [2, false, false],
      [2, false, false],
      [2, false, true],
    ],
  );
  await recovery.raise(found);
  assert.deepEqual((await set.coordinator.get(keys.head(repository.id)))?.value, newest);
});

test('what only a copy has that cannot be read is waited for', async (t) => {
  const scene = await makeRewound(t);
  const { recovery, find, putHead, old, store } = scene;
  for (const index of [0, 1]) {
    store(index).interfere = (call, go) =>
      call === 'state' ? Promise.resolve(JSON.parse(new TextDecoder().decode(old))) : go();
  }
  await makeUnreadable(scene, store(2));
  await putHead(old);
  const found = await find();
  assert.deepEqual([found?.verdict, found?.generation], ['unreachable', 2]);
  const [, , latest] = found?.copies ?? [];
  assert.deepEqual([latest?.silent, latest?.generation], [true, 2]);
  assert.match(latest?.trouble ?? '', /the refs of the repository cannot be read/);
  assert.ok(found);
  await assert.rejects(recovery.raise(found), { code: 'aborted' });
});

test('a copy that cannot tell how far it is might be the latest', async (t) => {
  const { find, putHead, old, store, repository } = await makeRewound(t);
  for (const name of ['state', 'intent']) {
    const path = join(store(2).gitDir(repository.id), '..', name);
    await rm(path);
    await mkdir(path);
  }
  await store(2).reopen();
  await putHead(old);
  const found = await find();
  assert.equal(found?.verdict, 'unreachable');
  assert.match(found.copies[2]?.trouble ?? '', /the state of a repository cannot be read/);
});

test('a voter that cannot be read votes no more where others are needed, and is filled anew', async (t) => {
  const scene = await makeRewound(t);
  const { recovery, find, putHead, old, set, repository, store } = scene;
  await makeUnreadable(scene, store(1));
  await makeUnreadable(scene, store(2));
  const record = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(record);
  // By the copy of the coordinator the only store whose copy can be read was no voter yet.
  const before = decodeRepository(record);
  const value = encodeRepository({ ...before, voters: before.voters.slice(1) });
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: record.key, value }],
    failure: [],
  });
  await putHead(old);
  const found = await find();
  assert.equal(found?.verdict, 'behind');
  await recovery.raise(found);
  const raised = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(raised);
  const { voters, learners } = decodeRepository(raised);
  const nodes = [voters, learners].map((some) => some.map(({ storeId }) => storeId));
  assert.deepEqual(nodes, [[store(0).storeId], [store(1).storeId, store(2).storeId]]);
});
