import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogReader, Replica } from '../contract/replica.js';
import { stubReplica } from '../node/testing/stub-replica.js';
import { appliedEverywhere } from './replicate.js';
import { plainRecord } from './testing/plain-record.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

test('how far a store is whose disk hangs is unknown, and not waited for', () =>
  assertUnknown(false));

test('a store that says that its disk hangs is not asked how far it is', () => assertUnknown(true));

/** `says`: it says of itself that its disk hangs; nobody waits at all then. */
async function assertUnknown(says: boolean): Promise<void> {
  const stores: Record<string, Replica> = {
    a: stubReplica({ apply: async () => undefined }, 'a'),
    b: stubReplica({ apply: () => new Promise(() => undefined) }, 'b'),
  };
  const replicas: ReplicaDirectory = {
    nodes: () => (says ? [{ ...hangingNode, hangs: true }] : []),
    find: (storeId) => stores[storeId],
    load: () => 0,
    place: () => [],
  };
  const voters = Object.keys(stores).map((storeId) => {
    return { nodeId: storeId, storeId, joinedEpoch: 1 };
  });
  const log: Pick<LogReader, 'head'> = { head: async () => ({ generation: 7, digest: '' }) };
  const progress = await appliedEverywhere(
    {
      replicas,
      log,
      clock: { sleep: () => (says ? never : new Promise((resolve) => setImmediate(resolve))) },
      readRecord: async (id) => ({ ...plainRecord, id, name: 'app', voters }),
    },
    'ab'.repeat(16),
  );
  assert.deepEqual(progress, { head: 7, applied: undefined });
}

const never = new Promise<void>(() => undefined);
const hangingNode: StorageNode = {
  nodeId: 'b',
  storeId: 'b',
  address: '',
  zone: '',
  weight: 1,
  capacityBytes: 0,
  usedBytes: 0,
  draining: false,
  local: false,
};
