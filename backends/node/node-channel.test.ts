import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { rejectsWith } from '../conformance/backend-harness.js';
import type { PrepareRequest } from '../contract/replica.js';
import { until } from '../contract/testing/until.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { maxChannelCalls, maxMessageBytes, MessageReader, MessageWriter } from './channel-wire.js';
import type { TypedPayload } from './frames.js';
import { encodeMessage } from './messages.js';
import type { NodeServerLimits } from './node-server.js';
import { connect, type Connected, serveReplica, type ServedReplica } from './testing/node-scene.js';
import {
  listeningLogger,
  type Misbehaviour,
  openRawChannel,
  type RawCaller,
  startRawNode,
} from './testing/raw-channel.js';
import { type StallableProxy, startProxy } from './testing/stallable-proxy.js';
import { stubReplica } from './testing/stub-replica.js';

const repositoryId = '12'.repeat(16);
const storeId = 'ab'.repeat(16);

const refuse = (): Promise<never> => Promise.reject(new Error('not in this test'));

function prepareRequest(more: Partial<PrepareRequest> = {}): PrepareRequest {
  return {
    key: { repositoryId, pushId: 'a-push-id', attempt: 1 },
    basis: 0,
    commands: [],
    settings: {},
    shallow: [],
    lockRevisions: [],
    signal: new AbortController().signal,
    ...more,
  };
}

interface Line extends Connected, ServedReplica {
  readonly proxy: StallableProxy;
  /** How many were made until the channel was open. */
  readonly connections: number;
}

async function line(t: TestContext, calls: Parameters<typeof stubReplica>[0]): Promise<Line> {
  const served = await serveReplica(stubReplica(calls));
  const proxy = await startProxy(served.address);
  const connected = await connect(proxy.address, storeId);
  t.after(async () => {
    await connected.client.close();
    await proxy.close();
    await served.server.drain(0);
  });
  return { ...served, ...connected, proxy, connections: proxy.connections };
}

describe('small calls', () => {
  test('what a store says of a copy that cannot be read comes to who asks for it', async (t) => {
    const marker = { generation: 7, digest: 'd' };
    const { replica } = await line(t, {
      state: (_id, { unread = false } = {}) =>
        Promise.resolve(unread ? { ...marker, unread: 'EIO' } : undefined),
    });
    assert.equal(await replica.state(repositoryId), undefined);
    const asked = await replica.state(repositoryId, { unread: true });
    assert.deepEqual(asked, { ...marker, unread: 'EIO' });
  });

  test('go over one connection, many at once, each with its own answer', async (t) => {
    const held: (() => void)[] = [];
    const packs: number[] = [];
    const { replica, proxy, client, connections } = await line(t, {
      applied: (id) =>
        new Promise((resolve) => held.push(() => resolve(Number.parseInt(id.slice(0, 4), 16)))),
      prepare: ({ pack = Buffer.alloc(0) }) => {
        packs.push(pack.byteLength);
        return Promise.resolve({ storeId, refused: new Map(), currentBranch: undefined });
      },
    });
    const ids = Array.from({ length: 200 }, (_, n) => n.toString(16).padStart(4, '0').repeat(8));
    const asked = ids.map((id) => replica.applied(id));
    await until('all calls to be there', () => held.length === ids.length);
    assert.equal(client.running, ids.length);
    await replica.prepare(prepareRequest({ pack: Buffer.alloc(200_000) }));
    await replica.prepare(prepareRequest({ pack: Buffer.alloc(0) }));
    for (const answer of held.reverse()) answer();
    assert.deepEqual(await Promise.all(asked), [...ids.keys()]);
    assert.deepEqual(packs, [200_000, 0]);
    assert.equal(client.running, 0);
    assert.equal(proxy.connections, connections);
  });

  test('beyond what a channel takes go as requests', async (t) => {
    const held: (() => void)[] = [];
    const { replica, proxy, connections } = await line(t, {
      applied: () => new Promise((resolve) => held.push(() => resolve(7))),
      prepare: ({ pack = Buffer.alloc(0) }) => {
        assert.equal(pack.byteLength, maxMessageBytes);
        return Promise.resolve({ storeId, refused: new Map(), currentBranch: undefined });
      },
    });
    await replica.prepare(prepareRequest({ pack: Buffer.alloc(maxMessageBytes) }));
    assert.ok(proxy.connections > connections, 'a large pack');
    const more = 20;
    const asked = Array.from({ length: maxChannelCalls + more }, () =>
      replica.applied(repositoryId),
    );
    await until('all calls to be there', () => held.length === asked.length);
    assert.ok(proxy.connections > connections + more / 2, 'many calls');
    const saidBytes = proxy.toNodeBytes;
    await until('a sign of life', () => proxy.toNodeBytes > saidBytes);
    for (const answer of held) answer();
    assert.ok((await Promise.all(asked)).every((generation) => generation === 7));
  });

  test('whose answer is long are made again as requests', async (t) => {
    const refs = Array.from({ length: 20_000 }, (_, n) => `refs/heads/${'long'.repeat(20)}-${n}`);
    let calls = 0;
    const { replica } = await line(t, {
      nonFastForwards: () => {
        calls += 1;
        return Promise.resolve(new Set(refs));
      },
    });
    const { key, signal } = prepareRequest();
    const found = await replica.nonFastForwards(key, [], signal);
    assert.deepEqual([...found], refs);
    assert.equal(calls, 2);
  });

  test('reads whose refs have become many are made again under the same id', async (t) => {
    let count = 10;
    let open = 0;
    const { replica, client } = await line(t, {
      read: () => {
        open += 1;
        const refs = Array.from({ length: count }, (_, n) => ({
          name: `refs/tags/v${String(n).padStart(6, '0')}`,
          oid: '1'.repeat(40),
        }));
        const head = { symref: 'refs/heads/main' };
        return Promise.resolve({
          snapshot: createRefSnapshot({ generation: count, head, refs }),
          digest: String(count).padStart(128, '0'),
          firstForbiddenWant: refuse,
          objectSizes: refuse,
          uploadPack: refuse,
          wholePack: refuse,
          shape: refuse,
          uploadArchive: refuse,
          release: () => void (open -= 1),
        });
      },
    });
    for (count of [10, 20_000, 20_001]) {
      const read = await replica.read(repositoryId, 0);
      assert.equal(read.snapshot.refs.length, count);
      read.release();
    }
    await until('all reads to be let go', () => open === 0);
    assert.equal(client.running, 0);
  });

  test('that are given up end on the node, and the channel goes on', async (t) => {
    let ended = false;
    const { replica, proxy, connections } = await line(t, {
      applied: () => Promise.resolve(7),
      prepare: ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            ended = true;
            reject(new Error('ended'));
          });
          controller.abort();
        }),
    });
    const controller = new AbortController();
    const preparing = replica.prepare(prepareRequest({ signal: controller.signal }));
    await rejectsWith(preparing, 'cancelled');
    await until('the work to end', () => ended);
    assert.equal(await replica.applied(repositoryId), 7);
    assert.equal(proxy.connections, connections);
  });

  test('end on the node when the channel breaks', async (t) => {
    let begun = false;
    let ended = false;
    const { client, replica } = await line(t, {
      prepare: ({ signal }) =>
        new Promise((_, reject) => {
          begun = true;
          signal.addEventListener('abort', () => {
            ended = true;
            reject(new Error('ended'));
          });
        }),
    });
    const preparing = replica.prepare(prepareRequest());
    preparing.catch(() => undefined);
    await until('the call to be there', () => begun);
    await client.close();
    await rejectsWith(preparing, 'unavailable');
    await until('the work to end', () => ended);
  });
});

/** What a client makes of a node that does not keep to the rules of the wire. */
async function asked(
  t: TestContext,
  misbehave: Misbehaviour,
): Promise<Connected & { readonly warnings: string[]; readonly requests: string[] }> {
  const node = await startRawNode(storeId, misbehave);
  const { logger, warnings } = listeningLogger();
  const connected = await connect(node.address, storeId, { logger });
  t.after(async () => {
    await connected.client.close();
    await node.close();
  });
  return { ...connected, warnings, requests: node.requests };
}

const seven = encodeMessage({ generation: 7 });
const eight: readonly TypedPayload[] = [['end', encodeMessage({ generation: 8 })]];

describe('a channel that breaks', () => {
  test('before anything was heard of a call: it is made again, as a request', async (t) => {
    const { replica, requests, warnings } = await asked(t, (_, { socket }) => socket.destroy());
    assert.equal(await replica.applied(repositoryId), 7);
    assert.deepEqual(requests, ['applied']);
    assert.deepEqual(warnings, []);
  });

  test('after the node said that it works on a call: it fails', async (t) => {
    const { client, replica, requests } = await asked(t, ({ number }, { socket, writer }) => {
      socket.end(writer.message(number, []));
    });
    await rejectsWith(replica.applied(repositoryId), 'unavailable');
    assert.deepEqual(requests, []);
    await until('the node to count as there', () => client.reachable);
  });

  test('is opened again', async (t) => {
    let calls = 0;
    const { replica, requests } = await asked(t, ({ number }, { socket, writer }) => {
      calls += 1;
      if (calls === 1) socket.destroy();
      else socket.write(writer.message(number, eight));
    });
    assert.equal(await replica.applied(repositoryId), 7);
    await until(
      'a call over the new channel',
      async () => (await replica.applied(repositoryId)) === 8,
    );
    assert.ok(requests.every((name) => name === 'applied'));
  });

  const broken: readonly (readonly [string, Misbehaviour])[] = [
    [
      'an altered answer',
      ({ number }, { socket, writer }) => {
        const message = writer.message(number, eight);
        message[message.length - 40] = 0x39;
        socket.write(message);
      },
    ],
    [
      'an answer that comes twice',
      ({ number }, { socket, writer }) => {
        const message = writer.message(number, []);
        socket.write(Buffer.concat([message, message]));
      },
    ],
    [
      'an answer to a call that was not made',
      ({ number }, { socket, writer }) => socket.write(writer.message(number + 1, eight)),
    ],
    [
      'an answer that does not end',
      ({ number }, { socket, writer }) => socket.write(writer.message(number, [['json', seven]])),
    ],
    ['a length beyond all bounds', (_, { socket }) => socket.write(Buffer.alloc(4, 0xff))],
    ['a length of nothing', (_, { socket }) => socket.write(Buffer.alloc(4))],
  ];
  for (const [what, misbehave] of broken) {
    test(`by ${what}: one line in the log`, async (t) => {
      const { replica, warnings } = await asked(t, misbehave);
      await replica.applied(repositoryId).then(
        (generation) => assert.equal(generation, 7, 'of a request'),
        (error: unknown) => assert.ok(error instanceof Error),
      );
      assert.deepEqual(warnings, ['the channel to a storage node was ended']);
    });
  }
});

function call(name = `${repositoryId}/applied`): TypedPayload[] {
  return [
    ['text', Buffer.from(name)],
    ['json', encodeMessage({})],
  ];
}

function send(caller: RawCaller, number: number, frames: readonly TypedPayload[]): void {
  caller.socket.write(caller.writer.message(number, frames));
}

function flood({ socket, writer }: RawCaller): void {
  for (let n = 1; n <= maxChannelCalls + 1; n += 1) {
    if (!socket.destroyed) socket.write(writer.message(n, call()));
  }
}

describe('a caller that breaks the rules', () => {
  const rules: readonly (readonly [string, (caller: RawCaller) => void])[] = [
    ['more calls at once than there may be', flood],
    ['a length beyond all bounds', ({ socket }) => void socket.write(Buffer.alloc(4, 0xff))],
    ['a length of nothing', ({ socket }) => void socket.write(Buffer.alloc(4))],
    [
      'a wrong MAC',
      ({ socket, keys }) => {
        assert.ok(keys !== undefined);
        socket.write(new MessageWriter(keys.toCaller).message(1, call()));
      },
    ],
    [
      'a message that comes twice',
      ({ socket, writer }) => {
        const message = writer.message(1, call());
        socket.write(Buffer.concat([message, message]));
      },
    ],
    [
      'a call under a number that was used',
      (caller) => {
        send(caller, 2, call());
        send(caller, 1, call());
      },
    ],
    ['a name that is none', (caller) => send(caller, 1, call('../../etc/applied'))],
    ['a call without arguments', (caller) => send(caller, 1, [['text', Buffer.from('attend')]])],
  ];
  for (const [what, breakRule] of rules) {
    test(`by ${what} loses the channel; there is one line in the log`, async (t) => {
      const { caller, warnings, check } = await hostile(t);
      breakRule(caller);
      await until('the channel to end', () => caller.isClosed());
      assert.deepEqual(warnings, ['the channel of a member was ended']);
      await check();
    });
  }

  test('by saying nothing loses the channel', async (t) => {
    const { caller, warnings, check } = await hostile(t, { silenceMs: 1_000 });
    await until('the channel to end', () => caller.isClosed());
    assert.deepEqual(warnings, ['the channel of a member was ended']);
    await check();
  });

  test('by not taking its answers loses the channel', async (t) => {
    const { caller, warnings, check } = await hostile(t);
    caller.socket.pause();
    let number = 0;
    const state = call(`${repositoryId}/state`);
    await until('the node to have enough of it', () => {
      for (let n = 0; n < 20 && warnings.length === 0; n += 1) send(caller, (number += 1), state);
      return warnings.length > 0;
    });
    assert.deepEqual(warnings, ['the channel of a member was ended']);
    await check();
  });
});

/** A node with a caller that may do as it likes; `check`: another caller is served all the same. */
async function hostile(
  t: TestContext,
  limits: Partial<NodeServerLimits> = {},
): Promise<{
  readonly caller: RawCaller;
  readonly warnings: string[];
  readonly check: () => Promise<void>;
}> {
  const { logger, warnings } = listeningLogger();
  const replica = stubReplica({
    applied: () => new Promise(() => undefined),
    state: () => Promise.resolve({ generation: 1, digest: 'x'.repeat(400_000) }),
    storeUpdates: () => Promise.resolve('as ever'),
  });
  const { server, address } = await serveReplica(replica, { logger, limits });
  const caller = await openRawChannel(address, storeId);
  t.after(async () => {
    caller.socket.destroy();
    await server.drain(0);
  });
  const check = async (): Promise<void> => {
    const { client, replica: remote } = await connect(address, storeId);
    t.after(() => client.close());
    assert.equal(await remote.storeUpdates(prepareRequest().key, []), 'as ever');
  };
  return { caller, warnings, check };
}

test('messages come out as they went in, however the network cuts them', () => {
  const frames: readonly TypedPayload[][] = [
    [['json', Buffer.from('{}')]],
    [],
    [
      ['json', Buffer.alloc(3)],
      ['data', Buffer.alloc(70_000, 'data')],
      ['end', Buffer.alloc(0)],
    ],
  ];
  const writer = new MessageWriter(undefined);
  const bytes = Buffer.concat(frames.map((each, number) => writer.message(number + 1, each)));
  for (const stepBytes of [1, 3, 4, 5, 4_096, bytes.length]) {
    const got: TypedPayload[][] = [];
    const reader = new MessageReader(undefined, (message) => {
      got.push(message.frames.map(({ type, payload }) => [type, payload]));
      assert.equal(message.number, got.length);
    });
    for (let at = 0; at < bytes.length; at += stepBytes) {
      reader.read(bytes.subarray(at, at + stepBytes));
    }
    assert.deepEqual(got, frames);
  }
});

test('frames that are none, or do not fit their message, are refused', () => {
  const message = new MessageWriter(undefined).message(1, [['json', Buffer.from('{}')]]);
  const typeAt = 10;
  for (const [at, value] of [
    [typeAt, 0],
    [typeAt, 99],
    [typeAt + 4, 3],
    [typeAt + 4, 1],
  ] as const) {
    const altered = Buffer.from(message);
    altered[at] = value;
    const reader = new MessageReader(undefined, () => assert.fail('it was taken'));
    assert.throws(() => reader.read(altered), { code: 'internal' });
  }
});
