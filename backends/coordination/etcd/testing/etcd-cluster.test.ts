import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { EtcdCluster } from './etcd-cluster.js';

test('three members elect another leader after a kill, and none is left after stop', async () => {
  const cluster = await EtcdCluster.start({ members: 3 });
  try {
    const killed = await cluster.killLeader();
    assert.equal(killed.running, false);
    const next = await cluster.leader();
    assert.notEqual(next, killed);
    killed.start();
    await cluster.ready();
    assert.equal(await killed.healthy(), true);
  } finally {
    await cluster.stop();
  }
  assert.deepEqual(
    cluster.members.map(({ running }) => running),
    [false, false, false],
  );
  await assert.rejects(access(cluster.directory));
});

test('a snapshot can be put back', async () => {
  const cluster = await EtcdCluster.start();
  try {
    const file = join(cluster.directory, 'snapshot.db');
    await cluster.snapshot(file);
    await cluster.restore(file);
    assert.equal(await cluster.member(0).healthy(), true);
  } finally {
    await cluster.stop();
  }
});
