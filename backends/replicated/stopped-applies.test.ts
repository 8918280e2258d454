import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { LossRecovery, LossReport } from '../contract/cluster.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Repository } from '../contract/repository.js';
import type { Locks } from '../coordination/locks.js';
import { packOf, pushRequest, systemClock, zeroOid } from '../local/testing/local-fixture.js';
import { reportDamage } from './damage.js';
import type { ReplicatedBackend } from './replicated-backend.js';
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
let survivor: TestStore;

/** One store is left of three, which has prepared the second of two pushes, and not applied it. */
beforeEach(async () => {
  set = await openReplicaSet();
  ({ backend, locks } = await set.frontEnd({ clock: unhurried }));
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const one = await set.commit('one');
  await push(zeroOid, one);
  const [first, ...others] = set.stores;
  assert.ok(first !== undefined);
  survivor = first;
  for (const { replica } of set.stores) await replica.apply(repository.id, 1);
  survivor.interfere = (call, go) => (call === 'apply' ? away() : go());
  await push(one, await set.commit('two', one));
  for (const { replica } of others) await replica.apply(repository.id, 2);
  for (const other of others) other.down = true;
  survivor.interfere = undefined;
  assert.equal((await survivor.replica.state(repository.id))?.generation, 1);
});
afterEach(() => set.close());

async function push(oldOid: string, newOid: string): Promise<void> {
  const pack = await packOf(set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
  const { refs } = await backend.push(
    repository,
    pushRequest([{ ref: main, oldOid, newOid }], { pack }),
  );
  assert.deepEqual(
    refs.map(({ status }) => status),
    ['ok'],
  );
}

function recover(accept?: LossRecovery['accept']): Promise<LossReport> {
  const lost = { set, locks, repositoryId: repository.id };
  return recoverLost(lost, { accept, gone: ['node-1', 'node-2'] });
}

async function assertWaited(reason: RegExp): Promise<void> {
  const { refusal = '' } = await recover();
  assert.match(refusal, /^node-0 could not apply what is committed, and may yet .* try again/);
  assert.match(refusal, reason);
  await assert.rejects(recover(1), { code: 'failed-precondition', message: refusal });
}

async function assertNothingLost(): Promise<void> {
  const { recovered, overruled } = await recover(2);
  assert.deepEqual([recovered, overruled], [2, []]);
}

const troubles = {
  'a lock that a killed git left': () =>
    Promise.reject(new QuorateError('unavailable', 'a git that was killed has the refs locked')),
  'a full disk': () => Promise.reject(new QuorateError('storage-failure', 'the disk is full')),
  'an answer that is lost': away,
};

for (const [desc, fails] of Object.entries(troubles)) {
  test(`${desc} keeps a recovery from overruling what the copy that is left can apply`, async () => {
    survivor.interfere = (call, go) => (call === 'apply' ? fails() : go());
    await assertWaited(/refs locked|the disk is full|the connection was lost/);
    survivor.interfere = undefined;
    await assertNothingLost();
  });
}

/** Whoever waits for long has waited. */
const hasty: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms < 5_000 ? ms : 1, signal),
};
const never = (): Promise<never> => new Promise(() => undefined);

test('a disk that hangs while what is committed is applied keeps nobody waiting', async () => {
  survivor.interfere = (call, go) => (call === 'apply' ? never() : go());
  survivor.hangs = true;
  const { refusal = '' } = await recoverLost(
    { set, locks, repositoryId: repository.id, clock: hasty },
    { gone: ['node-1', 'node-2'] },
  );
  assert.match(refusal, /^node-0 could not apply .* and may yet \(its disk hangs\): try again/);
});

test('a store that does not say how far it is does not answer', async () => {
  survivor.interfere = (call, go) => (call === 'state' ? never() : go());
  const { copies, refusal } = await recoverLost(
    { set, locks, repositoryId: repository.id, clock: hasty },
    { gone: ['node-1', 'node-2'] },
  );
  assert.deepEqual([copies[0]?.alive, copies[0]?.gone], [false, undefined]);
  assert.equal(refusal, 'no copy that answers can be gone on from');
});

test('a copy that is known to be damaged is not waited for', async () => {
  survivor.interfere = (call, go) => (call === 'apply' ? troubles['a full disk']() : go());
  await assertWaited(/the disk is full/);
  await reportDamage(set.coordinator, repository.id, survivor.storeId);
  const { refusal, survivor: from } = await recover();
  assert.deepEqual([refusal, from], [undefined, { nodeId: 'node-0', generation: 1 }]);
});
