import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, test } from 'node:test';
import type { ReadSession, UploadPackRun } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { PeerSource, Replica } from '../contract/replica.js';
import { silentLogger } from '../coordination/test-environment.js';
import { allRefs } from '../contract/visible-refs.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { LocalRead } from '../local/replica-read.js';
import { fanOut } from './fan-out.js';
import { LateStores } from './late-stores.js';
import { peerSourceOf } from './peers.js';
import { isRecord } from './read-path.js';
import { openRead } from './reads.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import type { ReplicaSet, TestStore } from './testing/replica-set.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

const main = 'refs/heads/main';
/** What is waited for in seconds is over soon, where no store works meanwhile. */
const clock = {
  ...systemClock,
  sleep: (ms: number, signal?: AbortSignal) =>
    ms < 3_000 || ms > 30_000 ? systemClock.sleep(ms, signal) : set.work.sleep(150, signal),
};

let scene: SetScene;
let set: ReplicaSet;
let hurried: ReplicatedBackend;
let hangs: AbortController;
beforeEach(async () => {
  scene = await openSetScene();
  ({ set } = scene);
  ({ backend: hurried } = await set.frontEnd({ clock }));
  hangs = new AbortController();
});
afterEach(async () => {
  hangs.abort();
  await scene.close();
});

/** A store that is asked, and whose disk hangs. */
function theDisk(): Promise<void> {
  return set.work.idle(itsHang());
}

async function itsHang(): Promise<void> {
  if (!hangs.signal.aborted) await once(hangs.signal, 'abort');
}

function firstTwo(): readonly TestStore[] {
  const found = set.stores.slice(0, 2);
  assert.equal(found.length, 2);
  return found;
}

test('a read is answered by the store whose disk does not hang, and those that did are asked last', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  let asked = 0;
  for (const store of firstTwo()) {
    store.interfere = async (call, go) => {
      if (call === 'read') {
        asked++;
        await theDisk();
      }
      return go();
    };
  }
  assert.deepEqual(await scene.refsSeen(hurried), { [main]: one });
  assert.ok(asked > 0);
  const before = asked;
  assert.deepEqual(await scene.refsSeen(hurried), { [main]: one });
  assert.equal(asked, before);
});

test('a store that hangs costs one read its patience, and not one of each repository', async () => {
  const [hung] = firstTwo();
  assert.ok(hung !== undefined);
  await scene.push([create(main, await set.commit('one'))]);
  let asked = 0;
  hung.interfere = async (call, go) => {
    if (call === 'read') {
      asked++;
      await theDisk();
    }
    return go();
  };
  for (const name of ['team/b', 'team/c', 'team/d']) {
    await scene.refsSeen(hurried);
    scene.repository = await scene.createRepository(scene.backend, name);
  }
  assert.equal(asked, 1);
});

test('a question about a generation is answered by another store when a disk hangs after the read began', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  let asked = 0;
  const hang = async (): Promise<void> => {
    asked++;
    await theDisk();
  };
  for (const store of firstTwo()) {
    store.interfere = async (call, go) => {
      const read = await go();
      if (call !== 'read') return read;
      assert.ok(read instanceof LocalRead);
      const { snapshot, digest } = read;
      const questions = { objectSizes: hang, shape: hang, wholePack: hang };
      return { snapshot, digest, ...questions, release: () => read.release() };
    };
  }
  const { signal } = new AbortController();
  const session = await hurried.read(scene.repository, signal);
  const [size] = await session.objectSizes([one]);
  assert.ok(size !== undefined && size > 0);
  assert.ok(asked > 0);
  session.release();
});

/** A read as a front-end opens it that knows of these damaged copies. */
async function opened(damaged: readonly TestStore[] = []): Promise<ReadSession> {
  const stores = new Set(damaged.map(({ storeId }) => storeId));
  const dependencies = {
    ...set,
    clock,
    logger: silentLogger,
    damages: { has: (_id: string, storeId: string) => stores.has(storeId) },
    late: new LateStores(clock),
  };
  const record = await hurried.repositories.get(scene.repository.name);
  assert.ok(record !== undefined && isRecord(record));
  const { signal } = new AbortController();
  return openRead(dependencies, record, { generation: 1, signal });
}

test('a damaged copy is not read because the sound ones are slow', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  const [sound, ...damaged] = set.stores;
  assert.ok(sound !== undefined);
  const asked: string[] = [];
  for (const store of set.stores) {
    store.interfere = async (call, go) => {
      if (call !== 'read') return go();
      asked.push(store.storeId);
      if (store === sound) await set.work.slow();
      const read = await go();
      assert.ok(read instanceof LocalRead);
      const { snapshot, digest } = read;
      const shape = async (): Promise<unknown> => {
        await set.work.slow();
        return read.shape();
      };
      return { snapshot, digest, shape, release: () => read.release() };
    };
  }
  const session = await opened(damaged);
  await session.shape();
  session.release();
  assert.deepEqual(asked, [sound.storeId]);
});

test('stores that are slow are not left for one whose disk hangs', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  for (const store of set.stores) {
    store.hangs = !firstTwo().includes(store);
    store.interfere = async (call, go) => {
      if (call !== 'read') return go();
      assert.ok(!store.hangs, 'the store whose disk hangs is asked');
      const read = await go();
      assert.ok(read instanceof LocalRead);
      const { snapshot, digest } = read;
      const objectSizes = async (oids: readonly string[]): Promise<unknown> => {
        await set.work.slow();
        return read.objectSizes(oids);
      };
      return { snapshot, digest, objectSizes, release: () => read.release() };
    };
  }
  const session = await opened();
  const [size] = await session.objectSizes([one]);
  assert.ok(size !== undefined && size > 0);
  session.release();
});

test('a store that does not answer is left as soon as another one may, also one that hung before', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  const [stuck, ...others] = set.stores;
  assert.ok(stuck !== undefined);
  for (const store of others) store.hangs = true;
  stuck.interfere = async (call, go) => {
    const read = await go();
    if (call !== 'read') return read;
    assert.ok(read instanceof LocalRead);
    const { snapshot, digest } = read;
    return { snapshot, digest, objectSizes: theDisk, release: () => read.release() };
  };
  const session = await opened();
  const asking = session.objectSizes([one]);
  await systemClock.sleep(300);
  for (const store of others) store.hangs = false;
  const [size] = await asking;
  assert.ok(size !== undefined && size > 0);
  session.release();
});

test('what is no trouble of a store is said at once, though another one has not answered', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  const [late, refusing, other] = set.stores;
  assert.ok(late !== undefined && refusing !== undefined && other !== undefined);
  other.down = true;
  late.interfere = async (call, go) => {
    if (call === 'read') await theDisk();
    return go();
  };
  refusing.interfere = (call, go) => {
    if (call === 'read') throw new QuorateError('failed-precondition', 'no store would do that');
    return go();
  };
  await assert.rejects(opened(), { code: 'failed-precondition' });
});

test('a git that says nothing for too long is ended when another store is asked', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  const ended: AbortSignal[] = [];
  const uploadPack = async (run: UploadPackRun): Promise<void> => {
    ended.push(run.signal);
    await theDisk();
  };
  for (const store of firstTwo()) {
    store.interfere = async (call, go) => {
      const read = await go();
      if (call !== 'read') return read;
      assert.ok(read instanceof LocalRead);
      const { snapshot, digest } = read;
      return { snapshot, digest, uploadPack, release: () => read.release() };
    };
  }
  const { signal } = new AbortController();
  const session = await hurried.read(scene.repository, signal);
  const { stdout, exited } = await session.uploadPack({
    protocol: 2,
    input: Buffer.from(`0011command=fetch0001000fno-progress0032want ${one}\n0009done\n0000`),
    stateless: true,
    visible: allRefs,
    config: {},
    signal,
  });
  const bytes = await buffer(stdout);
  assert.ok(bytes.includes('PACK'));
  assert.equal((await exited).exitCode, 0);
  assert.ok(ended.length > 0);
  assert.ok(ended.every(({ aborted }) => aborted));
  session.release();
});

test('what a copy lacks comes from a peer whose disk does not hang', async () => {
  const [first, second] = firstTwo();
  assert.ok(first !== undefined && second !== undefined);
  await scene.push([create(main, await set.commit('one'))]);
  let asked = 0;
  first.interfere = async (call, go) => {
    if (call === 'export') {
      asked++;
      await theDisk();
    }
    return go();
  };
  const own = { id: scene.repository.id, storeId: second.storeId };
  const source = peerSourceOf({ ...set, clock }, own);
  // Another one is asked first each time.
  for (let turn = 0; turn < 2; turn++) {
    const sent = await source([], 1, new AbortController().signal);
    assert.equal(sent.generation, 1);
    sent.release();
  }
  assert.equal(asked, 1);
});

async function stopped(_: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<string> {
  await once(signal, 'abort');
  throw new Error('ended');
}

/** Where the second store gets what it lacks; each export passes through the test's hands. */
function sourceThrough(
  exporting: (
    store: TestStore,
    options: Parameters<Replica['export']>[1],
  ) => ReturnType<Replica['export']>,
  sourceClock: Pick<Clock, 'sleep'> = clock,
): PeerSource {
  const find = (storeId: string): Replica | undefined => {
    const store = set.stores.find((one) => one.storeId === storeId);
    if (store === undefined || store.down) return undefined;
    const answer = (_id: string, options: Parameters<Replica['export']>[1]): unknown =>
      set.work.follow(exporting(store, options));
    return new Proxy<Replica>(store.replica, {
      get: (replica, name) => (name === 'export' ? answer : Reflect.get(replica, name, replica)),
    });
  };
  const replicas = { ...set.replicas, find };
  const storeId = set.stores[1]?.storeId ?? '';
  const { coordinator } = set;
  return peerSourceOf(
    { coordinator, replicas, clock: sourceClock },
    { id: scene.repository.id, storeId },
  );
}

test('a peer that has not begun to send is told that nobody waits for it', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  let told = 0;
  const source = sourceThrough(async (store, options) => {
    if (store !== set.stores[0]) return store.replica.export(scene.repository.id, options);
    await set.work.idle(once(options.signal, 'abort'));
    told++;
    throw new QuorateError('cancelled', 'nobody waits');
  });
  const sent = await source([], 1, new AbortController().signal);
  sent.release();
  assert.equal(told, 1);
});

test('a peer that sends slowly is not left for one whose disk hangs', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  for (const store of set.stores.slice(0, 1)) store.hangs = true;
  const source = sourceThrough(async (store, options) => {
    assert.ok(!store.hangs, 'the store whose disk hangs is asked');
    await set.work.slow();
    return store.replica.export(scene.repository.id, options);
  });
  // Another one would be asked first each time.
  for (let turn = 0; turn < 2; turn++) {
    const sent = await source([], 1, new AbortController().signal);
    assert.equal(sent.generation, 1);
    sent.release();
  }
});

test('a peer whose git goes through a long history for half an hour is waited for', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  const halfHour = {
    ...systemClock,
    sleep: (ms: number, signal?: AbortSignal) =>
      systemClock.sleep(ms <= 30 * 60_000 ? Math.min(ms, 50) : ms, signal),
  };
  const source = sourceThrough(async (store, options) => {
    const sent = await store.replica.export(scene.repository.id, options);
    async function* late(): AsyncGenerator<Uint8Array> {
      await systemClock.sleep(300);
      assert.ok(sent.pack !== undefined);
      yield* sent.pack;
    }
    return { ...sent, pack: late() };
  }, halfHour);
  const received = await source([], 1, new AbortController().signal);
  let sizeBytes = 0;
  assert.ok(received.pack !== undefined);
  for await (const part of received.pack) sizeBytes += part.byteLength;
  received.release();
  assert.ok(sizeBytes > 0);
});

test('a peer whose disk begins to hang while it sends is left, and keeps no fill for long', async () => {
  await scene.push([create(main, await set.commit('one'))]);
  const [first] = firstTwo();
  const source = sourceThrough(async (store, options) => {
    const sent = await store.replica.export(scene.repository.id, options);
    if (store !== first) return sent;
    async function* hanging(): AsyncGenerator<Uint8Array> {
      assert.ok(sent.pack !== undefined);
      for await (const part of sent.pack) {
        yield part.subarray(0, 1);
        store.hangs = true;
        await itsHang();
      }
    }
    return { ...sent, pack: hanging() };
  });
  const { signal } = new AbortController();
  const received = await source([], 1, signal);
  assert.ok(received.pack !== undefined);
  await assert.rejects(buffer(received.pack), { code: 'deadline-exceeded' });
  received.release();
  // The other one is asked first now.
  const again = await source([], 1, signal);
  assert.ok(again.pack !== undefined);
  assert.ok((await buffer(again.pack)).length > 1);
  again.release();
});

test('a stream that too few can take is given up when the others say that their disks hang', async () => {
  const receivers = ['one', 'two', 'three'].map((name) => ({
    name,
    receive: name === 'one' ? async () => name : stopped,
  }));
  let said = false;
  const sending = fanOut({
    source: Readable.from([Buffer.from('a pack')]),
    receivers,
    suffices: (names) => names.size > 1,
    hangs: () => said,
    signal: new AbortController().signal,
    clock: {
      ...clock,
      sleep: async (ms, signal) => {
        await clock.sleep(ms, signal);
        said = true;
      },
    },
  });
  await assert.rejects(sending, { code: 'unavailable' });
});

test('a stream that goes to one store is given up when that says that its disk hangs', async () => {
  const sending = fanOut({
    source: Readable.from([Buffer.from('a pack')]),
    receivers: [{ name: 'one', receive: stopped }],
    suffices: (names) => names.size > 0,
    hangs: () => true,
    tooFew: (left, errors) =>
      new QuorateError('unavailable', `${left.size}: ${errors.get('one')?.message}`),
    signal: new AbortController().signal,
    clock,
  });
  await assert.rejects(sending, { code: 'unavailable', message: '0: its disk hangs' });
});

test('a stream that keeps all the disks busy goes on, though they are taken for hanging meanwhile', async () => {
  let busy = true;
  const receivers = ['one', 'two'].map((name) => ({
    name,
    receive: async () => {
      await systemClock.sleep(300);
      busy = false;
      return name;
    },
  }));
  const { received } = await fanOut({
    source: Readable.from([Buffer.from('a pack')]),
    receivers,
    suffices: (names) => names.size > 1,
    hangs: () => busy,
    signal: new AbortController().signal,
    clock,
  });
  assert.equal(received.size, 2);
});
