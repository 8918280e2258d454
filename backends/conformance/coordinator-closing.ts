import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../contract/testing/until.js';
import { type CoordinatorHarness, openSpace, take, text, bytes } from './coordinator-harness.js';

/** Longer than it is waited for anything: what goes does not go because it has expired. */
const ttlMs = 600_000;

/** What closing ends, and what a restart finds. */
export function defineCoordinatorClosing(make: () => Promise<CoordinatorHarness>): void {
  test('close revokes leases, ends watches, refuses what comes later; again is fine', async () => {
    const harness = await make();
    try {
      const { coordinator } = harness;
      const space = openSpace(harness, coordinator);
      await coordinator.ping();
      const lease = await coordinator.grantLease(ttlMs);
      await space.put('k', 'v', lease.id);
      const watching = take(
        coordinator.watch(space.key('none'), { signal: new AbortController().signal }),
        1,
      );
      await coordinator.close();
      await coordinator.close();
      assert.equal(lease.lost.aborted, true);
      assert.deepEqual(await watching, []);
      await lease.revoke();
      const unavailable = { code: 'unavailable' };
      await assert.rejects(coordinator.ping(), unavailable);
      await assert.rejects(space.put('k', 'v'), unavailable);
      await assert.rejects(space.get('k'), unavailable);
      await assert.rejects(coordinator.range(space.key('k')), unavailable);
      await assert.rejects(coordinator.grantLease(ttlMs), unavailable);
    } finally {
      await harness.dispose();
    }
  });
  test('a restart keeps entries and revisions, and no key of an old lease', async (t) => {
    const harness = await make();
    try {
      if (harness.reopen === undefined) {
        t.skip('this store cannot be restarted by the suite');
        return;
      }
      const space = openSpace(harness, harness.coordinator);
      const lease = await harness.coordinator.grantLease(ttlMs);
      await space.put('leased', 'v', lease.id);
      await space.put('kept', '1');
      const revision = await space.put('kept', '2');
      const before = await space.get('kept');
      const coordinator = await harness.reopen();
      const after = await coordinator.get(space.key('kept'));
      assert.deepEqual(
        { ...after, value: text(after?.value ?? bytes('')) },
        { ...before, value: '2' },
      );
      // A process that stops does not wait for long until a store that is busy has done it.
      await until(
        'the key of the lease to go',
        async () => (await coordinator.get(space.key('leased'))) === undefined,
      );
      const later = await coordinator.range(space.key('kept'));
      assert.equal(later.revision, revision + 1, 'the keys of the lease fell in one revision');
    } finally {
      await harness.dispose();
    }
  });
}
