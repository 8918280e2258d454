import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import { rejectsWith } from '../conformance/backend-harness.js';
import { QuorateError } from '../contract/errors.js';
import type { QuarantineKey, UploadOptions } from '../contract/replica.js';
import { type FrameType, FrameReader, wholeFrame } from './frames.js';
import { until } from '../contract/testing/until.js';
import { encodeMessage } from './messages.js';
import { connect, type Connected, serveReplica } from './testing/node-scene.js';
import { stubReplica } from './testing/stub-replica.js';

const storeId = 'ab'.repeat(16);
const options: UploadOptions = {
  settings: {},
  signal: new AbortController().signal,
  progress: () => undefined,
};
const keyOf = (pushId: string): QuarantineKey => {
  return { repositoryId: '12'.repeat(16), pushId, attempt: 1 };
};

async function* chunksOf(...chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function* late(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('begins');
  await sleep(60);
  yield Buffer.from(', and ends');
}

async function* breaking(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('begins');
  throw new Error('the client left');
}

async function framesOf(request: IncomingMessage): Promise<FrameType[]> {
  const reader = new FrameReader(request, {
    silenceMs: 60_000,
    silent: () => new QuorateError('cancelled', 'silent'),
  });
  const types: FrameType[] = [];
  for (let frame = await reader.next(); frame !== undefined; frame = await reader.next()) {
    types.push(frame.type);
  }
  return types;
}

describe('a node that answers only when a request is over', () => {
  let server: Server;
  let connected: Connected;
  /** Types of the frames of the request to prepare. */
  let seen: FrameType[] = [];

  before(async () => {
    server = createServer((request, response) => {
      void (async () => {
        const types = await framesOf(request);
        const prepares = request.url?.endsWith('/prepare') === true;
        if (prepares) seen = types;
        const answer = prepares
          ? { storeId, refused: [], packBytes: 2 }
          : { storeId, draining: false };
        response.end(wholeFrame('end', encodeMessage(answer)));
      })();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const where = { host: '127.0.0.1', port: address.port };
    connected = await connect(where, storeId, { credentials: {} });
  });

  after(async () => {
    await connected.client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  test('gets a small pack with the request to prepare, all of it at once', async () => {
    const request = {
      key: keyOf('small-pack'),
      basis: 0,
      commands: [],
      settings: {},
      shallow: [],
      lockRevisions: [],
      signal: options.signal,
    };
    const prepared = await connected.replica.prepare({ ...request, pack: Buffer.from('PACK') });
    assert.deepEqual(prepared, {
      storeId,
      packBytes: 2,
      refused: new Map(),
      currentBranch: undefined,
    });
    assert.deepEqual(seen, ['json', 'data', 'mark']);
    await connected.replica.prepare(request);
    assert.deepEqual(seen, ['json']);
  });
});

describe('packs on their way to a node', () => {
  const taken = new Map<string, Buffer>();
  let connected: Connected;
  let stop: () => Promise<void>;

  before(async () => {
    const replica = stubReplica({
      upload: async ({ pushId }, pack, { progress }) => {
        const parts: Uint8Array[] = [];
        for await (const part of pack) parts.push(part);
        taken.set(pushId, Buffer.concat(parts));
        progress(Buffer.from(`got ${pushId}`));
        return { objectCount: 1, sizeBytes: Buffer.concat(parts).length };
      },
    });
    const { server, address } = await serveReplica(replica);
    connected = await connect(address, replica.storeId);
    stop = async () => {
      await connected.client.close();
      await server.drain(0);
    };
  });

  after(() => stop());

  const large = Buffer.alloc(300_000, 'large');
  const packs: readonly (readonly [string, () => AsyncIterable<Uint8Array>, Buffer])[] = [
    ['whole-and-small', () => chunksOf(Buffer.from('a'), Buffer.from('b')), Buffer.from('ab')],
    ['comes-in-parts', late, Buffer.from('begins, and ends')],
    ['large-at-once', () => chunksOf(large.subarray(0, 100_000), large.subarray(100_000)), large],
  ];
  for (const [pushId, pack, bytes] of packs) {
    test(`arrive as they are: ${pushId}`, async () => {
      const told: string[] = [];
      const uploaded = await connected.replica.upload(keyOf(pushId), pack(), {
        ...options,
        progress: (text) => told.push(Buffer.from(text).toString()),
      });
      assert.deepEqual(taken.get(pushId), bytes);
      assert.equal(uploaded.sizeBytes, bytes.length);
      assert.deepEqual(told, [`got ${pushId}`]);
    });
  }

  test('one that breaks off is not taken', async () => {
    const uploading = connected.replica.upload(keyOf('breaks-off'), breaking(), options);
    await rejectsWith(uploading, 'cancelled');
    assert.equal(taken.has('breaks-off'), false);
    await until('the call is over', () => connected.client.running === 0);
  });
});
