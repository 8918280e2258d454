import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { createScene } from '../harness.js';
import { claimPorts } from './cluster-ports.js';

const counts = { etcd: 1, storage: 1, frontEnds: 1 };

test('ports that other programs use are refused, whether they are named or were had before', async (t) => {
  const scene = await createScene(t);
  const directory = scene.directory;
  const { etcdClients } = await claimPorts(directory, counts, undefined);
  const [port = 0] = etcdClients;
  const other = createServer().listen(port, '127.0.0.1');
  await once(other, 'listening');
  const refusal = new RegExp(`other programs use the ports? .*\\b${port}\\b.* --base-port P$`);
  // The ports of etcd begin with the fiftieth.
  await assert.rejects(claimPorts(directory, counts, port - 50), refusal);
  await assert.rejects(claimPorts(directory, counts, undefined), refusal);
  other.close();
  await once(other, 'close');
  assert.deepEqual((await claimPorts(directory, counts, undefined)).etcdClients, etcdClients);
});
