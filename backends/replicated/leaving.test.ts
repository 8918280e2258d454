import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createProcessLease, type OwnedProcessLease } from '../coordination/process-lease.js';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { Leadership } from './leadership.js';
import { Presence } from './presence.js';
import { intercepting } from './testing/fault-coordinator.js';

/* What says that a process lives, or what it does, comes and goes although its lease lives on. */

const random = { bytes: (length: number) => randomBytes(length) };
const clock = createManualClock();
const logger = silentLogger;
let directory: string;
let coordinator: Coordinator;
/** Of two processes. */
let leases: readonly OwnedProcessLease[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-leaving-'));
  coordinator = await openEmbeddedCoordinator({ directory, clock, logger });
  leases = [0, 1].map(() => createProcessLease({ coordinator, clock, logger }));
});
afterEach(async () => {
  for (const lease of leases) await lease.close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

function leaseOf(index: number): OwnedProcessLease {
  const lease = leases[index];
  assert.ok(lease !== undefined);
  return lease;
}

async function stored(prefix: string): Promise<readonly string[]> {
  const { entries } = await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
  return entries.map(({ key }) => key.slice(prefix.length));
}

/** The answer to the next transaction is lost after it was done. */
function losingOne(): Coordinator {
  let lost = false;
  return intercepting(coordinator, () => {
    if (lost) return undefined;
    lost = true;
    return async (run) => {
      await run();
      throw new QuorateError('outcome-unknown', 'a lost answer');
    };
  });
}

test('who resigns is followed by another at once', async () => {
  const [one, two] = [0, 1].map(
    (index) => new Leadership({ coordinator, lease: leaseOf(index), nodeId: `${index}` }),
  );
  assert.ok(one !== undefined && two !== undefined);
  assert.equal(await one.lead(), true);
  assert.equal(await two.lead(), false);
  await two.resign();
  assert.equal(await two.lead(), false, 'what is of another is left alone');
  await one.resign();
  assert.equal(one.leads, false);
  assert.equal(await two.lead(), true);
  assert.equal(await one.lead(), false);
});

test('who leads without having heard so finds it out', async () => {
  const one = new Leadership({ coordinator: losingOne(), lease: leaseOf(0), nodeId: 'one' });
  await assert.rejects(one.lead(), { code: 'outcome-unknown' });
  assert.equal(one.leads, false);
  assert.equal(await one.lead(), true);
  await one.tell({ repairing: 3, givenUp: [], behind: {} });
  assert.equal(one.leads, true);
});

test('a lost lease ends what hung on it, for all, and the front-end is there under another', async () => {
  const lease = leaseOf(0);
  const leadership = new Leadership({ coordinator, lease, nodeId: 'one' });
  const presence = new Presence({ coordinator, lease, clock, random, logger });
  await leadership.lead();
  const before = await presence.id();
  await (await lease.current()).revoke();
  assert.equal(leadership.leads, false);
  await until('it is announced anew', async () => (await stored(keys.frontEnd(''))).length === 1);
  const [now] = await stored(keys.frontEnd(''));
  assert.notEqual(now, before);
  assert.equal(await presence.id(), now);
  assert.equal((await presence.lease()).lease, (await lease.current()).id);
  await presence.close();
});

test('a front-end whose fence is down is known by the same name, and gets another when it needs one', async () => {
  const presence = new Presence({ coordinator, lease: leaseOf(0), clock, random, logger });
  const { id, fenceRevision, unfenced } = await presence.announced();
  const key = keys.fence(id);
  await coordinator.transaction({ compares: [], success: [{ type: 'delete', key }], failure: [] });
  unfenced();
  assert.equal(await presence.id(), id);
  assert.deepEqual(await stored(keys.fence('')), [], 'a coordinator that is full takes none');
  const again = await presence.announced();
  assert.equal(again.id, id);
  assert.ok(again.fenceRevision > fenceRevision);
  assert.equal(again.fenceRevision, (await coordinator.get(key))?.createRevision);
  unfenced();
  assert.equal(await presence.announced(), again, 'that was another one');
  await presence.close();
});

test('a fence that goes after it was found up once more is put anew', async () => {
  const presence = new Presence({ coordinator, lease: leaseOf(0), clock, random, logger });
  const first = await presence.announced();
  // Of two pushes that want it down, the one that is told nothing is the first.
  first.unfenced();
  const second = await presence.announced();
  assert.equal(second.fenceRevision, first.fenceRevision);
  const key = keys.fence(first.id);
  await coordinator.transaction({ compares: [], success: [{ type: 'delete', key }], failure: [] });
  first.unfenced();
  const third = await presence.announced();
  assert.equal(third.fenceRevision, (await coordinator.get(key))?.createRevision);
  await presence.close();
});

test('a front-end that leaves is gone, with all that is known under its id', async () => {
  const lease = leaseOf(0);
  const presence = new Presence({ coordinator: losingOne(), lease, clock, random, logger });
  await assert.rejects(presence.id(), { code: 'outcome-unknown' });
  const [first] = await stored(keys.frontEnd(''));
  assert.equal(await presence.id(), first, 'the one whose answer was lost');
  const own = await coordinator.get(keys.frontEnd(await presence.id()));
  assert.equal((await presence.announced()).createRevision, own?.createRevision);
  const { id, lease: under } = await presence.lease();
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.readRate(id), value: Buffer.from('{}'), lease: under }],
    failure: [],
  });
  const other = new Presence({ coordinator, lease: leaseOf(1), clock, random, logger });
  await other.id();
  await presence.close();
  assert.deepEqual(await stored(keys.frontEnd('')), [await other.id()]);
  assert.deepEqual(await stored(keys.fence('')), [await other.id()]);
  assert.deepEqual(await stored(keys.readRates), []);
  assert.equal((await lease.current()).lost.aborted, false);
  await other.close();
});
