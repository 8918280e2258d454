import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { coordinatorLog } from './coordinator-log.js';
import { encodeRecord } from './records.js';

const id = 'a'.repeat(32);
const never = (): never => assert.fail('not asked here');

function entry(generation: number): KeyValue {
  const pushId = `push-${generation}`;
  const record = { generation, pushId, updates: [], prepared: [], digest: '', actor: 'a', atMs: 1 };
  return {
    key: keys.logEntry(id, generation),
    value: encodeRecord(record),
    createRevision: generation,
    modRevision: generation,
    version: 1,
  };
}

/** A coordinator of which one member lags: it shows entries of another time. */
function coordinator(lagging: readonly number[], latest: readonly number[]): Coordinator {
  const range: Coordinator['range'] = async (key, { rangeEnd = '', linearizable = true } = {}) => {
    const entries = (linearizable ? latest : lagging).map(entry);
    const wanted = entries.filter((one) => one.key >= key && one.key < rangeEnd);
    return { entries: wanted, more: false, revision: 1 };
  };
  return {
    limits: { maxOperations: 128, maxCompares: 128, maxRequestBytes: 1_572_864 },
    get: never,
    range,
    transaction: never,
    grantLease: never,
    leaseLeft: never,
    watch: never,
    identity: never,
    ping: never,
    close: () => Promise.resolve(),
  };
}

const cases: readonly {
  readonly desc: string;
  readonly lagging: readonly number[];
  readonly latest: readonly number[];
  readonly got: readonly number[];
}[] = [
  { desc: 'all of them', lagging: [3, 4, 5], latest: [3, 4, 5], got: [3, 4, 5] },
  { desc: 'what a member has not heard of', lagging: [3, 4], latest: [3, 4, 5], got: [3, 4, 5] },
  { desc: 'what is nowhere is not made up', lagging: [3], latest: [3], got: [3] },
  // A late hint asks for what was overruled meanwhile, and for nothing beyond that.
  { desc: 'none that a recovery deleted', lagging: [3, 4, 5], latest: [6], got: [] },
];

for (const { desc, lagging, latest, got } of cases) {
  test(`entries: ${desc}`, async () => {
    const entries = await coordinatorLog(coordinator(lagging, latest)).entries(id, 2, 5);
    assert.deepEqual(
      entries.map(({ generation }) => generation),
      got,
    );
  });
}
