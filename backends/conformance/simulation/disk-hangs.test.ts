import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endHang, hangSoon } from './disk-hangs.js';
import type { StorageHost } from './hosts.js';
import { Scheduler } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import { SimulatedDisk } from './simulated-disk.js';

const nothing = (): void => undefined;

function newDisk(): SimulatedDisk {
  return new SimulatedDisk(() => 0);
}

/** A machine whose disk hangs from now on, without a process, until `end`. */
function hangingHost(): {
  readonly host: StorageHost;
  readonly end: () => void;
  readonly wait: (ms: number) => Promise<boolean>;
} {
  const scheduler = new Scheduler();
  const world = {
    scheduler,
    say: nothing,
    count: nothing,
    crashStore: nothing,
    restartLater: nothing,
  };
  const host: StorageHost = {
    kind: 'store',
    name: 'store-1',
    disk: newDisk(),
    skewMs: 0,
    rate: 1,
    boots: 1,
    process: undefined,
    storeId: undefined,
    replica: undefined,
    source: undefined,
    lastSeenMs: 0,
    zone: 'a',
    presence: 'here',
  };
  const random = new SeededRandom('a disk hangs');
  while (host.disk.hang === undefined) hangSoon(world, random, host, 600_000);
  const wait = (ms: number): Promise<boolean> => {
    let over = false;
    scheduler.after(ms, () => (over = true));
    return scheduler.run(() => over);
  };
  return { host, end: () => endHang(world, host), wait };
}

test('a disk is found to hang, and found well when it does no more', async () => {
  const { host, end, wait } = hangingHost();
  await wait(25_000);
  assert.equal(host.disk.foundHanging, true);
  end();
  await wait(25_000);
  assert.equal(host.disk.foundHanging, false);
});

test('that a disk hung is not said of the one that takes its place', async () => {
  const { host, wait } = hangingHost();
  host.disk = newDisk();
  await wait(25_000);
  assert.equal(host.disk.foundHanging, false);
});
