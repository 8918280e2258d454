import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import type { KeyValue, Operation, Transaction } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { HeadFound, HeadRecovery } from '../contract/recovery.js';
import type { NewRepository, Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import { encodeCluster } from '../coordination/cluster-record.js';
import { silentLogger as logger } from '../coordination/test-environment.js';
import { packOf, pushRequest, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { createHeadRecovery } from './head-recovery.js';
import { decodeHead, decodeRepository, type RepositoryRecord } from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { intercepting } from './testing/fault-coordinator.js';
import { inRounds } from './testing/rounds.js';
import { away, openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

// The coordinator is put back to a copy that was made while repositories were being made or removed.

const { signal } = new AbortController();
const access = { public: false, grants: {} };
/** All that is in a copy, but what is under leases: whoever held them is gone. */
const saved = ['repos/', 'names/', 'heads/', 'log/', 'outbox/', 'pools/', 'pool-members/'];
saved.push('evictions/', 'cluster/');

let set: ReplicaSet;
let backend: ReplicatedBackend;
let recovery: HeadRecovery;
/** The copy, once it was made. */
let copy: readonly KeyValue[];
/** The copy is made when a transaction is about to run of which this is true. */
let saves: (transaction: Transaction) => boolean;

beforeEach(async () => {
  set = await openReplicaSet(3);
  await incarnate(1);
  copy = [];
  saves = () => false;
  const wrap: Parameters<typeof set.frontEnd>[0] = {
    consistency: 'strong',
    // It is taken to be gone when the copy is put back, and sweeps nothing after that.
    clock: inRounds().clock,
    wrap: (coordinator) =>
      intercepting(coordinator, (one) => {
        if (!saves(one)) return undefined;
        saves = () => false;
        return async (run) => {
          await save();
          return run();
        };
      }),
  };
  ({ backend } = await set.frontEnd(wrap));
  recovery = createHeadRecovery({ ...set, clock: systemClock, logger, replicationFactor: 3 });
});
afterEach(() => set.close());

const described = (name: string): NewRepository => {
  return { name, defaultBranch: 'main', objectFormat: 'sha1', settings: {}, access };
};

/** The last step of making a repository of this name. */
const makes =
  (name: string) =>
  ({ success }: Transaction): boolean =>
    success.some(({ type, key }) => type === 'put' && key === keys.name(name));

async function everything(): Promise<readonly KeyValue[]> {
  const ranges = saved.map((prefix) =>
    set.coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) }),
  );
  return (await Promise.all(ranges)).flatMap(({ entries }) => entries);
}

async function save(): Promise<void> {
  copy = await everything();
}

function put(...success: Operation[]): Promise<unknown> {
  return set.coordinator.transaction({ compares: [], success, failure: [] });
}

/** As a recovery does, which goes on from the coordinator as it is. */
function incarnate(incarnation: number): Promise<unknown> {
  const id = 'c'.repeat(32);
  const recovery = incarnation === 1 ? {} : { recovery: String(incarnation).repeat(32) };
  const value = encodeCluster({ id, incarnation, ...recovery });
  return put({ type: 'put', key: keys.cluster, value });
}

/** As when all servers were stopped: whoever was there before is gone. */
async function putBack(): Promise<void> {
  assert.ok(copy.length > 0, 'there is a copy');
  for (const prefix of [...saved, keys.frontEnd('')]) {
    await put({ type: 'delete', key: prefix, rangeEnd: prefixEnd(prefix) });
  }
  await put(...copy.map(({ key, value }): Operation => ({ type: 'put', key, value })));
  for (const { reopen } of set.stores) await reopen();
}

async function push(
  repository: Repository,
  branch: string,
  {
    by = backend,
    applied = [0, 1, 2],
  }: { readonly by?: ReplicatedBackend; readonly applied?: readonly number[] } = {},
): Promise<number> {
  const oid = await set.commit(branch);
  const pack = await packOf(set.source, [oid], []);
  const request = pushRequest([create(`refs/heads/${branch}`, oid)], { pack });
  const { generation = 0 } = await by.push(repository, request);
  assert.ok(generation > 0, 'it is acknowledged');
  for (const index of applied) await store(index).replica.apply(repository.id, generation);
  return generation;
}

/** A server starts, and cleans up. */
async function started(): Promise<ReplicatedBackend> {
  return (await set.frontEnd({ consistency: 'strong' })).backend;
}

async function recordOf({ id }: Repository): Promise<RepositoryRecord | undefined> {
  const entry = await set.coordinator.get(keys.repo(id));
  return entry === undefined ? undefined : decodeRepository(entry);
}

async function find(frozen = true): Promise<readonly HeadFound[]> {
  return (await recovery.compare(signal, { frozen })).found;
}

async function raise(frozen = true): Promise<void> {
  for (const found of await find(frozen)) {
    assert.equal(found.verdict, 'unfinished');
    await recovery.raise(found);
  }
  assert.deepEqual(await find(frozen), []);
}

function store(index: number): TestStore {
  const one = set.stores[index];
  assert.ok(one);
  return one;
}

const generationsOf = ({ id }: Repository): Promise<readonly (number | undefined)[]> =>
  Promise.all(set.stores.map(async ({ replica }) => (await replica.state(id))?.generation));

/** It is there under its name, with all pushes, and takes another. */
async function assertLives({ id, name }: Repository, generation: number): Promise<void> {
  const front = await started();
  const repository = await front.repositories.get(name);
  assert.equal(repository?.id, id);
  const head = await set.coordinator.get(keys.head(id));
  assert.equal(head === undefined ? undefined : decodeHead(head).generation, generation);
  assert.deepEqual(await generationsOf(repository), [generation, generation, generation]);
  assert.equal(await push(repository, 'later', { by: front }), generation + 1);
}

/** Was being made when the copy was, and is pushed to after that. */
async function madeMeanwhile(name: string): Promise<Repository> {
  saves = makes(name);
  const repository = await backend.repositories.create(described(name));
  await push(repository, 'one');
  return repository;
}

test('a clean-up leaves a repository alone that was pushed to after the copy in which it is being made', async () => {
  const repository = await madeMeanwhile('team/app');
  await putBack();
  // Nobody knows yet that this is an older copy.
  await started();
  assert.deepEqual(await generationsOf(repository), [1, 1, 1]);
  assert.equal((await recordOf(repository))?.state, 'creating');
  await raise(false);
  await assertLives(repository, 1);
});

test('a repository that was being made when the copy was is finished with what the stores hold', async () => {
  const repository = await madeMeanwhile('team/app');
  await push(repository, 'two');
  await putBack();
  const [found] = await find();
  assert.deepEqual(
    [found?.name, found?.verdict, found?.headGeneration, found?.generation],
    ['team/app', 'unfinished', 0, 2],
  );
  await raise();
  assert.equal((await recordOf(repository))?.creator, undefined);
  await assertLives(repository, 2);
});

test('a fork that was being made when the copy was is finished, and has its objects', async () => {
  const source = await backend.repositories.create(described('source'));
  await push(source, 'one');
  saves = makes('fork');
  const fork = await backend.repositories.fork(source, { name: 'fork', access, visible: allRefs });
  await push(fork, 'two');
  await putBack();
  await started();
  assert.deepEqual(await generationsOf(fork), [2, 2, 2]);
  await raise();
  await assertLives(fork, 2);
  for (const { replica } of set.stores) {
    assert.deepEqual((await replica.verify(fork.id, { signal })).problems, []);
  }
});

test('whoever has the pushes of a repository that moved since it was made votes', async () => {
  const repository = await madeMeanwhile('team/app');
  await putBack();
  await store(0).replica.destroy(repository.id);
  await store(1).replica.destroy(repository.id);
  const [found] = await find();
  assert.equal(found?.verdict, 'unfinished');
  await recovery.raise(found);
  assert.equal((await recordOf(repository))?.state, 'active');
});

test('what nothing was pushed to is finished while commits are frozen, as far as it was made', async () => {
  saves = makes('team/app');
  const repository = await backend.repositories.create(described('team/app'));
  await putBack();
  assert.deepEqual(await find(false), []);
  await raise();
  await assertLives(repository, 0);
});

test('what was never made is buried after a recovery, and by a clean-up without', async () => {
  saves = makes('team/app');
  const repository = await backend.repositories.create(described('team/app'));
  await putBack();
  for (const index of [0, 1]) await store(index).replica.destroy(repository.id);
  assert.deepEqual(await find(), []);
  await started();
  assert.equal(await recordOf(repository), undefined);
  assert.ok(set.stores.every(({ gitDir }) => !existsSync(gitDir(repository.id))));
});

test('a store that does not answer might have pushes; a clean-up in between takes nothing of them', async () => {
  const repository = await madeMeanwhile('team/app');
  for (const index of [1, 2]) await store(index).replica.destroy(repository.id);
  await putBack();
  store(0).down = true;
  for (const index of [1, 2]) {
    store(index).interfere = (call, go) => {
      const isAsked = call === 'state';
      return isAsked ? Promise.resolve({ generation: 0, digest: '' }) : go();
    };
  }
  assert.deepEqual(
    (await find()).map(({ verdict }) => verdict),
    ['unreachable'],
  );
  // Gone on from by force: what is taken for half-made is buried, and waits for the store.
  await started();
  assert.equal((await recordOf(repository))?.state, 'deleted');
  for (const one of set.stores) one.interfere = undefined;
  store(0).down = false;
  await started();
  assert.equal((await generationsOf(repository))[0], 1);
  await raise(false);
  assert.equal((await recordOf(repository))?.state, 'active');
  assert.equal((await (await started()).repositories.get('team/app'))?.id, repository.id);
});

test('one whose name another has by the copy waits, untouched, until it is given up', async () => {
  const other = await backend.repositories.create(described('other'));
  const repository = await madeMeanwhile('team/app');
  // By then: taken while the one was being made, and given up before it was finished.
  await put({ type: 'delete', key: keys.name('other') });
  await putBack();
  const late = await started();
  await late.repositories.rename(other.id, 'team/app');
  assert.deepEqual(
    (await find()).map(({ verdict, generation }) => [verdict, generation]),
    [['name-taken', 1]],
  );
  await started();
  assert.deepEqual(await generationsOf(repository), [1, 1, 1]);
  await late.repositories.rename(other.id, 'elsewhere');
  await raise(false);
  await assertLives(repository, 1);
});

test('of two of one name that were being made, the one that was pushed to has it', async () => {
  const loser = await backend.repositories.create(described('team/app'));
  const record = await recordOf(loser);
  const value = (await set.coordinator.get(keys.repo(loser.id)))?.value;
  assert.ok(record !== undefined && value !== undefined);
  await put({ type: 'delete', key: keys.name('team/app') });
  const winner = await madeMeanwhile('team/app');
  const half = JSON.parse(new TextDecoder().decode(value));
  const unfinished = new TextEncoder().encode(JSON.stringify({ ...half, state: 'creating' }));
  copy = [
    ...copy.filter(({ key }) => !key.endsWith(loser.id)),
    ...copy
      .filter(({ key }) => key === keys.repo(loser.id))
      .map((entry) => ({ ...entry, value: unfinished })),
  ];
  await putBack();
  assert.deepEqual(
    (await find()).map(({ repositoryId }) => repositoryId),
    [winner.id],
  );
  await raise();
  await assertLives(winner, 1);
  assert.equal(await recordOf(loser), undefined);
});

test('a name that was freed, and taken again by what was being made when the copy was, is the latter’s', async () => {
  const before = await backend.repositories.create(described('team/app'));
  await push(before, 'zero');
  store(2).interfere = (call, go) => (call === 'destroy' ? away() : go());
  await backend.repositories.delete(before.id);
  const repository = await madeMeanwhile('team/app');
  store(2).interfere = undefined;
  await putBack();
  assert.equal((await recordOf(before))?.state, 'deleted');
  await raise();
  await assertLives(repository, 1);
  assert.deepEqual(await generationsOf(before), [undefined, undefined, undefined]);
  assert.equal(await recordOf(before), undefined);
});

test('a repository that was being removed when the copy was is removed', async () => {
  const repository = await backend.repositories.create(described('team/app'));
  await push(repository, 'one');
  store(2).down = true;
  await backend.repositories.delete(repository.id);
  await save();
  store(2).down = false;
  await putBack();
  assert.deepEqual(await find(), []);
  await started();
  assert.equal(await store(2).replica.state(repository.id), undefined);
  assert.equal(await recordOf(repository), undefined);
});

test('a tombstone of a copy that its own repository has been pushed past removes nothing', async () => {
  const repository = await backend.repositories.create(described('team/app'));
  await push(repository, 'one');
  const living = await everything();
  const record = await recordOf(repository);
  assert.ok(record);
  const tombstone = new TextEncoder().encode(
    JSON.stringify({ ...record, id: undefined, state: 'deleted' }),
  );
  copy = living
    .filter(({ key }) => !key.startsWith(keys.names))
    .map((entry) =>
      entry.key === keys.repo(repository.id) ? { ...entry, value: tombstone } : entry,
    );
  // The deletion was undone by an older copy still, from which people went on.
  await push(repository, 'two');
  await putBack();
  await started();
  assert.deepEqual(await generationsOf(repository), [2, 2, 2]);
  await raise(false);
  await assertLives(repository, 2);
});

test('a repository that was renamed after the copy has its name of then, with all pushes', async () => {
  const repository = await backend.repositories.create(described('team/app'));
  saves = makes('team/new');
  await backend.repositories.rename(repository.id, 'team/new');
  await push(repository, 'one');
  await putBack();
  const [found] = await find();
  assert.deepEqual([found?.verdict, found?.generation], ['behind', 1]);
  assert.ok(found);
  await recovery.raise(found);
  await assertLives({ ...repository, name: 'team/app' }, 1);
});

/** Deleted by somebody while its stores are ahead of an older copy of the coordinator, and only the last is away. */
async function deletedThoughAhead(): Promise<Repository> {
  const repository = await backend.repositories.create(described('team/app'));
  await save();
  await push(repository, 'one');
  for (const index of [0, 1]) {
    store(index).interfere = (call, go) => (call === 'apply' ? away() : go());
  }
  const latest = await push(repository, 'two', { applied: [2] });
  await putBack();
  for (const one of set.stores) one.interfere = undefined;
  assert.deepEqual(await generationsOf(repository), [1, 1, latest]);
  const front = await started();
  store(2).down = true;
  await front.repositories.delete(repository.id);
  await front.close(1000);
  assert.deepEqual(await generationsOf(repository), [undefined, undefined, latest]);
  return repository;
}

test('what people deleted stays deleted, though a store that was away is ahead of the coordinator, and of all others', async () => {
  const repository = await deletedThoughAhead();
  store(2).down = false;
  assert.deepEqual(await find(false), []);
  await (await started()).close(1000);
  assert.equal(await recordOf(repository), undefined);
  assert.deepEqual(await generationsOf(repository), [undefined, undefined, undefined]);
});

test('a deletion that is in an older copy, put back again, removes nothing that stores are ahead with', async () => {
  const repository = await deletedThoughAhead();
  // The copy that has the tombstone is put back later: nobody knows what came to be in between.
  await save();
  await putBack();
  store(2).down = false;
  const [found] = await find();
  assert.equal(found?.verdict, 'unfinished');
  await incarnate(2);
  await (await started()).close(1000);
  assert.deepEqual(await generationsOf(repository), [undefined, undefined, 2]);
  await raise(false);
  assert.equal((await recordOf(repository))?.deletedIn, undefined);
});

test('what is deleted while a recovery is about to raise it is not revived by that', async () => {
  const repository = await backend.repositories.create(described('team/app'));
  await save();
  await push(repository, 'one');
  await putBack();
  const [found] = await find(false);
  assert.equal(found?.verdict, 'behind');
  const front = await started();
  for (const one of set.stores) {
    one.interfere = (call, go) => (call === 'destroy' ? away() : go());
  }
  await front.repositories.delete(repository.id);
  assert.ok(found);
  await assert.rejects(recovery.raise(found), { code: 'aborted' });
  assert.equal((await recordOf(repository))?.state, 'deleted');
});
