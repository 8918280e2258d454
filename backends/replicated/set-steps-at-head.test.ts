import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { Replica } from '../contract/replica.js';
import type { Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { packOf, pushRequest, zeroOid } from '../local/testing/local-fixture.js';
import { markNode } from './node-marks.js';
import { reportDamage } from './damage.js';
import {
  decodeHead,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
} from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { SetController } from './set-controller.js';
import { away, openReplicaSet, type ReplicaSet, unhurried } from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

// A repository that is pushed to all the time: whenever it is looked at some store has yet to apply the newest push, and
// the head is another one when the change of configuration compares it.

let set: ReplicaSet;
let backend: ReplicatedBackend;
let controller: SetController;
let repository: Repository;
let tip: string;
/** Pushes that came between the view of a set and its change. */
let between: number;
/** The store that takes no push, and who hears that it was asked to. */
let cannotApply: string | undefined;
let asksToApply: () => void;
/** Hears of a new configuration just before it is put. */
let seesChange: (voters: RepositoryRecord['voters']) => Promise<void>;
/** What happens when a copy was filled. */
let afterFill: () => Promise<void>;
/** Hears that the controller has pushes wait. */
let seesLock: () => void;

beforeEach(async () => {
  set = await openReplicaSet(4);
  const { backend: made, locks, lease } = await set.frontEnd({ clock: unhurried });
  backend = made;
  between = 0;
  cannotApply = undefined;
  asksToApply = () => undefined;
  seesChange = () => Promise.resolve();
  afterFill = () => Promise.resolve();
  seesLock = () => undefined;
  controller = keeperOf(
    set,
    {
      lease,
      locks: {
        ...locks,
        acquire: (wish: Parameters<typeof locks.acquire>[0]) => {
          seesLock();
          return locks.acquire(wish);
        },
      },
    },
    {
      coordinator: busy(set.coordinator),
      replicas: { ...set.replicas, find: direct },
      settings: {
        downAfterMs: 30_000,
        repairAfterMs: 600_000,
        maxLog: 1_000,
        compareEveryMs: 600_000,
      },
    },
  );
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  tip = zeroOid;
  await push();
});
afterEach(async () => {
  for (const store of set.stores) store.interfere = undefined;
  await controller.close();
  await set.close();
});

async function push(): Promise<void> {
  const parents = tip === zeroOid ? [] : [tip];
  const newOid = await set.commit(`after ${tip}`, ...parents);
  const commands = [{ ref: 'refs/heads/main', oldOid: tip, newOid }];
  const pack = await packOf(set.source, [newOid], parents);
  const { refs } = await backend.push(repository, pushRequest(commands, { pack }));
  assert.equal(refs[0]?.status, 'ok');
  tip = newOid;
}

/** The stores as the controller reaches them. */
function direct(storeId: string): Replica | undefined {
  const store = set.stores.find((one) => one.storeId === storeId);
  if (store === undefined) return undefined;
  return new Proxy<Replica>(store.replica, {
    get: (replica, name) => {
      if (name === 'catchUp') {
        return async (...wanted: Parameters<Replica['catchUp']>) => {
          await replica.catchUp(...wanted);
          await afterFill();
        };
      }
      if (name === 'apply' && storeId === cannotApply) {
        return () => {
          asksToApply();
          return away();
        };
      }
      const member: unknown = Reflect.get(replica, name, replica);
      return typeof member === 'function' ? member.bind(replica) : member;
    },
  });
}

/** Whoever changes a replica set finds that a push was just before it, unless pushes wait for its lock. */
function busy(coordinator: Coordinator): Coordinator {
  return new Proxy(coordinator, {
    get: (target, name) => {
      if (name !== 'transaction') {
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === 'function' ? member.bind(target) : member;
      }
      return async (request: Parameters<Coordinator['transaction']>[0]) => {
        const changes = request.compares.some(({ key }) => key === keys.head(repository.id));
        const locked = request.compares.some(({ key }) =>
          key.startsWith(keys.locks(repository.id)),
        );
        if (changes && !locked && between < 6) {
          between += 1;
          await push();
        }
        for (const operation of request.success) {
          if (operation.type !== 'put' || operation.key !== keys.repo(repository.id)) continue;
          const { key, value } = operation;
          const { voters } = decodeRepository({
            key,
            value,
            createRevision: 1,
            modRevision: 1,
            version: 1,
          });
          await seesChange(voters);
        }
        return target.transaction(request);
      };
    },
  });
}

async function record(): Promise<RepositoryRecord> {
  const kv = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(kv !== undefined);
  return decodeRepository(kv);
}

/** The front-end does not reach it to say that it is to apply a push: it lags until somebody else says so. */
function lag(index: number): void {
  const store = set.stores[index];
  assert.ok(store !== undefined);
  store.interfere = (call, go) => (call === 'apply' ? away() : go());
}

async function votersAre(...indexes: number[]): Promise<boolean> {
  const { voters, learners } = await record();
  const nodeIds = voters.map(({ nodeId }) => nodeId).sort();
  return learners.length === 0 && nodeIds.join() === indexes.map((i) => `node-${i}`).join();
}

test('a damaged copy is set aside and healed although pushes never end', async () => {
  const [, , damaged] = set.stores;
  assert.ok(damaged !== undefined);
  lag(1);
  await push();
  const { epoch } = await record();
  await reportDamage(set.coordinator, repository.id, damaged.storeId);
  controller.start();
  await until('it votes again', async () => {
    const now = await record();
    return now.epoch >= epoch + 2 && (await votersAre(0, 1, 2));
  });
  await push();
});

test('a node that drains gives up its copy although pushes never end', async () => {
  lag(1);
  await push();
  await markNode(set.coordinator, 'node-2', 'draining');
  controller.start();
  await until('another node has it', () => votersAre(0, 1, 3));
  await push();
});

test('a store that cannot apply holds up no push for the change of its set', async () => {
  const [, failing, damaged] = set.stores;
  assert.ok(failing !== undefined && damaged !== undefined);
  lag(1);
  await push();
  let asked = 0;
  cannotApply = failing.storeId;
  asksToApply = () => (asked += 1);
  let locked = 0;
  seesLock = () => (locked += 1);
  await reportDamage(set.coordinator, repository.id, damaged.storeId);
  controller.start();
  await until('it was asked twice', () => asked >= 2);
  assert.equal(locked, 0);
  assert.equal((await record()).voters.length, 3);
});

test('a stale copy has the head when it is in good standing again, although pushes never end', async () => {
  const [, , stale] = set.stores;
  assert.ok(stale !== undefined);
  const { voters, ...rest } = await record();
  const value = encodeRepository({
    ...rest,
    voters: voters.map((voter) =>
      voter.storeId === stale.storeId ? { ...voter, state: 'stale' } : voter,
    ),
    epoch: rest.epoch + 1,
  });
  const put = { type: 'put' as const, key: keys.repo(repository.id), value };
  await set.coordinator.transaction({ compares: [], success: [put], failure: [] });
  await push();
  let fills = 0;
  afterFill = async () => {
    fills += 1;
    // Under the lock it is filled once more, and a push would wait for that.
    if (fills === 1) await push();
  };
  let isAtHead: boolean | undefined;
  seesChange = async (now) => {
    if (isAtHead !== undefined || now.some(({ state }) => state === 'stale')) return;
    const head = await set.coordinator.get(keys.head(repository.id));
    assert.ok(head !== undefined);
    const state = await stale.replica.state(repository.id);
    isAtHead = state?.generation === decodeHead(head).generation;
  };
  controller.start();
  await until('it is in good standing', () => isAtHead !== undefined);
  assert.equal(isAtHead, true);
  await push();
});
