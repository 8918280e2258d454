import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { rejectsWith } from '../conformance/backend-harness.js';
import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import { allRefs } from '../contract/visible-refs.js';
import { create, openReplica, type ReplicaScene } from '../local/testing/replica-scene.js';
import { beatMs } from './frames.js';
import type { NodeClientLimits } from './node-client.js';
import type { NodeServerLimits } from './node-server.js';
import { storageFailure } from '../local/disk-errors.js';
import { listeningLogger } from './testing/raw-channel.js';
import { connect, type Connected, serveReplica, type ServedReplica } from './testing/node-scene.js';
import { type StallableProxy, startProxy } from './testing/stallable-proxy.js';
import { stubReplica } from './testing/stub-replica.js';
import { sleepInSteps } from '../contract/testing/step-sleep.js';
import { until } from '../contract/testing/until.js';

const signal = (): AbortSignal => new AbortController().signal;
const repositoryId = '12'.repeat(16);
/** Beats come twice a second; some may be late on a busy machine. */
const silenceMs = 2_000;
const clientLimits: Partial<NodeClientLimits> = { silenceMs, attendMs: 200, retryMs: 50 };
/** Where no silence is meant: client and node are one process here, which may stand still. */
const patientLimits = { ...clientLimits, silenceMs: 60_000 };

/** A node, a wire that can be held, and a client behind it. */
interface Wire extends Connected, ServedReplica {
  readonly proxy: StallableProxy;
  close(): Promise<void>;
}

async function wire(
  replica: Replica,
  limits: Partial<NodeServerLimits> = {},
  ofClient: Partial<NodeClientLimits> = clientLimits,
): Promise<Wire> {
  const served = await serveReplica(replica, { limits });
  const proxy = await startProxy(served.address);
  const connected = await connect(proxy.address, replica.storeId, { limits: ofClient });
  return {
    ...served,
    ...connected,
    proxy,
    close: async () => {
      await connected.client.close();
      await proxy.close();
      await served.server.drain(0);
    },
  };
}

describe('nodes that stop, go and come', () => {
  test('a node that is silent is given up, and taken again when it speaks', async (t) => {
    let held: (() => void) | undefined;
    const slow = stubReplica({
      applied: () => Promise.resolve(1),
      apply: () => new Promise<void>((resolve) => (held = resolve)),
    });
    const line = await wire(slow);
    t.after(() => line.close());
    const waiting = line.replica.apply(repositoryId, 1);
    await until('the call to be there', () => held !== undefined);
    line.proxy.stall();
    await rejectsWith(waiting, 'unavailable');
    await until('the node to count as gone', () => !line.client.reachable);
    await rejectsWith(line.replica.applied(repositoryId), 'unavailable');
    line.proxy.resume();
    await until('the node to be back', () => line.client.reachable);
    assert.equal(await line.replica.applied(repositoryId), 1);
    assert.equal(line.client.running, 0);
    held?.();
  });

  test('a disk that fails is told in the log of its own node, with the file', async (t) => {
    const { logger, warnings } = listeningLogger();
    const cause = Object.assign(new Error('ENOENT: no such file, /store/pack'), { code: 'ENOENT' });
    const failing = stubReplica({ apply: () => Promise.reject(storageFailure(cause)) });
    const served = await serveReplica(failing, { logger });
    const { client, replica } = await connect(served.address, failing.storeId);
    t.after(async () => {
      await client.close();
      await served.server.drain(0);
    });
    await rejectsWith(replica.apply(repositoryId, 1), 'storage-failure');
    assert.deepEqual(warnings, ['a call failed']);
  });

  test('a call that takes long is no silence', async (t) => {
    const line = await wire(
      stubReplica({
        apply: () => new Promise<void>((resolve) => setTimeout(resolve, 2 * silenceMs)),
      }),
    );
    t.after(() => line.close());
    await line.replica.apply(repositoryId, 1);
  });

  test('a connection that breaks fails its call at once; the next one goes through', async (t) => {
    let calls = 0;
    const line = await wire(
      stubReplica({
        applied: () => Promise.resolve(1),
        apply: () => {
          calls += 1;
          return new Promise<void>(() => undefined);
        },
      }),
    );
    t.after(() => line.close());
    const broken = line.replica.apply(repositoryId, 1);
    await until('the call to be there', () => calls > 0);
    // The answer has begun, with a beat: nobody knows what became of the call.
    await sleepInSteps(3 * beatMs);
    line.proxy.cut();
    await rejectsWith(broken, 'unavailable');
    await until('the node to be back', () => line.client.reachable);
    assert.equal(await line.replica.applied(repositoryId), 1);
  });

  test('a node that was started again is asked anew', async (t) => {
    const replica = stubReplica({ applied: () => Promise.resolve(1) });
    const first = await serveReplica(replica);
    const line = await connect(first.address, replica.storeId, { limits: clientLimits });
    t.after(() => line.client.close());
    assert.equal(await line.replica.applied(repositoryId), 1);
    await first.server.drain(0);
    await rejectsWith(line.replica.applied(repositoryId), 'unavailable');
    const second = await serveReplica(replica, { port: first.address.port });
    t.after(() => second.server.drain(0));
    await until('the node to be back', () => line.client.reachable);
    assert.equal(await line.replica.applied(repositoryId), 1);
  });

  test('a caller that goes, or falls silent, ends its call', async (t) => {
    const ended: string[] = [];
    let begun = false;
    const line = await wire(
      stubReplica({
        maintain: (_id, { signal: given }) =>
          new Promise((_, reject) => {
            begun = true;
            given.addEventListener('abort', () => {
              ended.push('maintain');
              reject(new Error('ended'));
            });
          }),
        upload: async (_key, pack) => {
          try {
            for await (const bytes of pack) assert.ok(bytes.length > 0);
            return { objectCount: 0, sizeBytes: 0 };
          } finally {
            ended.push('upload');
          }
        },
      }),
      { silenceMs },
    );
    t.after(() => line.close());
    const gone = new AbortController();
    const maintaining = line.replica.maintain(repositoryId, { signal: gone.signal });
    maintaining.catch(() => undefined);
    await until('the work to begin', () => begun);
    gone.abort();
    await rejectsWith(maintaining, 'cancelled');
    await until('the work to end', () => ended.includes('maintain'));
    const key = { repositoryId, pushId: 'uploading', attempt: 1 };
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    const uploading = line.replica.upload(key, silentPack(), options);
    uploading.catch(() => undefined);
    // A sender without anything to send says that it lives.
    await sleepInSteps(2 * silenceMs);
    assert.deepEqual(ended, ['maintain']);
    line.proxy.stall();
    await until('the upload to end', () => ended.includes('upload'));
    await rejectsWith(uploading, 'unavailable');
  });

  test('connections are used again, also after streams', async (t) => {
    const line = await wire(
      stubReplica({
        applied: () => Promise.resolve(1),
        upload: async (_key, pack) => {
          for await (const bytes of pack) assert.ok(bytes.length > 0);
          return { objectCount: 0, sizeBytes: 0 };
        },
      }),
      {},
      patientLimits,
    );
    t.after(() => line.close());
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    for (let n = 0; n < 20; n += 1) {
      const key = { repositoryId, pushId: `uploading-${n}`, attempt: 1 };
      await line.replica.upload(key, smallPack(), options);
      await line.replica.applied(repositoryId);
    }
    assert.ok(line.proxy.connections <= 5, `${line.proxy.connections} connections`);
  });

  test('a connection on which a pack was refused half-way serves the next call', async (t) => {
    const line = await wire(
      stubReplica({
        upload: async (_key, pack) => {
          for await (const bytes of pack) {
            throw new QuorateError('invalid-argument', `${bytes.length} bytes are enough`);
          }
          return { objectCount: 0, sizeBytes: 0 };
        },
        stats: () => Promise.reject(new QuorateError('not-found', 'there are none')),
      }),
      {},
      patientLimits,
    );
    t.after(() => line.close());
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    // More than Node reads ahead; of the larger one some is not even sent when the answer comes.
    for (const [n, chunks] of [40, ...Array.from({ length: 8 }, () => 2_000)].entries()) {
      const key = { repositoryId, pushId: `refused-${n}`, attempt: 1 };
      await rejectsWith(line.replica.upload(key, packOf(chunks), options), 'invalid-argument');
      await rejectsWith(line.replica.stats(repositoryId), 'not-found');
    }
    assert.ok(line.proxy.connections <= 6, `${line.proxy.connections} connections`);
  });

  test('who drains begins nothing, and finishes what runs', async (t) => {
    let finish: (() => void) | undefined;
    const prepared = { storeId: 'ab'.repeat(16), refused: new Map(), currentBranch: undefined };
    const line = await wire(
      stubReplica({
        applied: () => Promise.resolve(1),
        apply: () => new Promise<void>((resolve) => (finish = resolve)),
        prepare: () => Promise.resolve(prepared),
      }),
    );
    t.after(() => line.close());
    const applying = line.replica.apply(repositoryId, 1);
    await until('the call to be there', () => finish !== undefined);
    const drained = line.server.drain(60_000);
    await rejectsWith(line.replica.read(repositoryId, 0), 'unavailable');
    assert.equal(await line.replica.applied(repositoryId), 1);
    const judged = {
      key: { repositoryId, pushId: 'a-push-id', attempt: 1 },
      basis: 0,
      commands: [],
      settings: {},
      shallow: [],
      lockRevisions: [],
      signal: signal(),
    };
    assert.deepEqual(await line.replica.prepare(judged), prepared);
    const pack = Buffer.alloc(10);
    await rejectsWith(line.replica.prepare({ ...judged, pack }), 'unavailable');
    finish?.();
    await applying;
    await drained;
    await until('the node to count as gone', () => !line.client.reachable);
  });
});

async function* packOf(chunks: number): AsyncGenerator<Uint8Array> {
  for (let n = 0; n < chunks; n += 1) yield Buffer.alloc(10_000);
}

async function* smallPack(): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  yield Buffer.alloc(10);
}

async function* silentPack(): AsyncGenerator<Uint8Array> {
  yield Buffer.alloc(10);
  await new Promise(() => undefined);
}

describe('reads over a wire', () => {
  let scene: ReplicaScene;
  let line: Wire;
  beforeEach(async () => {
    scene = await openReplica();
    line = await wire(scene.replica, { sessionLeaseMs: 1_000 });
  });
  afterEach(async () => {
    await line.close();
    await scene.close();
  });

  async function push(refs: readonly string[], content: string): Promise<string> {
    const tip = await scene.commit(content);
    const commands = refs.map((ref) => create(ref, tip));
    const key = await scene.prepare(commands);
    await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
    return tip;
  }

  test('what is known does not travel again, and of what changed only the change', async () => {
    await push(
      Array.from({ length: 1_100 }, (_, n) => `refs/many/${n}`),
      'many',
    );
    const readBytes = async (): Promise<number> => {
      const before = line.proxy.toClientBytes;
      const { generation } = scene.log.committed;
      const read = await line.replica.read(scene.id, generation);
      assert.equal(read.snapshot.generation, generation);
      assert.equal(read.digest, scene.log.committed.digest);
      read.release();
      return line.proxy.toClientBytes - before;
    };
    const all = await readBytes();
    assert.ok(all > 50_000);
    // Signs of life pass by meanwhile.
    assert.ok((await readBytes()) < all / 4);
    await push(['refs/heads/more'], 'more');
    assert.ok((await readBytes()) < all / 4);
    assert.ok((await readBytes()) < all / 4);
    const found = line.memory.find(scene.id, scene.log.committed);
    assert.equal(found?.refs.length, 1_101);
  });

  test('what a client pinned is let go when it releases it, or is heard of no more', async () => {
    await push(['refs/heads/main'], 'pinned');
    const read = await line.replica.read(scene.id, 1);
    assert.equal(line.server.busy, 1);
    read.release();
    await until('the session to end', () => line.server.busy === 0);
    await line.replica.read(scene.id, 1);
    assert.equal(line.server.busy, 1);
    line.proxy.stall();
    await until('the session to end', () => line.server.busy === 0);
    // It holds up no deletion.
    await scene.replica.destroy(scene.id);
    line.proxy.resume();
  });

  test('a session that has ended says that another node may serve', async () => {
    await push(['refs/heads/main'], 'ended');
    const read = await line.replica.read(scene.id, 1);
    line.proxy.stall();
    await until('the session to end', () => line.server.busy === 0);
    line.proxy.resume();
    await until('the node to be back', () => line.client.reachable);
    await rejectsWith(read.firstForbiddenWant([], allRefs), 'unavailable');
    await rejectsWith(read.wholePack(), 'unavailable');
  });

  test('a node that goes away in the middle of a fetch ends it', async () => {
    await push(['refs/heads/main'], 'fetched');
    const read = await line.replica.read(scene.id, 1);
    const git = await read.uploadPack({
      protocol: 0,
      input: new PassThrough(),
      stateless: false,
      visible: allRefs,
      config: {},
      signal: signal(),
    });
    git.stdout.on('error', () => undefined).resume();
    line.proxy.cut();
    const { exitCode, signal: ended } = await git.exited;
    assert.deepEqual([exitCode, ended], [null, null]);
    read.release();
    await until('git to end there', () => line.server.busy === 0);
  });

  test('an upload whose node goes away fails, and leaves nothing there', async () => {
    const key = { repositoryId: scene.id, pushId: 'broken-off', attempt: 1 };
    const quarantines = (): number => readdirSync(join(scene.root, 'quarantine')).length;
    const pack = (async function* endless() {
      yield Buffer.from('PACK\0\0\0\x02\0\0\0\x01', 'latin1');
      await until('the upload to begin', () => quarantines() > 0);
      line.proxy.cut();
      await new Promise(() => undefined);
    })();
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    await rejectsWith(line.replica.upload(key, pack, options), 'unavailable');
    await until('the quarantine to go', () => quarantines() === 0);
  });
});
