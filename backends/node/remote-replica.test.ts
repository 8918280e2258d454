import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import type { PeerSource } from '../contract/replica.js';
import { defineReplicaSuite } from '../conformance/replica-suite.js';
import { create, openReplica } from '../local/testing/replica-scene.js';
import { connect, serveReplica } from './testing/node-scene.js';

defineReplicaSuite('over a socket', async () => {
  const scene = await openReplica();
  const first = await serveReplica(scene.replica);
  const near = await connect(first.address, scene.replica.storeId);
  const closing = [first.server];
  const clients = [near.client];
  return {
    replica: near.replica,
    second: async () => {
      const second = await scene.second();
      const served = await serveReplica(second, {
        peers: (id) => (have, atLeast, signal) =>
          near.replica.export(id, { have, atLeast, signal }),
      });
      const far = await connect(served.address, second.storeId);
      closing.push(served.server);
      clients.push(far.client);
      return far.replica;
    },
    repositoryId: scene.id,
    log: scene.log,
    quarantines: () => readdirSync(join(scene.root, 'quarantine')),
    dispose: async () => {
      await Promise.all(clients.map((client) => client.close()));
      await Promise.all(closing.map((server) => server.drain(0)));
      await scene.close();
    },
  };
});

test('a copy that is only begun is not read over a socket, until it is filled', async (t) => {
  const scene = await openReplica();
  t.after(() => scene.close());
  const { id, log, replica } = scene;
  const tip = await scene.commit('one');
  const key = await scene.prepare([create('refs/heads/main', tip)]);
  await replica.apply(id, log.commit(key.pushId, [create('refs/heads/main', tip)]));
  const local = await scene.second();
  const source: PeerSource = (have, atLeast, signal) =>
    replica.export(id, { have, atLeast, signal });
  const served = await serveReplica(local, { peers: () => source });
  t.after(() => served.server.drain(0));
  const { client, replica: far } = await connect(served.address, local.storeId);
  t.after(() => client.close());
  const { signal } = new AbortController();
  let exports = 0;
  const leaving: PeerSource = (...asked) => {
    if (exports++ === 0) return source(...asked);
    return Promise.reject(new QuorateError('unavailable', 'the peer is gone'));
  };
  await assert.rejects(local.catchUp(id, { atLeast: 1, source: leaving, signal }));
  const refused = { code: 'unavailable', message: /still being made/ };
  await assert.rejects(far.read(id, 0, { eventual: true }), refused);
  await assert.rejects(far.read(id, 0), refused);
  await assert.rejects(far.export(id, { have: [], atLeast: 0, signal }), refused);
  assert.equal(await far.state(id), undefined);
  const steps: string[] = [];
  await far.catchUp(id, {
    atLeast: 1,
    source: Object.assign(source, { stores: [] }),
    signal,
    progress: ({ step }) => steps.push(step),
  });
  assert.deepEqual(steps, ['receiving', 'checking', 'writing refs']);
  const read = await far.read(id, 0, { eventual: true });
  assert.deepEqual(
    read.snapshot.refs.map(({ oid }) => oid),
    [tip],
  );
  read.release();
});
