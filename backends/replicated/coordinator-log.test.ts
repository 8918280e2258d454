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

/** A coordinator of which one member has heard of so many entries. */
function coordinator(known: number, all: number): { coordinator: Coordinator; reads: string[] } {
  const reads: string[] = [];
  const range: Coordinator['range'] = async (key, { rangeEnd = '', linearizable = true } = {}) => {
    reads.push(linearizable ? 'latest' : 'any');
    const entries = Array.from({ length: linearizable ? all : known }, (_, n) => entry(n + 1));
    const wanted = entries.filter((one) => one.key >= key && one.key < rangeEnd);
    return { entries: wanted, more: false, revision: 1 };
  };
  return {
    coordinator: {
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
    },
    reads,
  };
}

const cases: readonly { desc: string; known: number; all: number; got: number; reads: string[] }[] =
  [
    { desc: 'a member that has all of them is enough', known: 5, all: 5, got: 3, reads: ['any'] },
    { desc: 'one that lags is not', known: 4, all: 5, got: 3, reads: ['any', 'latest'] },
    { desc: 'one that knows of none is not', known: 0, all: 5, got: 3, reads: ['any', 'latest'] },
    { desc: 'what is nowhere is not made up', known: 3, all: 3, got: 1, reads: ['any', 'latest'] },
  ];

for (const { desc, known, all, got, reads } of cases) {
  test(`entries: ${desc}`, async () => {
    const asked = coordinator(known, all);
    const entries = await coordinatorLog(asked.coordinator).entries(id, 2, 5);
    assert.equal(entries.length, got);
    assert.deepEqual(asked.reads, reads);
  });
}
