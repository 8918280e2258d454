import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import type { Lease } from '../contract/coordinator.js';
import { bytes, single, take, type TestSpace } from './coordinator-harness.js';

/** Longer than a machine that is busy keeps their keeper from renewing them. */
const ttlMs = 60_000;

/** Leases: their keys live and die with them. */
export function defineCoordinatorLeases(open: () => TestSpace): void {
  const endings: readonly (readonly [string, (space: TestSpace, lease: Lease) => Promise<void>])[] =
    [
      ['revoke', (_, lease) => lease.revoke()],
      ['expiry', (space, lease) => space.harness.expireLease(lease)],
    ];
  describe('leases', () => {
    for (const [desc, end] of endings) {
      test(`${desc} deletes all keys of the lease in one revision`, async () => {
        const space = open();
        const lease = await space.coordinator.grantLease(ttlMs);
        const other = await space.coordinator.grantLease(12 * ttlMs);
        assert.ok(lease.ttlMs >= ttlMs);
        await space.put('a', '1', lease.id);
        await space.put('b', '1', other.id);
        await space.put('c', '1', lease.id);
        const last = await space.put('d', '1');
        assert.equal((await space.get('a'))?.lease, lease.id);
        assert.equal((await space.get('d'))?.lease, undefined);
        const leaving = new AbortController();
        const watch = space.coordinator.watch(space.all.key, {
          rangeEnd: space.all.rangeEnd,
          fromRevision: last + 1,
          signal: leaving.signal,
        });
        const lost = lease.lost.aborted ? undefined : once(lease.lost, 'abort');
        await end(space, lease);
        await lost;
        const [batch] = await take(watch, 1);
        leaving.abort();
        assert.deepEqual(batch, {
          revision: last + 1,
          events: ['a', 'c'].map((name) => ({
            type: 'delete',
            key: space.key(name),
            modRevision: last + 1,
          })),
        });
        assert.deepEqual(await space.names(), ['b', 'd']);
        assert.equal(other.lost.aborted, false);
        await other.revoke();
        assert.deepEqual(await space.names(), ['d']);
      });
    }
    test('how much of its time is left is known to all, until it ends', async () => {
      const { coordinator } = open();
      const lease = await coordinator.grantLease(ttlMs);
      const left = await coordinator.leaseLeft(lease.id);
      assert.equal(left?.ttlMs, lease.ttlMs);
      assert.ok(left.leftMs > 0 && left.leftMs <= left.ttlMs + 1_000, String(left.leftMs));
      await lease.revoke();
      assert.equal(await coordinator.leaseLeft(lease.id), undefined);
    });
    test('revoke is idempotent, and a lease without keys writes nothing', async () => {
      const space = open();
      const before = await space.put('k', '');
      const lease = await space.coordinator.grantLease(ttlMs);
      await Promise.all([lease.revoke(), lease.revoke()]);
      await lease.revoke();
      assert.equal(lease.lost.aborted, true);
      assert.equal(await space.put('k', ''), before + 1);
    });
    test('a put under a lease that ended, or never was, writes nothing', async () => {
      const space = open();
      const lease = await space.coordinator.grantLease(ttlMs);
      await lease.revoke();
      const attempt = space.coordinator.transaction({
        compares: [],
        success: [
          { type: 'put', key: space.key('a'), value: bytes('') },
          { type: 'put', key: space.key('b'), value: bytes(''), lease: lease.id },
        ],
        failure: [],
      });
      await assert.rejects(attempt, { code: 'failed-precondition' });
      assert.deepEqual(await space.names(), []);
    });
    test('a later put moves a key to its lease, or frees it', async () => {
      const space = open();
      const first = await space.coordinator.grantLease(ttlMs);
      const second = await space.coordinator.grantLease(ttlMs);
      await space.put('freed', '', first.id);
      await space.put('moved', '', first.id);
      await space.put('freed', '');
      await space.put('moved', '', second.id);
      assert.equal((await space.get('freed'))?.lease, undefined);
      await first.revoke();
      assert.deepEqual(await space.names(), ['freed', 'moved']);
      await second.revoke();
      assert.deepEqual(await space.names(), ['freed']);
    });
    test('a key that was deleted and put again does not fall with its old lease', async () => {
      const space = open();
      const lease = await space.coordinator.grantLease(ttlMs);
      await space.put('k', '', lease.id);
      await space.coordinator.transaction(single({ type: 'delete', ...space.all }));
      await space.put('k', '');
      await lease.revoke();
      assert.deepEqual(await space.names(), ['k']);
    });
    test('a time to live under a second is refused', async () => {
      const space = open();
      await assert.rejects(space.coordinator.grantLease(999), { code: 'invalid-argument' });
    });
  });
}
