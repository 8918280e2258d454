import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createProcessLease, type OwnedProcessLease } from '../coordination/process-lease.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { FrontEndName } from './front-end-name.js';
import { NodeMembership } from './node-membership.js';
import { intercepting } from './testing/fault-coordinator.js';

/** What was said to people, in order. */
let said: string[];
const logger: Logger = { ...silentLogger, info: (_fields, message) => void said.push(message) };
/** On which a wait takes no time, and the time goes by all the same. */
let aheadMs = 0;
const clock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() + aheadMs,
  sleep: async (ms) => {
    aheadMs += ms;
    await delay(1);
  },
};
let directory: string;
let coordinator: Coordinator;
let leases: OwnedProcessLease[];
let names: FrontEndName[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-names-'));
  coordinator = await openEmbeddedCoordinator({ directory, clock: systemClock, logger });
  leases = [];
  names = [];
  said = [];
});
afterEach(async () => {
  for (const name of names) await name.leave();
  for (const lease of leases) await lease.close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

function leaseOfOne(): OwnedProcessLease {
  const lease = createProcessLease({ coordinator, clock: systemClock, logger });
  leases.push(lease);
  return lease;
}

/** Of a process of its own. */
function nameAt(host: string, nodeId = 'front', seen = coordinator): FrontEndName {
  const lease = leaseOfOne();
  const place = { host, directory: '/data' };
  const name = new FrontEndName({
    coordinator: seen,
    lease,
    clock,
    logger,
    nodeId,
    place,
    incarnation: 1,
  });
  names.push(name);
  return name;
}

const stored = async (): Promise<string | undefined> =>
  (await coordinator.get(keys.frontEndName('front')))?.lease;

for (const happened of [true, false]) {
  const desc = happened ? 'happened' : 'did not happen';
  test(`a start goes on when an answer is lost, of what ${desc}`, async () => {
    let lost = 0;
    const losing = intercepting(coordinator, () => async (run) => {
      if (lost++ > 0) return run();
      if (happened) await run();
      throw new QuorateError('outcome-unknown', 'the answer is lost');
    });
    await nameAt('one', 'front', losing).take();
    assert.equal(lost, 2);
    assert.notEqual(await stored(), undefined);
  });
}

test('a second front-end of the same node id is refused, whatever others are called', async () => {
  await nameAt('one').take();
  await nameAt('one', 'another').take();
  const before = await stored();
  await assert.rejects(nameAt('two').take(), {
    code: 'failed-precondition',
    message:
      'the node id front is taken by the front-end with the data directory /data on one: give this one another with --node-id, ' +
      'or none (one is made from the host name), so that both may run side by side; or start it when that one has stopped',
  });
  assert.equal(await stored(), before);
  assert.deepEqual(
    said.filter((message) => message.startsWith('the start waits')).length,
    1,
    'who starts it is told why nothing happens for seconds, once',
  );
});

test("who left, or is gone, is in nobody's way; who comes again does not wait", async () => {
  const first = nameAt('one');
  await first.take();
  // Killed, and started again while its lease lives on.
  await nameAt('one').take();
  const held = await stored();
  assert.ok(held !== undefined);
  await first.leave();
  assert.equal(await stored(), held, 'it is not its own any more');
  await names[1]?.leave();
  assert.equal(await stored(), undefined);
  await nameAt('two').take();
});

test('a front-end and a storage node are told apart by their node ids, whichever was first', async () => {
  const node = new NodeMembership({
    coordinator,
    lease: leaseOfOne(),
    clock,
    logger,
    describe: () =>
      Promise.resolve({
        nodeId: 'front',
        storeId: '1'.repeat(32),
        address: '10.0.0.1:7420',
        zone: 'default',
        weight: 1,
        capacityBytes: 1,
        usedBytes: 0,
        draining: false,
        version: '1',
      }),
  });
  const name = nameAt('one');
  await name.take();
  await assert.rejects(node.join(), {
    code: 'failed-precondition',
    message:
      'the node id front is taken by the front-end with the data directory /data on one: give this one another with --node-id, or start it when that one has stopped',
  });
  await name.leave();
  await node.join();
  await assert.rejects(nameAt('one').take(), {
    code: 'failed-precondition',
    message:
      'the node id front is taken by the storage node at 10.0.0.1:7420: give this front-end another with --node-id, or none (one is made from the host name)',
  });
  await node.leave();
});

test('with the next lease the name is there again', async () => {
  await nameAt('one').take();
  const before = await stored();
  const [lease] = leases;
  assert.ok(lease !== undefined);
  await (await lease.current()).revoke();
  await until('it is put again', async () => {
    const now = await stored();
    return now !== undefined && now !== before;
  });
});
