import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import type { Clock } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { silentLogger } from '../coordination/test-environment.js';
import { packOf, pushRequest, zeroOid } from '../local/testing/local-fixture.js';
import { evicted } from './evictions.js';
import { Ring } from './placement.js';
import { decodeRepository, encodeRepository, type RepositoryRecord } from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { type StepDependencies, takeStep } from './set-steps.js';
import { readGround, viewOf } from './set-view.js';
import {
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';

// While a voter is added pushes wait for the repository's lock, and other sets for whoever keeps them: nothing that hangs
// may keep either.

const signal = new AbortController().signal;
let set: ReplicaSet;
let backend: ReplicatedBackend;
let repository: Repository;
let stepping: StepDependencies;
let learning: TestStore;
let hangs: AbortController;
let isHanging: () => boolean;
let hang: () => Promise<void>;
let late: AbortController;
let tip: string;

/** By which it is as late as a test says. */
const clock: Pick<Clock, 'sleep' | 'monotonicMs'> = {
  monotonicMs: () => performance.now(),
  sleep: (_ms, given) =>
    aborted(given === undefined ? late.signal : AbortSignal.any([late.signal, given])),
};

function aborted(given: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    given.addEventListener('abort', () => resolve(), { once: true });
    if (given.aborted) resolve();
  });
}

beforeEach(async () => {
  hangs = new AbortController();
  late = new AbortController();
  let waiting = 0;
  isHanging = () => waiting > 0;
  hang = async () => {
    waiting += 1;
    await aborted(hangs.signal);
  };
  set = await openReplicaSet(4);
  const made = await set.frontEnd({ clock: unhurried });
  backend = made.backend;
  stepping = {
    coordinator: set.coordinator,
    replicas: set.replicas,
    locks: made.locks,
    clock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    ring: () => new Ring([]),
    target: undefined,
  };
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  tip = await set.commit('one');
  await push(zeroOid, tip);
  const [, , , fourth] = set.stores;
  assert.ok(fourth !== undefined);
  learning = fourth;
  const { record } = await ground();
  const learners = [{ nodeId: 'node-3', storeId: learning.storeId, joinedEpoch: 2 }];
  await set.coordinator.transaction({
    compares: [],
    success: [
      {
        type: 'put',
        key: keys.repo(repository.id),
        value: encodeRepository({ ...record, learners }),
      },
    ],
    failure: [],
  });
});
afterEach(async () => {
  hangs.abort();
  await set.close();
});

async function ground() {
  const found = await readGround(set.coordinator, repository.id);
  assert.ok(found !== undefined);
  return found;
}

async function record(): Promise<RepositoryRecord> {
  const kv = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(kv !== undefined);
  return decodeRepository(kv);
}

async function push(oldOid: string, newOid: string): Promise<void> {
  const pack = await packOf(set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
  const commands = [{ ref: 'refs/heads/main', oldOid, newOid }];
  const { refs } = await backend.push(repository, pushRequest(commands, { pack }));
  assert.equal(refs[0]?.status, 'ok');
}

/** A disk that hangs: what is called does not end, nor when it is given up. */
function hangsAt(store: TestStore | undefined, method: string): void {
  assert.ok(store !== undefined);
  store.interfere = async (call, go) => {
    if (call === method) await hang();
    return go();
  };
}

async function promote(): Promise<boolean> {
  const step = { type: 'promote', storeId: learning.storeId } as const;
  return takeStep(stepping, await ground(), step, signal);
}

test('a voter whose disk hangs keeps no other store from voting', async () => {
  hangsAt(set.stores[1], 'apply');
  assert.equal(await promote(), true);
  assert.equal((await record()).voters.length, 4);
});

test('a store whose disk hangs as it is to vote keeps no push waiting', async () => {
  hangsAt(learning, 'catchUp');
  const refused = assert.rejects(promote(), { code: 'unavailable' });
  await until('it hangs', isHanging);
  late.abort();
  await refused;
  await push(tip, await set.commit('two', tip));
  hangs.abort();
  late = new AbortController();
  assert.equal(await promote(), true);
  assert.equal((await record()).voters.length, 4);
});

test('disks that hang, of too many voters, leave all as it was, and no lock', async () => {
  for (const store of [set.stores[1], set.stores[2]]) hangsAt(store, 'apply');
  const refused = assert.rejects(promote(), { code: 'unavailable' });
  await until('they hang', isHanging);
  late.abort();
  await refused;
  assert.equal((await record()).voters.length, 3);
  const [lock] = await backend.locks();
  assert.equal(lock, undefined);
});

test('a store whose disk hangs is taken for one that is away, and keeps no other set waiting', async () => {
  const [first, second] = set.stores;
  assert.ok(first !== undefined && second !== undefined);
  hangsAt(second, 'state');
  let hasAnswered = false;
  first.interfere = async (call, go) => {
    const answer = await go();
    hasAnswered ||= call === 'state';
    return answer;
  };
  const viewing = viewOf(
    {
      ...stepping,
      awayMs: () => 0,
      leaving: () => false,
      filled: () => false,
      unfilledMs: () => undefined,
      maxLog: 5,
      repairAfterMs: 1_500,
      wantedReaders: () => 0,
    },
    await ground(),
  );
  await until('it hangs', isHanging);
  await until('the other has answered', () => hasAnswered);
  late.abort();
  const { stores } = await viewing;
  assert.equal(stores.get(first.storeId)?.state?.generation, 1);
  assert.deepEqual(
    [stores.get(second.storeId)?.alive, stores.get(second.storeId)?.awayMs],
    [false, 0],
  );
});

test('a node whose earlier copy is still to go keeps no other from getting one', async () => {
  const [sample] = set.replicas.nodes();
  assert.ok(sample !== undefined);
  const nodes = ['a', 'b', 'c'].map((name) => ({ ...sample, nodeId: name, storeId: `of-${name}` }));
  const ring = new Ring(nodes);
  stepping = { ...stepping, ring: () => ring };
  const beside = (await record()).voters.map(({ nodeId }) => ({ nodeId, zone: sample.zone }));
  const [best, ...others] = ring.place(repository.id, nodes.length, beside);
  assert.ok(best !== undefined);
  await set.coordinator.transaction({
    compares: [],
    success: [evicted(repository.id, best.storeId)],
    failure: [],
  });
  for (const type of ['add-learner', 'add-reader'] as const) {
    assert.equal(await takeStep(stepping, await ground(), { type }, signal), true, type);
  }
  const { learners, readers = [] } = await record();
  const added = [...learners.slice(1), ...readers].map(({ storeId }) => storeId);
  assert.deepEqual(
    added,
    others.map(({ storeId }) => storeId),
  );
  // Nobody else is left.
  assert.equal(await takeStep(stepping, await ground(), { type: 'add-learner' }, signal), false);
});
