import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { until } from '../contract/testing/until.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../coordination/process-lease.js';
import { silentLogger as logger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { Presence } from './presence.js';
import {
  differingWords,
  type FrontEndFacts,
  readDifferingSettings,
  SharedSettingsWatch,
} from './shared-settings.js';

let directory: string;
let coordinator: Coordinator;
const closing: (() => Promise<unknown>)[] = [];
const random = { bytes: (length: number) => randomBytes(length) };
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-shared-'));
  coordinator = await openEmbeddedCoordinator({ directory, clock: systemClock, logger });
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

async function announce(facts?: FrontEndFacts): Promise<Presence> {
  const lease = createProcessLease({ coordinator, clock: systemClock, logger });
  const around = { coordinator, lease, clock: systemClock, random, logger };
  const presence = new Presence({ ...around, ...(facts === undefined ? {} : { facts }) });
  closing.push(() => lease.close());
  closing.push(() => presence.close());
  await presence.id();
  return presence;
}

const factor = (nodeId: string, count: number): FrontEndFacts => ({
  nodeId,
  settings: { 'replication.factor': String(count), 'repair.after': '600000 ms' },
});

test('front-ends that have different settings are named, with the settings and their values', async () => {
  // As of an earlier version.
  await announce();
  await announce(factor('b', 3));
  await announce(factor('a', 3));
  assert.deepEqual(await readDifferingSettings(coordinator), []);
  const other = await announce(factor('c', 5));
  const differing = await readDifferingSettings(coordinator);
  assert.deepEqual(differing, [
    {
      name: 'replication.factor',
      values: [
        { value: '3', frontEnds: ['a', 'b'] },
        { value: '5', frontEnds: ['c'] },
      ],
    },
  ]);
  assert.deepEqual(differing.map(differingWords), ['replication.factor: 3 (a, b), 5 (c)']);
  await other.close();
  assert.deepEqual(await readDifferingSettings(coordinator), []);
});

test('one that was killed, and started again with another setting, differs from nobody', async () => {
  for (const count of [3, 5, 4]) await announce(factor('a', count));
  assert.deepEqual(await readDifferingSettings(coordinator), []);
  await announce(factor('b', 5));
  const [differing] = (await readDifferingSettings(coordinator)).map(differingWords);
  assert.equal(differing, 'replication.factor: 4 (a), 5 (b)');
});

test('what differs is logged when that changes, and when it is the same again', async () => {
  await announce(factor('a', 3));
  const other = await announce(factor('c', 5));
  const logged: string[] = [];
  let looks = 0;
  const watch = new SharedSettingsWatch({
    coordinator,
    clock: {
      ...systemClock,
      sleep: async (_ms, signal) => {
        looks += 1;
        await systemClock.sleep(5, signal);
      },
    },
    logger: {
      ...logger,
      warn: (_context: object, message: string) => void logged.push(message),
      info: (_context: object, message: string) => void logged.push(message),
    },
  });
  closing.push(() => watch.close());
  watch.start();
  await until('some looks', () => looks > 4);
  assert.equal(logged.length, 1);
  assert.match(logged[0] ?? '', /replication\.factor: 3 \(a\), 5 \(c\); give all of them the same/);
  await other.close();
  await until('it is well again', () => logged.length === 2);
  assert.match(logged[1] ?? '', /same settings again/);
});
