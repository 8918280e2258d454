import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { silentLogger } from '../coordination/test-environment.js';
import { startLocal, systemClock } from '../local/testing/local-fixture.js';
import { stubReplica } from '../node/testing/stub-replica.js';
import { PushTraces } from './push-trace.js';
import { createStoreView } from './store-view.js';

const { signal } = new AbortController();

test('a damaged copy is listed once, also when its damage cannot be noted', async () => {
  const local = await startLocal();
  try {
    const { id } = await local.create('app');
    const problems = ['a bit is wrong'];
    const replica = stubReplica({
      verify: () => Promise.resolve({ generation: 3, digest: 'd', problems }),
    });
    const why = 'the coordinator does not answer';
    const view = createStoreView({
      coordinator: local.coordinator,
      replicas: { nodes: () => [], find: () => replica, load: () => 0, place: () => [] },
      traces: new PushTraces({
        coordinator: local.coordinator,
        clock: systemClock,
        logger: silentLogger,
        frontEnd: 'one',
      }),
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
