import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeInfo } from '../../../backends/contract/cluster.js';
import { ApiScene } from '../../admin/testing/api-scene.js';
import { runQuorate } from '../testing/run-quorate.js';

function nodeInfo(nodeId: string, more: Partial<NodeInfo> = {}): NodeInfo {
  return {
    nodeId,
    storeId: 'ab'.repeat(16),
    alive: true,
    silent: false,
    mark: undefined,
    address: '127.0.0.1:7420',
    zone: 'default',
    weight: 1,
    capacityBytes: 1,
    usedBytes: 0,
    clockApartMs: undefined,
    copies: 0,
    ...more,
  };
}

test('a list of nodes says when they are fewer than a repository is to have copies', async (t) => {
  const scene = await ApiScene.open();
  t.after(() => scene.close());
  const { stores, cluster } = scene.backend;
  assert.ok(stores !== undefined && cluster !== undefined);
  let nodes: readonly NodeInfo[] = ['a', 'b', 'c'].map((nodeId) => nodeInfo(nodeId));
  scene.backend.stores = { ...stores, nodes: () => Promise.resolve(nodes) };
  scene.backend.cluster = { ...cluster, replicationFactor: 3 };
  const env = { QUORATE_URL: scene.url, QUORATE_TOKEN: await scene.token('root', { admin: true }) };
  const list = async (...more: readonly string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await runQuorate(['node', 'list', ...more], { env });
    assert.equal(exitCode, 0, stderr);
    assert.match(stdout, more.length === 0 ? /^a +alive /m : /^\[\{"nodeId":"a",/);
    return stderr;
  };
  assert.equal(await list(), '');
  nodes = [
    ...nodes.slice(0, 2),
    nodeInfo('c', { mark: 'draining' }),
    nodeInfo('d', { alive: false }),
  ];
  assert.equal(await list(), '2 of them can take copies; fewer than replication.factor (3)\n');
  assert.equal(await list('--json'), '');
});
