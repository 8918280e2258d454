import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Coordinator } from '../../contract/coordinator.js';
import { until } from '../../contract/testing/until.js';
import { openEtcd, type OpenEtcd } from './testing/etcd-fixture.js';

/** As a long computation would: no timer, no socket, nothing of the main loop runs meanwhile. */
function blockMainLoop(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe('leases and a busy main loop', () => {
  let etcd: OpenEtcd;
  let coordinator: Coordinator;
  before(async () => {
    etcd = await openEtcd();
    ({ coordinator } = etcd);
  });
  after(() => etcd.close());
  const putUnder = (key: string, lease: string) =>
    coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key, value: new Uint8Array(), lease }],
      failure: [],
    });

  // Long: its thread has to come to its turn in it, on a machine that is busy with other things, too; and far from twice
  // the time, when the thread itself gives up a main loop.
  test('a main loop that is busy for longer than the time to live keeps its leases', async () => {
    const lease = await coordinator.grantLease(10_000);
    await putUnder('kept', lease.id);
    blockMainLoop(1.3 * lease.ttlMs);
    assert.equal(lease.lost.aborted, false);
    const entry = await coordinator.get('kept');
    assert.equal(entry?.lease, lease.id);
    // Still the first one: it was never gone in between.
    assert.equal(entry.version, 1);
    await lease.revoke();
  });

  test('a main loop that is dead loses them', async () => {
    const lease = await coordinator.grantLease(2_000);
    await putUnder('lost', lease.id);
    // Twice its time until the thread gives up, once until etcd does, and twice as much to notice.
    blockMainLoop(5 * lease.ttlMs);
    assert.equal(lease.lost.aborted, true);
    // etcd's own look for what is over is a write, and has to get through to the disk.
    await until('etcd to end it', async () => (await coordinator.get('lost')) === undefined);
  });
});
