import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Clock } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { LogTrim } from './log-trim.js';
import { encodeRecord } from './records.js';

const id = 'a'.repeat(32);
const digest = '0'.repeat(128);

const entry = (generation: number): Uint8Array =>
  encodeRecord({
    generation,
    pushId: `p${generation}`,
    updates: [],
    prepared: [],
    digest,
    actor: 'ann',
    atMs: 0,
  });

test('how far and for how long a voter lags is told until it has caught up', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-trim-'));
  const coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  let nowMs = 1_000;
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => nowMs,
    sleep: (_, signal) => systemClock.sleep(1, signal),
  };
  let applied: number | undefined;
  const trim = new LogTrim({
    coordinator,
    clock,
    logger: silentLogger,
    appliedEverywhere: async () => applied,
  });
  t.after(async () => {
    await trim.close();
    await coordinator.close();
    await rm(directory, { recursive: true });
  });
  const generations = [4, 5, 6, 7];
  await coordinator.transaction({
    compares: [],
    success: [
      ...generations.map((n) => ({
        type: 'put' as const,
        key: keys.logEntry(id, n),
        value: entry(n),
      })),
      { type: 'put', key: keys.head(id), value: encodeRecord({ generation: 7, digest }) },
    ],
    failure: [],
  });
  assert.deepEqual(trim.lag, { repositories: 0, generations: 0, ms: 0 });
  trim.later(id);
  assert.deepEqual(trim.lag, { repositories: 1, generations: 1, ms: 0 });
  await until('it is looked at', () => trim.lag.generations === 4);
  nowMs += 20_000;
  trim.later(id);
  assert.deepEqual(trim.lag, { repositories: 1, generations: 4, ms: 20_000 });
  applied = 5;
  await until('two of them have gone', () => trim.lag.generations === 2);
  applied = 7;
  await until('all of them have gone', () => trim.lag.repositories === 0);
  assert.deepEqual(trim.lag, { repositories: 0, generations: 0, ms: 0 });
});
