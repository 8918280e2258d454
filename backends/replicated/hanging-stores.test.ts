import assert from 'node:assert/strict';
import { once } from 'node:events';
import { afterEach, beforeEach, test } from 'node:test';
import { keys } from '../contract/keys.js';
import type { PushContext, PushPipeline } from '../contract/pipeline.js';
import { until } from '../contract/testing/until.js';
import { allRefs } from '../contract/visible-refs.js';
import { judging, systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { away, type ReplicaSet } from './testing/replica-set.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

const main = 'refs/heads/main';

let scene: SetScene;
let set: ReplicaSet;
let hanging: AbortController;
beforeEach(async () => {
  scene = await openSetScene();
  ({ set } = scene);
  hanging = new AbortController();
});
afterEach(async () => {
  hanging.abort();
  await scene.close();
});

/** What is waited for these times is waited for shortly, while no store works, and anything else in vain. */
function only(...waits: readonly number[]): typeof systemClock {
  return {
    ...systemClock,
    sleep: (ms, signal) => {
      if (ms < 100) return systemClock.sleep(ms, signal);
      const shortly = ms < 1_000 || waits.includes(ms);
      return shortly ? set.work.sleep(100, signal) : systemClock.sleep(600_000, signal);
    },
  };
}

/** A pipeline whose rules ask this of the primary, and pass. */
function asking(question: (context: PushContext) => Promise<unknown>): PushPipeline {
  return judging({
    update: async (context) => {
      await question(context);
      return new Map();
    },
  });
}

/** What is told of a push by a disk that then hangs. */
async function* oneFactThenNone(): AsyncGenerator {
  yield { type: 'commit' };
  await once(hanging.signal, 'abort');
  yield { type: 'commit' };
}

/** These stores do not come back from a call, and may say so from then on. */
function hangAt(call: string, indexes: readonly number[], says: boolean): void {
  for (const index of indexes) {
    const store = set.stores[index];
    assert.ok(store !== undefined);
    store.interfere = async (name, go) => {
      if (name === call) {
        store.hangs = says;
        await set.work.idle(once(hanging.signal, 'abort'));
      }
      return go();
    };
  }
}

/** Larger than this, updates are not in the log, but with the stores: a few refs, since each is synced on each disk. */
const maxInlineUpdatesBytes = 500;
function manyRefs(oid: string): ReturnType<typeof create>[] {
  return Array.from({ length: 10 }, (_, n) => create(`refs/heads/branch-${n}`, oid));
}

async function heal(): Promise<void> {
  hanging.abort();
  for (const store of set.stores) {
    store.hangs = false;
    store.interfere = undefined;
  }
  await scene.assertConverged();
}

test('a push that too few stores can judge is refused once the others say that their disks hang', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(5_000) });
  hangAt('prepare', [1, 2], true);
  const one = await set.commit('one');
  await assert.rejects(scene.push([create(main, one)], { through }), {
    code: 'unavailable',
    message:
      'not accepted: 1 of 3 storage nodes can take it, too few for quorum, without node-1 (its disk hangs), node-2 (its disk hangs); nothing changed, it is safe to push again',
  });
  assert.deepEqual(await scene.leftInLog(), []);
  assert.deepEqual(await scene.refsSeen(), {});
  await heal();
  assert.equal((await scene.push([create(main, one)])).generation, 1);
});

test('a push that keeps the disks of its stores busy passes, though they take themselves for hanging meanwhile', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(5_000) });
  for (const store of set.stores) {
    store.hangs = true;
    store.interfere = async (call, go) => {
      if (call === 'prepare') {
        await set.work.slow();
        store.hangs = false;
      }
      return go();
    };
  }
  const one = await set.commit('one');
  const pushed = await scene.push([create(main, one)], { through });
  assert.deepEqual([pushed.generation, pushed.reasons], [1, []]);
  await heal();
});

test('updates too large for the log are not kept waiting by a store whose disk hangs', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(3_000), maxInlineUpdatesBytes });
  hangAt('storeUpdates', [0], false);
  const one = await set.commit('one');
  const pushed = await scene.push(manyRefs(one), { through });
  assert.deepEqual([pushed.generation, pushed.reasons], [1, []]);
  await heal();
});

test('updates too large for the log that too few stores can keep are refused', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(5_000), maxInlineUpdatesBytes });
  hangAt('storeUpdates', [0, 2], true);
  const one = await set.commit('one');
  await assert.rejects(scene.push(manyRefs(one), { through }), {
    code: 'unavailable',
    message:
      /^not accepted: 1 of 3 .* without node-0 \(its disk hangs\), node-2 \(its disk hangs\);/,
  });
  assert.deepEqual(await scene.leftInLog(), []);
  await heal();
});

test('a lone store whose disk hangs is named to who pushes', async () => {
  const { backend: through } = await set.frontEnd({
    clock: only(5_000),
    replicationFactor: 1,
    maxInlineUpdatesBytes,
  });
  scene.repository = await scene.createRepository(through, 'team/lone');
  const one = await set.commit('one');
  for (const [call, commands] of [
    ['prepare', [create(main, one)]],
    ['storeUpdates', manyRefs(one)],
  ] as const) {
    hangAt(call, [0], true);
    await assert.rejects(scene.push(commands, { through }), {
      code: 'unavailable',
      message: /^not accepted: 0 of 1 .* without node-0 \(its disk hangs\);/,
    });
    hanging.abort();
    hanging = new AbortController();
  }
});

test('a pack that is streamed to a lone store whose disk hangs is refused, and nothing is left when it goes on', async () => {
  const { backend: through } = await set.frontEnd({
    clock: only(1_000, 3_000),
    replicationFactor: 1,
  });
  scene.repository = await scene.createRepository(through, 'team/lone');
  const [lone] = set.stores;
  assert.ok(lone !== undefined);
  const one = await set.commit('one');
  const refused = async (): Promise<void> => {
    await assert.rejects(scene.push([create(main, one)], { through, slowly: true }), {
      code: 'unavailable',
      message:
        'not accepted: 0 of 1 storage nodes can take it, too few for quorum, without node-0 (its disk hangs); nothing changed, it is safe to push again',
    });
  };
  // Before anything of it is there, and when all of it is.
  hangAt('upload', [0], true);
  await refused();
  hanging.abort();
  hanging = new AbortController();
  lone.interfere = async (call, go) => {
    const answer = await go();
    if (call === 'upload') {
      lone.hangs = true;
      await set.work.idle(once(hanging.signal, 'abort'));
    }
    return answer;
  };
  lone.hangs = false;
  await refused();
  hanging.abort();
  lone.hangs = false;
  lone.interfere = undefined;
  await scene.assertConverged([lone]);
  assert.equal((await scene.push([create(main, one)])).generation, 1);
});

test('who reads what only stores have whose disks hang is told so', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(3_000, 5_000) });
  hangAt('read', [0, 1, 2], true);
  await assert.rejects(scene.refsSeen(through), {
    code: 'unavailable',
    message: /^no storage node .* answers: its disk hangs \(node-0, node-1, node-2\)$/,
  });
  await heal();
  assert.deepEqual(await scene.refsSeen(through), {});
});

test('a disk that hangs when a push is committed keeps nobody from its report, though a quota is to be settled', async () => {
  const settled: boolean[] = [];
  const pipeline: PushPipeline = {
    ...judging({}),
    allowance: async ({ id }) => ({
      maxPackBytes: 1_000_000,
      refuse: () => 'too much',
      warning: undefined,
      settle: async (_pushId, committed) => {
        for (const { storeId } of set.stores) await set.replicas.find(storeId)?.stats(id);
        settled.push(committed);
      },
    }),
  };
  const { backend: through } = await set.frontEnd({ clock: only(3_000), pipeline });
  hangAt('stats', [0], false);
  const one = await set.commit('one');
  assert.equal((await scene.push([create(main, one)], { through })).generation, 1);
  assert.deepEqual(settled, []);
  await heal();
  await until('the quota is settled all the same', () => settled.length === 1);
});

test('a repository, and a fork, are made without the store whose disk begins to hang', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(5_000) });
  hangAt('create', [1], false);
  const made = await scene.createRepository(through, 'team/another');
  const [, late] = set.stores;
  assert.ok(late !== undefined);
  const wordFor = async (id: string): Promise<unknown> =>
    set.coordinator.get(keys.eviction(late.storeId, id));
  assert.ok(await wordFor(made.id));
  await scene.push([create(main, await set.commit('one'))], { through });
  hangAt('fork', [1], false);
  const fork = await through.repositories.fork(scene.repository, {
    name: 'team/fork',
    access: { public: false, grants: {} },
    visible: allRefs,
  });
  assert.ok(await wordFor(fork.id));
  hanging.abort();
  for (const store of set.stores) store.interfere = undefined;
  const read = await through.read(fork, new AbortController().signal);
  assert.equal(read.snapshot.refs.length, 1);
  read.release();
});

test('how large a repository is another store says when the disk of the first hangs, or fails', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(3_000) });
  await scene.push([create(main, await set.commit('one'))]);
  // None is asked that was left out of the push because it was late.
  await scene.assertConverged();
  hangAt('stats', [0], false);
  const [, second] = set.stores;
  assert.ok(second !== undefined);
  second.interfere = (call, go) => (call === 'stats' ? away() : go());
  assert.equal((await through.repositories.stats(scene.repository.id)).refCount, 1);
  await heal();
});

test('nobody waits for the size of a repository when all its stores say that their disks hang', async () => {
  const { backend: through } = await set.frontEnd({ clock: only(3_000, 5_000) });
  hangAt('stats', [0, 1, 2], true);
  await assert.rejects(through.repositories.stats(scene.repository.id), {
    code: 'unavailable',
    message: /its disk hangs/,
  });
  await heal();
});

test('what rules ask of a primary whose disk begins to hang is asked of another store that is prepared', async () => {
  const pipeline = asking((context) => context.nonFastForwards());
  const { backend: through } = await set.frontEnd({ clock: only(5_000), pipeline });
  hangAt('nonFastForwards', [0], true);
  const one = await set.commit('one');
  const pushed = await scene.push([create(main, one)], { through });
  assert.deepEqual([pushed.generation, pushed.reasons], [1, []]);
  await heal();
});

test('so is an inspection from its beginning, and each fact of the first one is heard once', async () => {
  const told: string[][] = [];
  const pipeline = asking(async ({ inspect, commands, signal }) => {
    const [command] = commands;
    assert.ok(command !== undefined);
    const heard: string[] = [];
    told.push(heard);
    const asked = { command, covered: main, judged: [], commits: true, files: false, signal };
    for await (const fact of inspect(asked)) heard.push(fact.type);
  });
  const { backend: through } = await set.frontEnd({ clock: only(5_000), pipeline });
  const [first] = set.stores;
  assert.ok(first !== undefined);
  first.interfere = (call, go) => {
    if (call !== 'inspect') return go();
    first.hangs = true;
    return oneFactThenNone();
  };
  const one = await set.commit('one');
  const pushed = await scene.push([create(main, one)], { through });
  assert.deepEqual([pushed.generation, pushed.reasons], [1, []]);
  await heal();
  assert.deepEqual(told, [['commit'], ['commit']]);
});

test('a push whose primary hangs while it is judged is refused by name when too few others are prepared', async () => {
  const hook = { digest: '', content: () => Promise.resolve(new Uint8Array()) };
  const pipeline = asking(async ({ runHook, signal }) => {
    const limits = { timeoutMs: 1_000, maxOutputBytes: 100, maxProcesses: 1 };
    const run = { program: hook, args: [], stdin: new Uint8Array(), env: {}, limits };
    await runHook({ ...run, output: () => undefined, signal });
  });
  const { backend: through } = await set.frontEnd({ clock: only(5_000), pipeline });
  const [first, , third] = set.stores;
  assert.ok(first !== undefined && third !== undefined);
  third.down = true;
  first.interfere = async (call, go) => {
    if (call !== 'runHook') return go();
    first.hangs = true;
    await set.work.idle(once(hanging.signal, 'abort'));
    return { how: 'exited', exitCode: 0 };
  };
  const one = await set.commit('one');
  await assert.rejects(scene.push([create(main, one)], { through }), {
    code: 'unavailable',
    message: /^not accepted: 1 of 3 .* without node-0 \(its disk hangs\), node-2;/,
  });
  assert.deepEqual(await scene.leftInLog(), []);
  assert.deepEqual(await scene.refsSeen(), {});
  third.down = false;
  await heal();
});
