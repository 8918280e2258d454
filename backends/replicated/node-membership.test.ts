import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../coordination/process-lease.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { NodeMembership } from './node-membership.js';
import { decodeNode, type NodeRecord } from './node-record.js';
import { intercepting } from './testing/fault-coordinator.js';

let directory: string;
let coordinator: Coordinator;
let alive: NodeJS.Timeout;
beforeEach(async () => {
  // The clock's sleeps keep no process alive.
  alive = setInterval(() => undefined, 1_000);
  directory = await mkdtemp(join(tmpdir(), 'quorate-membership-'));
  const options = { directory, clock: systemClock, logger: silentLogger };
  coordinator = await openEmbeddedCoordinator(options);
});
afterEach(async () => {
  clearInterval(alive);
  await coordinator.close();
  await rm(directory, { recursive: true });
});

const sound: NodeRecord = {
  nodeId: 'a',
  storeId: 'a'.repeat(32),
  address: 'a:7420',
  zone: 'z',
  weight: 1,
  capacityBytes: 100,
  usedBytes: 10,
  draining: false,
  version: '0',
};

/** A node, whose turn to announce itself comes when a test says so. */
function openNode(
  describe: () => Promise<NodeRecord>,
  seen: Coordinator = coordinator,
): { readonly membership: NodeMembership; readonly refresh: () => void } {
  let due: (() => void) | undefined;
  const clock: typeof systemClock = {
    ...systemClock,
    sleep: (ms, signal) => {
      if (ms < 10_000) return systemClock.sleep(1, signal);
      return new Promise((resolve) => {
        due = resolve;
        signal?.addEventListener('abort', () => resolve(), { once: true });
        if (signal?.aborted === true) resolve();
      });
    },
  };
  const environment = { clock, logger: silentLogger };
  const lease = createProcessLease({ ...environment, clock: systemClock, coordinator });
  return {
    membership: new NodeMembership({ ...environment, coordinator: seen, lease, describe }),
    refresh: () => due?.(),
  };
}

async function announced(): Promise<boolean | undefined> {
  const entry = await coordinator.get(keys.node('a'));
  return entry === undefined ? undefined : decodeNode(entry).draining;
}

test('what a node says of itself is not overwritten by what it was about to say before', async () => {
  let draining = false;
  let release: (() => void) | undefined;
  let puts = 0;
  let holding = false;
  const counting = intercepting(coordinator, () => async (run) => {
    const result = await run();
    puts += 1;
    return result;
  });
  const { membership, refresh } = openNode(async () => {
    const said = { ...sound, draining };
    if (holding) {
      holding = false;
      await new Promise<void>((resolve) => (release = resolve));
    }
    return said;
  }, counting);
  await membership.join();
  holding = true;
  await until('its turn', () => {
    refresh();
    return release !== undefined;
  });
  draining = true;
  const told = membership.update();
  await Promise.race([told, systemClock.sleep(50)]);
  release?.();
  await told;
  await until('both', () => puts === 3);
  assert.equal(await announced(), true);
  await membership.leave();
});

test('what could not be told is told soon, not with the next turn', async () => {
  let draining = false;
  let failing = 0;
  const losing = intercepting(coordinator, () => async (run) => {
    if (failing-- > 0) throw new QuorateError('unavailable', 'a new leader is being elected');
    return run();
  });
  const { membership } = openNode(() => Promise.resolve({ ...sound, draining }), losing);
  await membership.join();
  draining = true;
  failing = 3;
  await assert.rejects(membership.update(), { code: 'unavailable' });
  await until('the change', async () => (await announced()) === true);
  await membership.leave();
  assert.equal(await announced(), undefined);
});
