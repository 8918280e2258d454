import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import { startLocal } from '../local/testing/local-fixture.js';
import { createStoreView } from './store-view.js';
import type { PushTraces } from './push-trace.js';
import type { ReplicaDirectory } from './voters.js';

const { signal } = new AbortController();

test('a damaged copy is listed once, also when its damage cannot be noted', async () => {
  const local = await startLocal();
  try {
    const { id } = await local.create('app');
    const problems = ['a bit is wrong'];
    const replica: Pick<Replica, 'verify'> = {
      verify: () => Promise.resolve({ generation: 3, digest: 'd', problems }),
    };
    const why = 'the coordinator does not answer';
    const view = createStoreView({
      coordinator: local.coordinator,
      replicas: { find: () => replica } as unknown as ReplicaDirectory,
      traces: {} as PushTraces,
      reportDamage: () => Promise.reject(new QuorateError('unavailable', why)),
    });
    const copies = await view.verify(id, { signal, progress: () => undefined });
    assert.equal(copies.length, 1);
    const [{ nodeId: _, storeId: __, ...copy } = assert.fail()] = copies;
    assert.deepEqual(copy, { generation: 3, digest: 'd', problems, unreported: why });
  } finally {
    await local.remove();
  }
});
