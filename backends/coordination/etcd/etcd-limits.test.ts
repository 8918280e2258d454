import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Coordinator } from '../../contract/coordinator.js';
import { prefixEnd } from '../../contract/keys.js';
import type { EtcdCluster } from './testing/etcd-cluster.js';
import { openEtcd, type OpenEtcd } from './testing/etcd-fixture.js';

const prefix = 'many/';
const count = 2_500;
const keyOf = (i: number): string => `${prefix}${String(i).padStart(6, '0')}`;

describe('etcd and its sizes', () => {
  let etcd: OpenEtcd;
  let cluster: EtcdCluster;
  let coordinator: Coordinator;
  before(async () => {
    etcd = await openEtcd();
    ({ cluster, coordinator } = etcd);
    for (let i = 0; i < count; i += 100) {
      const success = Array.from({ length: 100 }, (_, n) => ({
        type: 'put' as const,
        key: keyOf(i + n),
        value: new Uint8Array([i % 256]),
      }));
      await coordinator.transaction({ compares: [], success, failure: [] });
    }
  });
  after(() => etcd.close());
  const range = (options: object = {}) =>
    coordinator.range(prefix, { rangeEnd: prefixEnd(prefix), ...options });
  const put = (key: string, value: Uint8Array) =>
    coordinator.transaction({ compares: [], success: [{ type: 'put', key, value }], failure: [] });

  test('a list of several pages is whole, in order, and as of one revision', async () => {
    const listing = range();
    // Comes between the pages, or before or after them all; never in the middle of the answer.
    const between = await put(keyOf(count), new Uint8Array());
    const { entries, more, revision } = await listing;
    const expected = revision < between.revision ? count : count + 1;
    assert.equal(more, false);
    assert.deepEqual(
      entries.map(({ key }) => key),
      Array.from({ length: expected }, (_, i) => keyOf(i)),
    );
    assert.ok(entries.every(({ modRevision }) => modRevision <= revision));
  });
  test('a limit beyond one page holds, and says whether there is more', async () => {
    const some = await range({ limit: 1_500, keysOnly: true });
    assert.equal(some.entries.length, 1_500);
    assert.equal(some.more, true);
    assert.equal(some.entries[0]?.value.length, 0);
    assert.equal((await range({ limit: 10_000 })).more, false);
  });
  test('a list that is overtaken by compaction is begun anew', async () => {
    for (let i = 0; i < 5; i += 1) {
      const listing = range();
      await put('other', new Uint8Array());
      await cluster.compact();
      assert.ok((await listing).entries.length >= count);
    }
  });
  test('what the contract allows and etcd finds too large is refused, not unknown', async () => {
    const most = coordinator.limits.maxRequestBytes - 'large'.length;
    await assert.rejects(put('large', new Uint8Array(most)), { code: 'invalid-argument' });
    await put('large', new Uint8Array(most - 1_000));
    assert.equal((await coordinator.get('large'))?.value.length, most - 1_000);
  });
  test('values and keys are bytes', async () => {
    const value = Uint8Array.from({ length: 256 }, (_, i) => i);
    await put('bytes/ü\u0001', value);
    const entry = await coordinator.get('bytes/ü\u0001');
    assert.deepEqual(entry?.value, value);
    assert.equal(entry?.key, 'bytes/ü\u0001');
  });
});
