import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Clock } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { obeyEvictions } from './evictions.js';
import { markNode } from './node-marks.js';
import { decodeRepository, type RepositoryRecord } from './records.js';
import { SetController } from './set-controller.js';
import {
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

const names = ['team/a', 'team/b', 'team/c', 'team/d'];
const repairAfterMs = 60_000;

/** Between two looks of the controller. */
const tickMs = 1_000;

let aheadMs: number;
/** How often it has looked around. */
let looks: number;
let set: ReplicaSet;
let controller: SetController;
let repositories: Repository[];
let hanging: AbortController;

const clock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() + aheadMs,
  // What stores are given to answer stays as it is.
  sleep: (ms, signal) => {
    if (ms === tickMs) looks += 1;
    return systemClock.sleep(ms < 10_000 ? Math.min(ms, 50) : ms, signal);
  },
};

beforeEach(async () => {
  aheadMs = 0;
  looks = 0;
  hanging = new AbortController();
  set = await openReplicaSet(5);
  const { backend, locks, lease } = await set.frontEnd({ clock: unhurried });
  repositories = [];
  for (const name of names) {
    const made = await backend.repositories.create({
      name,
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
    repositories.push(made);
  }
  controller = keeperOf(
    set,
    { lease, locks },
    {
      clock,
      settings: { downAfterMs: 20_000, repairAfterMs, compareEveryMs: 86_400_000, maxFills: 1 },
    },
  );
});
afterEach(async () => {
  hanging.abort();
  await controller.close();
  await set.close();
});

function store(index: number): TestStore {
  const found = set.stores[index];
  assert.ok(found !== undefined);
  return found;
}

async function records(): Promise<readonly RepositoryRecord[]> {
  const found = await Promise.all(repositories.map(({ id }) => set.coordinator.get(keys.repo(id))));
  return found.flatMap((kv) => (kv === undefined ? [] : [decodeRepository(kv)]));
}

/** In steps in which the controller looks around: it says of nobody that he was away while it saw nothing. */
async function pass(ms: number): Promise<void> {
  for (let passedMs = 0; passedMs < ms; passedMs += 2_000) {
    aheadMs += 2_000;
    const before = looks;
    // The look that ends first may have begun before.
    await until('the controller to look around', () => looks >= before + 2);
  }
}

async function areOn(storeId: string): Promise<readonly boolean[]> {
  const found = await records();
  return found.map(({ voters, learners }) =>
    [...voters, ...learners].some((copy) => copy.storeId === storeId),
  );
}

const whole = async (without: string): Promise<boolean> => {
  const found = await records();
  return found.every(
    ({ voters, learners }) =>
      learners.length === 0 &&
      voters.length === 3 &&
      voters.every(({ storeId, state }) => storeId !== without && state === undefined),
  );
};

test('a disk that hangs for as long as a node may be away is declared down, then replaced; what lies there goes when it is back', async () => {
  controller.start();
  const hung = store(1);
  hung.interfere = async (_call, go) => {
    await new Promise<void>((resolve) => {
      hanging.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    return go();
  };
  hung.hangs = true;
  await pass(30_000);
  await until('it is declared down', async () =>
    (await records()).every(({ voters }) =>
      voters.some(({ storeId, state }) => storeId === hung.storeId && state === 'down'),
    ),
  );
  await pass(repairAfterMs);
  await until('others are in its place', () => whole(hung.storeId));
  hanging.abort();
  hung.interfere = undefined;
  hung.hangs = false;
  const { coordinator } = set;
  await obeyEvictions({ coordinator, replica: hung.replica, logger: silentLogger });
  for (const { id } of repositories) assert.equal(await hung.replica.state(id), undefined);
  assert.ok(await whole(hung.storeId));
});

test('a disk that hangs again and again, and never for as long, keeps its copies', async () => {
  controller.start();
  const hung = store(1);
  for (let time = 0; time < 4; time++) {
    hung.hangs = true;
    await pass(repairAfterMs / 2);
    hung.hangs = false;
    await pass(4_000);
  }
  await until('nothing is said of it', async () =>
    (await records()).every(({ voters, learners }) => {
      const own = voters.find(({ storeId }) => storeId === hung.storeId);
      return own !== undefined && own.state === undefined && learners.length === 0;
    }),
  );
});

test('while a disk hangs that is being filled, the others are filled, and in the end what was to be there, too', async () => {
  let asked = 0;
  // Which of the two that have nothing is filled first, and with how many, is a matter of the repositories' ids.
  const empty = [store(3), store(4)];
  let hung: TestStore | undefined;
  for (const one of empty) {
    one.interfere = async (call, go) => {
      if (call !== 'catchUp' || (hung ?? one) !== one) return go();
      asked++;
      hung = one;
      one.hangs = true;
      await new Promise<void>((resolve) => {
        hanging.signal.addEventListener('abort', () => resolve(), { once: true });
      });
      return go();
    };
  }
  await markNode(set.coordinator, 'node-0', 'draining');
  controller.start();
  await until('a fill hangs', () => asked > 0);
  const first = hung;
  const other = empty.find((one) => one !== first);
  assert.ok(first !== undefined && other !== undefined);
  // It has the one place for a minute.
  await pass(70_000);
  await until('others are filled', async () => {
    const onOther = await areOn(other.storeId);
    return onOther.some(Boolean);
  });
  assert.equal(asked, 1, 'it is not tried again while its disk hangs');
  await pass(repairAfterMs);
  await until('all are where nothing hangs', async () => {
    const left = await areOn(store(0).storeId);
    return !left.some(Boolean) && (await whole(first.storeId));
  });
  assert.equal(asked, 1);
});
