import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { keys } from '../contract/keys.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Repository } from '../contract/repository.js';
import {
  packOf,
  pushRequest,
  runGit,
  silentMeter,
  systemClock,
  zeroOid,
} from '../local/testing/local-fixture.js';
import { readDamages, reportDamage } from './damage.js';
import { obeyEvictions } from './evictions.js';
import { readRepairs } from './leadership.js';
import { markNode } from './node-marks.js';
import { peerSourceOf } from './peers.js';
import { Ring } from './placement.js';
import { decodeRepository, encodeRepository, type RepositoryRecord } from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { SetController } from './set-controller.js';
import { type StepDependencies, takeStep } from './set-steps.js';
import { readGround } from './set-view.js';
import {
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';
import { until } from '../contract/testing/until.js';

const main = 'refs/heads/main';
let set: ReplicaSet;
let backend: ReplicatedBackend;
let controller: SetController;
let stepping: StepDependencies;
let repository: Repository;
let tip: string;
/** How often the controller may still look around; unbounded unless a test says otherwise. */
let ticks: number;

const clock: Clock = {
  ...systemClock,
  // How long a store may take to answer, or to fill a copy, is no look around.
  sleep: (ms, signal) => {
    const waits = ms === 10_000 || ms === 5_000;
    return systemClock.sleep(waits || ticks-- > 1 ? ms : 2 ** 31 - 1, signal);
  },
};

beforeEach(async () => {
  ticks = Infinity;
  set = await openReplicaSet(4);
  // A store that is left out of a push still has it in quarantine, which is put aside with a copy.
  const { backend: made, locks, lease } = await set.frontEnd({ clock: unhurried });
  backend = made;
  const around = {
    coordinator: set.coordinator,
    lease,
    replicas: set.replicas,
    locks,
    random: { bytes: (length: number) => randomBytes(length) },
    logger: silentLogger,
  };
  stepping = { ...around, clock, ring: () => new Ring([]), target: undefined };
  controller = new SetController({
    ...around,
    nodeId: 'controller',
    settings: {
      replicationFactor: 3,
      downAfterMs: 0,
      repairAfterMs: 1_500,
      maxLog: 5,
      compareEveryMs: 60_000,
      maxFills: 2,
      readReplicas: { max: 1, ratePerCopy: 10, coolDownMs: 0 },
    },
    clock,
    meter: silentMeter,
  });
  repository = await create('team/app');
  tip = await set.commit('one');
  await pushTip(zeroOid);
  for (const { replica } of stores(0, 1, 2)) await replica.apply(repository.id, 1);
});
afterEach(async () => {
  await controller.close();
  await set.close();
});

function create(name: string): Promise<Repository> {
  return backend.repositories.create({
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
}

async function pushTip(oldOid: string, newOid = tip): Promise<void> {
  const pack = await packOf(set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
  const { refs } = await backend.push(
    repository,
    pushRequest([{ ref: main, oldOid, newOid }], { pack }),
  );
  assert.equal(refs[0]?.status, 'ok');
}

async function record({ id } = repository): Promise<RepositoryRecord> {
  const kv = await set.coordinator.get(keys.repo(id));
  assert.ok(kv !== undefined);
  return decodeRepository(kv);
}

const votersAre = (stores: readonly TestStore[], of?: Repository) => async () => {
  const { voters, learners } = await record(of);
  const ids = stores.map(({ storeId }) => storeId).sort();
  const now = voters.map(({ storeId }) => storeId).sort();
  return learners.length === 0 && now.join() === ids.join();
};

async function assertSound(stores: readonly TestStore[]): Promise<void> {
  const head = await set.coordinator.get(keys.head(repository.id));
  const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
  for (const store of stores) {
    // One that came late gets what was pushed a little later.
    await until(
      'it has the head',
      async () => (await store.replica.state(repository.id))?.generation === generation,
    );
    assert.deepEqual(await store.replica.state(repository.id), { generation, digest });
    await runGit(store.gitDir(repository.id), ['fsck', '--full', '--strict']);
  }
}

function stores(...indexes: number[]): TestStore[] {
  return indexes.map((index) => {
    const store = set.stores[index];
    assert.ok(store !== undefined);
    return store;
  });
}

test('a node that stays away is declared down, then replaced, while pushes go on; then it holds nothing', async () => {
  controller.start();
  const [lost] = stores(1);
  assert.ok(lost !== undefined);
  lost.down = true;
  await until('it is declared down', async () =>
    (await record()).voters.some(({ state }) => state === 'down'),
  );
  const two = await set.commit('two', tip);
  await pushTip(tip, two);
  await until('another is in its place', votersAre(stores(0, 2, 3)));
  await assertSound(stores(0, 2, 3));
  lost.down = false;
  const { coordinator } = set;
  await obeyEvictions({ coordinator, replica: lost.replica, logger: silentLogger });
  assert.equal(await lost.replica.state(repository.id), undefined);
  const left = await coordinator.get(keys.eviction(lost.storeId, repository.id));
  assert.equal(left, undefined);
});

test('a node that drains gives up its copies when others have them', async () => {
  controller.start();
  await markNode(set.coordinator, 'node-0', 'draining');
  await until('it is drained', votersAre(stores(1, 2, 3)));
  await assertSound(stores(1, 2, 3));
});

test('when one set is as it should be the next one is begun, not at the next look around', async () => {
  const others = [];
  for (const name of ['team/b', 'team/c', 'team/d', 'team/e']) others.push(await create(name));
  await markNode(set.coordinator, 'node-0', 'draining');
  ticks = 1;
  controller.start();
  for (const one of [repository, ...others]) {
    await until('it is drained', votersAre(stores(1, 2, 3), one));
  }
});

test('a set that somebody else changes is looked at, before the next look around', async () => {
  ticks = 1;
  controller.start();
  await until('it has looked around', () => ticks === 0);
  await change({ target: ['node-1', 'node-2', 'node-3'] });
  await until('it has moved', votersAre(stores(1, 2, 3)));
  await assertSound(stores(1, 2, 3));
});

test('what is being repaired, and waits for it, is told to all', async () => {
  const others = [repository];
  for (const name of ['team/b', 'team/c', 'team/d']) others.push(await create(name));
  const [slow] = stores(3);
  assert.ok(slow !== undefined);
  let mayFill = false;
  slow.interfere = async (call, go) => {
    if (call === 'catchUp') await until('it may be filled', () => mayFill);
    return go();
  };
  await markNode(set.coordinator, 'node-0', 'draining');
  controller.start();
  await until('all are counted', async () => (await readRepairs(set.coordinator)).repairing === 4);
  mayFill = true;
  await until('none is left', async () => (await readRepairs(set.coordinator)).repairing === 0);
  for (const one of others) assert.equal(await votersAre(stores(1, 2, 3), one)(), true);
});

test('copies that are long in the making hold up nothing else', async () => {
  const others: Repository[] = [];
  for (const name of ['team/b', 'team/c', 'team/d']) others.push(await create(name));
  const [, away, , slow] = stores(0, 1, 2, 3);
  assert.ok(away !== undefined && slow !== undefined);
  let mayFill = false;
  let filling = 0;
  let most = 0;
  slow.interfere = async (call, go) => {
    if (call !== 'catchUp') return go();
    filling++;
    most = Math.max(most, filling);
    await until('it may be filled', () => mayFill);
    await go();
    filling--;
    return undefined;
  };
  await markNode(set.coordinator, 'node-0', 'draining');
  controller.start();
  await until('as many are filled as may be', () => filling === 2);
  away.down = true;
  await until('the others go on without the node that is away', async () => {
    const records = await Promise.all([repository, ...others].map((one) => record(one)));
    return records.filter(({ voters }) => voters.some(({ state }) => state === 'down')).length >= 2;
  });
  away.down = false;
  mayFill = true;
  for (const one of [repository, ...others]) {
    await until('it is drained', votersAre(stores(1, 2, 3), one));
  }
  assert.equal(most, 2);
});

test('all sets are compared, also when they are more than may wait', async () => {
  const copied = await record();
  const head = await set.coordinator.get(keys.head(repository.id));
  assert.ok(head !== undefined);
  const ids = Array.from({ length: 120 }, (_, n) => n.toString(16).padStart(32, '0'));
  for (const id of ids) {
    await set.coordinator.transaction({
      compares: [],
      success: [
        { type: 'put', key: keys.repo(id), value: encodeRepository(copied) },
        { type: 'put', key: keys.head(id), value: head.value },
      ],
      failure: [],
    });
  }
  const asked = new Set<unknown>();
  for (const store of stores(0)) {
    store.interfere = (call, go, id) => {
      if (call === 'state') asked.add(id);
      return go();
    };
  }
  controller.start();
  await until('all were asked about', () => asked.size === ids.length + 1);
});

/** Its memory still says that all is well: only a verification finds out. */
async function damagePack({ gitDir, replica }: TestStore): Promise<void> {
  const packs = join(gitDir(repository.id), 'objects/pack');
  const name = readdirSync(packs).find((file) => file.endsWith('.pack'));
  assert.ok(name !== undefined);
  const bytes = readFileSync(join(packs, name));
  bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 0xff;
  rmSync(join(packs, name));
  writeFileSync(join(packs, name), bytes);
  const { signal } = new AbortController();
  const { problems } = await replica.verify(repository.id, { signal });
  assert.ok(problems.length > 0);
}

test('a copy whose refs were changed behind our back is set aside and filled anew', async () => {
  const [damaged] = stores(2);
  assert.ok(damaged !== undefined);
  await damaged.replica.apply(repository.id, 1);
  await damagePack(damaged);
  controller.start();
  await reportDamage(set.coordinator, repository.id, damaged.storeId);
  await until('it votes again', async () => {
    const { epoch } = await record();
    return epoch >= 3 && votersAre(stores(0, 1, 2))();
  });
  await assertSound(stores(0, 1, 2));
  assert.equal(readdirSync(join(damaged.root, 'set-aside')).length, 1);
});

async function change(patch: Partial<RepositoryRecord>): Promise<void> {
  const kv = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(kv !== undefined);
  const value = encodeRepository({ ...decodeRepository(kv), ...patch });
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: kv.key, value }],
    failure: [],
  });
}

test('a repository moves to the nodes that were asked for', async () => {
  await change({ target: ['node-1', 'node-2', 'node-3'] });
  controller.start();
  await until('it has moved', votersAre(stores(1, 2, 3)));
  await assertSound(stores(1, 2, 3));
});

test('a node that was asked for and is gone is replaced; when it is back, the repository is too', async () => {
  await change({ target: ['node-0', 'node-1', 'node-2'] });
  controller.start();
  const [lost] = stores(1);
  assert.ok(lost !== undefined);
  lost.down = true;
  await until('another is in its place', votersAre(stores(0, 2, 3)));
  lost.down = false;
  const { coordinator } = set;
  await obeyEvictions({ coordinator, replica: lost.replica, logger: silentLogger });
  await until('it is as it was asked for', votersAre(stores(0, 1, 2)));
  await assertSound(stores(0, 1, 2));
});

const full = (): Promise<never> => Promise.reject(new QuorateError('storage-failure', 'full'));

test('a copy that cannot be filled any more leaves the node that drains', async () => {
  const [broken] = stores(1);
  assert.ok(broken !== undefined);
  broken.interfere = (call, go) =>
    ['catchUp', 'apply', 'prepare'].includes(String(call)) ? full() : go();
  const second = await set.commit('two', tip);
  await pushTip(tip, second);
  const { coordinator } = set;
  const now = await record();
  const voters = now.voters.map((voter) =>
    voter.storeId === broken.storeId ? { ...voter, state: 'stale' as const } : voter,
  );
  const value = encodeRepository({ ...now, voters, epoch: now.epoch + 1 });
  const success = [{ type: 'put' as const, key: keys.repo(now.id), value }];
  await coordinator.transaction({ compares: [], success, failure: [] });
  await markNode(coordinator, 'node-1', 'draining');
  controller.start();
  await until('it is elsewhere', votersAre(stores(0, 2, 3)));
  await assertSound(stores(0, 2, 3));
});

test('a copy that cannot be filled keeps no other from being made', async () => {
  const [broken, lost] = stores(1, 2);
  assert.ok(broken !== undefined && lost !== undefined);
  broken.interfere = (call, go) => (call === 'catchUp' ? full() : go());
  lost.down = true;
  const now = await record();
  const [, demoted] = now.voters;
  assert.ok(demoted?.storeId === broken.storeId);
  // A copy that was set aside, on a disk that takes nothing any more.
  await broken.replica.destroy(now.id);
  const voters = now.voters.filter((voter) => voter !== demoted);
  const value = encodeRepository({ ...now, voters, learners: [demoted], epoch: now.epoch + 1 });
  const success = [{ type: 'put' as const, key: keys.repo(now.id), value }];
  await set.coordinator.transaction({ compares: [], success, failure: [] });
  controller.start();
  const [other] = stores(3);
  await until('another one has it', async () => {
    const state = await other?.replica.state(now.id);
    return state?.generation === 1;
  });
});

test('nobody becomes a voter of a set in which too few have the head', async () => {
  const [learning] = stores(3);
  assert.ok(learning !== undefined);
  const { storeId } = learning;
  await change({ learners: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  const ground = await readGround(set.coordinator, repository.id);
  assert.ok(ground !== undefined);
  const step = { type: 'promote', storeId } as const;
  const { signal } = new AbortController();
  for (const store of stores(1, 2)) store.down = true;
  await assert.rejects(takeStep(stepping, ground, step, signal), { code: 'aborted' });
  for (const store of stores(1, 2)) store.down = false;
  assert.equal(await takeStep(stepping, ground, step, signal), true);
  assert.equal((await record()).voters.length, 4);
});

test('a reader that takes the place of a voter is verified before it votes', async () => {
  const [reading] = stores(3);
  assert.ok(reading !== undefined);
  const { storeId, replica } = reading;
  await change({ readers: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  const source = peerSourceOf({ ...set, clock: systemClock }, { id: repository.id, storeId });
  const { signal } = new AbortController();
  await replica.catchUp(repository.id, { atLeast: 1, source, signal });
  await damagePack(reading);
  await markNode(set.coordinator, 'node-0', 'draining');
  controller.start();
  await until('it votes', async () =>
    (await record()).voters.some((voter) => voter.storeId === storeId),
  );
  assert.equal(readdirSync(join(reading.root, 'set-aside')).length, 1);
  await until('the drained one is gone', votersAre(stores(1, 2, 3)));
  await assertSound(stores(1, 2, 3));
  assert.equal(await set.coordinator.get(keys.damage(repository.id, storeId)), undefined);
});

test('a copy in which damage was found does not become a voter, and a later report outlives a filling', async () => {
  const [learning] = stores(3);
  assert.ok(learning !== undefined);
  const { storeId } = learning;
  const { coordinator } = set;
  const { signal } = new AbortController();
  await change({ learners: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  await reportDamage(coordinator, repository.id, storeId);
  const before = await readGround(coordinator, repository.id);
  assert.ok(before !== undefined);
  assert.equal(await takeStep(stepping, before, { type: 'promote', storeId }, signal), false);
  await reportDamage(coordinator, repository.id, storeId);
  await takeStep(stepping, before, { type: 'fill', storeId, fresh: true }, signal);
  assert.notEqual(await coordinator.get(keys.damage(repository.id, storeId)), undefined);
  const after = await readGround(coordinator, repository.id);
  assert.ok(after !== undefined);
  await takeStep(stepping, after, { type: 'fill', storeId, fresh: true }, signal);
  assert.equal(await takeStep(stepping, after, { type: 'promote', storeId }, signal), true);
});

test('the only voter is relieved of a damaged copy once another has it whole', async () => {
  const { voters } = await record();
  const [only] = voters;
  assert.ok(only !== undefined);
  await change({ voters: [only], learners: voters.slice(1) });
  await reportDamage(set.coordinator, repository.id, only.storeId);
  controller.start();
  await until('all of them vote again', votersAre(stores(0, 1, 2)));
  await assertSound(stores(0, 1, 2));
  const report = keys.damage(repository.id, only.storeId);
  assert.equal(await set.coordinator.get(report), undefined);
});

/** Damages two of the three copies, and waits until all is well again. */
async function healTwoDamaged(): Promise<void> {
  for (const store of stores(1, 2)) {
    await store.replica.apply(repository.id, 1);
    await damagePack(store);
    await reportDamage(set.coordinator, repository.id, store.storeId);
  }
  controller.start();
  await until('three copies vote, and none is damaged', async () => {
    const { voters, learners } = await record();
    const { size } = await readDamages(set.coordinator);
    return voters.length === 3 && learners.length === 0 && size === 0;
  });
}

test('most copies are damaged: another store takes the place of one, and all are sound again', async () => {
  await healTwoDamaged();
  const { voters } = await record();
  const voting = set.stores.filter(({ storeId }) => voters.some((one) => one.storeId === storeId));
  await assertSound(voting);
});

test('most copies are damaged and no other store is there: all are sound again, one after the other', async () => {
  for (const spare of set.stores.slice(3)) spare.down = true;
  await healTwoDamaged();
  await assertSound(stores(0, 1, 2));
});

test('a copy is filled although the first that is asked for it is damaged, and nobody knows', async () => {
  const [first, second] = stores(0, 1);
  assert.ok(first !== undefined && second !== undefined);
  await damagePack(first);
  second.down = true;
  controller.start();
  await until('another store has the copy', async () => {
    const { voters } = await record();
    return voters.some(({ storeId }) => storeId === set.stores[3]?.storeId);
  });
  await assertSound(stores(2, 3));
});

test('nobody takes the place of a voter that has left meanwhile', async () => {
  const { voters } = await record();
  const learner = voters.at(-1);
  assert.ok(learner !== undefined);
  const { storeId } = learner;
  await change({ voters: voters.slice(0, -1), learners: [learner] });
  const ground = await readGround(set.coordinator, repository.id);
  assert.ok(ground !== undefined);
  const step = { type: 'promote', storeId, inPlaceOf: 'gone' } as const;
  const { signal } = new AbortController();
  assert.equal(await takeStep(stepping, ground, step, signal), false);
  assert.deepEqual((await record()).learners, [learner]);
});

test('what was found in a copy goes with it', async () => {
  const [leaving] = stores(2);
  assert.ok(leaving !== undefined);
  const { storeId } = leaving;
  const { coordinator } = set;
  await reportDamage(coordinator, repository.id, storeId);
  const ground = await readGround(coordinator, repository.id);
  assert.ok(ground !== undefined);
  const { signal } = new AbortController();
  assert.equal(await takeStep(stepping, ground, { type: 'remove-voter', storeId }, signal), true);
  assert.equal(await coordinator.get(keys.damage(repository.id, storeId)), undefined);
});
