import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { until } from '../contract/testing/until.js';
import { openEmbeddedCoordinator } from './embedded/embedded-coordinator.js';
import { createProcessLease, type OwnedProcessLease } from './process-lease.js';
import { createManualClock, type ManualClock, silentLogger } from './test-environment.js';

let directory: string;
let clock: ManualClock;
let coordinator: Coordinator;
let granted: number;
/** Throws in place of what asks for it. */
let trouble: { grant?: true; transaction?: true };
let lease: OwnedProcessLease;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-lease-'));
  clock = createManualClock();
  coordinator = await openEmbeddedCoordinator({ directory, clock, logger: silentLogger });
  granted = 0;
  trouble = {};
  const troubled: Coordinator = {
    limits: coordinator.limits,
    get: (key, options) => coordinator.get(key, options),
    range: (key, options) => coordinator.range(key, options),
    grantLease: async (ttlMs) => {
      granted += 1;
      refuse(trouble.grant);
      return coordinator.grantLease(ttlMs);
    },
    leaseLeft: (id) => coordinator.leaseLeft(id),
    watch: (key, options) => coordinator.watch(key, options),
    identity: () => coordinator.identity(),
    ping: () => coordinator.ping(),
    close: () => coordinator.close(),
    transaction: async (transaction) => {
      refuse(trouble.transaction);
      return coordinator.transaction(transaction);
    },
  };
  lease = createProcessLease({ coordinator: troubled, clock, logger: silentLogger });
});
afterEach(async () => {
  await lease.close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

function refuse(when: true | undefined): void {
  if (when) throw new QuorateError('unavailable', 'not now');
}

async function put(key: string, under?: string): Promise<void> {
  const value = Buffer.from(key);
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value, ...(under === undefined ? {} : { lease: under }) }],
    failure: [],
  });
}

async function stored(): Promise<readonly string[]> {
  const { entries } = await coordinator.range('a', { rangeEnd: 'z' });
  return entries.map(({ key }) => key);
}

test('all who ask share one lease, and one grant after it was lost', async () => {
  const [one, two] = await Promise.all([lease.current(), lease.current()]);
  assert.equal(one, two);
  assert.equal(await lease.current(), one);
  await one.revoke();
  const [three, four] = await Promise.all([lease.current(), lease.current()]);
  assert.notEqual(three.id, one.id);
  assert.equal(three, four);
  assert.equal(granted, 2);
});

test('a grant that fails is asked for again by whoever comes next', async () => {
  trouble = { grant: true };
  const tried = await Promise.allSettled([lease.current(), lease.current()]);
  assert.deepEqual(
    tried.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.equal(granted, 1);
  trouble = {};
  await lease.current();
  assert.equal(granted, 2);
});

test('who leaves takes away what hangs on the lease, and nothing else', async () => {
  const { id, lost } = await lease.current();
  const other = await coordinator.grantLease(5_000);
  await put('k/1', id);
  await put('k/2', other.id);
  await put('k/3', id);
  await put('k/4');
  await put('l', id);
  await lease.leave('k/', 'k0');
  assert.deepEqual(await stored(), ['k/2', 'k/4', 'l']);
  await lease.leave('l');
  await lease.leave('k/2');
  await lease.leave('not there');
  assert.deepEqual(await stored(), ['k/2', 'k/4']);
  assert.equal(lost.aborted, false);
});

test('what cannot be taken away at once goes later, while the lease lives on', async () => {
  const { id, lost } = await lease.current();
  await put('k', id);
  trouble = { transaction: true };
  await lease.leave('k');
  clock.advance(1_000);
  assert.deepEqual(await stored(), ['k']);
  trouble = {};
  await until('it is gone', async () => {
    clock.advance(1_000);
    return (await stored()).length === 0;
  });
  assert.equal(lost.aborted, false);
});

test('closing revokes it, and what is left goes with it', async () => {
  const { id, lost } = await lease.current();
  await put('k', id);
  await lease.close();
  assert.equal(lost.aborted, true);
  assert.deepEqual(await stored(), []);
  await assert.rejects(lease.current(), { code: 'unavailable' });
  await lease.leave('k');
  assert.equal(granted, 1);
});
