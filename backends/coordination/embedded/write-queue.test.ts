import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, test } from 'node:test';
import type { TransactionResult } from '../../contract/coordinator.js';
import { createManualClock, type ManualClock, silentLogger } from '../test-environment.js';
import { LeaseTable } from './leases.js';
import { Store } from './store.js';
import { WriteQueue } from './write-queue.js';

let directory: string;
let store: Store;
let clock: ManualClock;
let queue: WriteQueue;
let hangs: boolean;
let goesOn: () => void;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-queue-'));
  store = await Store.open(directory, silentLogger);
  clock = createManualClock();
  hangs = false;
  goesOn = () => undefined;
  const commit = store.commit.bind(store);
  store.commit = async (work) => {
    if (hangs) await new Promise<void>((resolve) => (goesOn = resolve));
    return commit(work);
  };
  queue = new WriteQueue({
    store,
    leases: new LeaseTable(clock, () => queue.wake()),
    clock,
    logger: silentLogger,
    publish: () => undefined,
    hangs: () => hangs,
  });
});
afterEach(async () => {
  await store.close();
  await rm(directory, { recursive: true });
});

function put(key: string): Promise<TransactionResult> {
  const value = Buffer.from('value');
  return queue.run({ compares: [], success: [{ type: 'put', key, value }], failure: [] }, 100);
}

async function pass(ms: number): Promise<void> {
  for (let passedMs = 0; passedMs < ms; passedMs += 5_000) {
    await turn();
    clock.advance(5_000);
  }
  await turn();
}

test('while the disk hangs, nobody knows of what is being written, and what waits for it is not begun', async () => {
  await put('before');
  hangs = true;
  const writing = put('writing');
  await turn();
  const later = put('later');
  const ends = Promise.allSettled([writing, later]);
  await pass(30_000);
  const [first, second] = await ends;
  assert.equal(first.status === 'rejected' && first.reason.code, 'outcome-unknown');
  assert.equal(second.status === 'rejected' && second.reason.code, 'unavailable');
  await assert.rejects(put('last'), { code: 'unavailable', message: /nothing changed/ });
  hangs = false;
  goesOn();
  await queue.idle();
  await put('after');
  const there = ['before', 'writing', 'later', 'last', 'after'].filter(
    (key) => store.get(key) !== undefined,
  );
  assert.deepEqual(there, ['before', 'writing', 'after']);
});

test('a commit that is long in coming is waited for while the disk is only busy', async () => {
  hangs = true;
  const writing = put('writing');
  await pass(25_000);
  hangs = false;
  await pass(5_000);
  hangs = true;
  await pass(25_000);
  goesOn();
  assert.equal((await writing).succeeded, true);
});
