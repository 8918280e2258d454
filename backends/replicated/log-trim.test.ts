import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator, Operation } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { LogTrim } from './log-trim.js';
import { encodeRecord } from './records.js';
import type { Progress } from './replicate.js';
import { intercepting } from './testing/fault-coordinator.js';

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

let directory: string;
let coordinator: Coordinator;
let trim: LogTrim;
let nowMs: number;
let progress: Progress;
/** Aborted: what is deleted is held up no more. */
let gate: AbortController;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-trim-'));
  coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  nowMs = 1_000;
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => nowMs,
    sleep: (_, signal) => systemClock.sleep(1, signal),
  };
  gate = new AbortController();
  gate.abort();
  trim = new LogTrim({
    coordinator: intercepting(coordinator, () => async (run) => {
      if (!gate.signal.aborted) await once(gate.signal, 'abort');
      return run();
    }),
    clock,
    logger: silentLogger,
    appliedEverywhere: async () => progress,
  });
});
afterEach(async () => {
  gate.abort();
  await trim.close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

async function fillLog(from: number, to: number): Promise<void> {
  const head = encodeRecord({ generation: to, digest });
  const success: Operation[] = [{ type: 'put', key: keys.head(id), value: head }];
  for (let n = from; n <= to; n++) {
    success.push({ type: 'put', key: keys.logEntry(id, n), value: entry(n) });
  }
  for (let at = 0; at < success.length; at += 100) {
    const some = success.slice(at, at + 100);
    await coordinator.transaction({ compares: [], success: some, failure: [] });
  }
}

async function left(): Promise<number> {
  const { entries } = await coordinator.range(keys.log(id), { rangeEnd: prefixEnd(keys.log(id)) });
  return entries.length;
}

test('how far and for how long a voter lags is told until it has caught up', async () => {
  await fillLog(4, 7);
  progress = { head: 7, applied: undefined };
  assert.deepEqual(trim.lag, { repositories: 0, generations: 0, ms: 0 });
  trim.later(id);
  assert.deepEqual(trim.lag, { repositories: 1, generations: 1, ms: 0 });
  await until('it is looked at', () => trim.lag.generations === 4);
  nowMs += 20_000;
  trim.later(id);
  assert.deepEqual(trim.lag, { repositories: 1, generations: 4, ms: 20_000 });
  progress = { head: 7, applied: 5 };
  await until('two of them have gone', () => trim.lag.generations === 2);
  progress = { head: 7, applied: 7 };
  await until('all of them have gone', () => trim.lag.repositories === 0);
  assert.deepEqual(trim.lag, { repositories: 0, generations: 0, ms: 0 });
});

test('what every voter has applied is no lag, though its entries are still there; they go in one round', async () => {
  await fillLog(1, 250);
  progress = { head: 250, applied: 120 };
  gate = new AbortController();
  trim.later(id);
  await until('it is looked at', () => trim.lag.generations === 130);
  assert.equal(await left(), 250);
  gate.abort();
  await until('they have gone', async () => (await left()) === 130);
  nowMs += 20_000;
  gate = new AbortController();
  progress = { head: 250, applied: 250 };
  await until('it has caught up', () => trim.lag.repositories === 0);
  assert.equal(await left(), 130);
  // It lags anew, from now on.
  trim.later(id);
  assert.deepEqual(trim.lag, { repositories: 1, generations: 1, ms: 0 });
});
