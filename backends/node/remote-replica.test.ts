import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { defineReplicaSuite } from '../conformance/replica-suite.js';
import { openReplica } from '../local/testing/replica-scene.js';
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
