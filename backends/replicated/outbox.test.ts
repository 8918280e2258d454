import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { permissivePipeline, silentMeter, systemClock } from '../local/testing/local-fixture.js';
import { Outbox } from './outbox.js';
import { untraced } from './push-trace.js';
import { decodeLogEntry, encodeRecord, type RepositoryRecord } from './records.js';
import { intercepting } from './testing/fault-coordinator.js';
import { until } from '../contract/testing/until.js';
import { plainRecord } from './testing/plain-record.js';

let directory: string;
let coordinator: Coordinator;
let told: string[];
/** How many refs the stage of each push was told of. */
let refs: Map<string, number>;
/** Repositories of which an entry cannot be applied. */
let stuck: Set<string>;
/** Repositories with a voter that is away. */
let lagging: Set<string>;
/** Repositories with a voter whose disk hangs. */
let hanging: Set<string>;
/** Repositories of which all voters have disks that hang, until they are asked again. */
let silent: Map<string, () => void>;
/** Has the outbox wait no longer for voters. */
let late: (() => void)[];
let trimmedLater: string[];
/** What was in the coordinator when it was told of an entry to trim later. */
let leftThen: Promise<readonly string[]> | undefined;
/** Ends the pause of the outbox. */
let wake: (() => void)[];
/** What the stage of a push waits for at its end. */
let running: Promise<unknown> | undefined;
/** Monotonic time, as the outbox sees it. */
let nowMs: number;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-outbox-'));
  coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  told = [];
  refs = new Map();
  stuck = new Set();
  lagging = new Set();
  hanging = new Set();
  silent = new Map();
  late = [];
  trimmedLater = [];
  wake = [];
  running = undefined;
  nowMs = 0;
});
afterEach(async () => {
  await coordinator.close();
  await rm(directory, { recursive: true });
});

async function commit(id: string, generation: number): Promise<string> {
  const pushId = `${id}-push-${generation}`;
  const entry = { generation, pushId, updates: [], prepared: [], digest: '', actor: 'a', atMs: 1 };
  await coordinator.transaction({
    compares: [],
    success: [
      { type: 'put', key: keys.logEntry(id, generation), value: encodeRecord(entry) },
      { type: 'put', key: keys.outbox(id, pushId), value: encodeRecord({ generation }) },
    ],
    failure: [],
  });
  return pushId;
}

function outbox(inner = coordinator, name = 'me'): Outbox {
  return new Outbox({
    coordinator: inner,
    pipeline: {
      ...permissivePipeline,
      postReceive: async ({ entry }) => {
        told.push(entry.pushId);
        refs.set(entry.pushId, entry.updates.length);
        await running;
      },
    },
    runHook: () => Promise.reject(new Error('no hook is run')),
    applyEverywhere: async (id) => {
      if (silent.has(id)) await new Promise<void>((resolve) => silent.set(id, resolve));
      if (stuck.has(id)) throw new QuorateError('storage-failure', 'full');
      const everywhere = hanging.has(id)
        ? new Promise<boolean>(() => undefined)
        : Promise.resolve(!lagging.has(id));
      return { storeId: 's', everywhere };
    },
    trimLater: (id) => {
      trimmedLater.push(id);
      leftThen = left();
    },
    frontEnd: () => Promise.resolve(name),
    clock: {
      ...systemClock,
      monotonicMs: () => nowMs,
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          // The pause that gathers deletions, not one before another try.
          if (ms < 400) setImmediate(resolve);
          else if (ms === 10_000) late.push(resolve);
          else wake.push(resolve);
          signal?.addEventListener('abort', () => resolve(), { once: true });
        }),
    },
    meter: silentMeter,
    logger: silentLogger,
  });
}

async function left(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const prefix of [keys.allLogs, keys.outboxes]) {
    const { entries } = await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
    found.push(...entries.map(({ key }) => key));
  }
  return found;
}

/** All pauses are over. */
function goOn(): void {
  nowMs += 60_000;
  wake.splice(0).forEach((end) => end());
}

function untilLeft(count: number): Promise<void> {
  return until(`${count} are left`, async () => (await left()).length === count);
}

test('what an earlier process left is told and trimmed', async () => {
  for (let generation = 1; generation <= 100; generation++) await commit('a', generation);
  const box = outbox();
  await box.resume();
  await untilLeft(0);
  assert.equal(new Set(told).size, 100);
  await box.close();
});

test('a commit that was made here just now is not read again', async () => {
  let reads = 0;
  const box = outbox(
    intercepting(coordinator, ({ success }) => {
      if (success.some(({ type }) => type === 'get')) reads++;
      return undefined;
    }),
  );
  const pushId = await commit('a', 1);
  const kv = await coordinator.get(keys.logEntry('a', 1));
  assert.ok(kv !== undefined);
  const record: RepositoryRecord = {
    id: 'a',
    name: 'a',
    ...plainRecord,
  };
  box.notify('a', pushId, {
    entry: decodeLogEntry(kv),
    record,
    applied: 's',
    trace: untraced,
  });
  await untilLeft(0);
  assert.deepEqual([told, reads], [['a-push-1'], 0]);
  await box.close();
});

test('a push of many refs that waits for its stage is still known when what is left is looked for', async () => {
  const stages = new AbortController();
  running = once(stages.signal, 'abort');
  const box = outbox();
  for (let generation = 1; generation <= 8; generation++) {
    box.notify('a', await commit('a', generation));
    await until('its stage runs', () => told.length === generation);
  }
  const pushId = await commit('b', 1);
  const kv = await coordinator.get(keys.logEntry('b', 1));
  assert.ok(kv !== undefined);
  const record: RepositoryRecord = { id: 'b', name: 'b', ...plainRecord };
  const entry = { ...decodeLogEntry(kv), updatesDigest: 'ab'.repeat(32) };
  const updates = ['1', '2'].map((name) => ({
    ref: `refs/heads/${name}`,
    oldOid: '0'.repeat(40),
    newOid: '1'.repeat(40),
  }));
  box.notify('b', pushId, { entry, updates, record, applied: 's', trace: untraced });
  await box.resume();
  running = undefined;
  stages.abort();
  await untilLeft(0);
  assert.equal(refs.get(pushId), 2);
  await box.close();
});

test('an entry stays until it is applied; another repository does not wait for it', async () => {
  stuck.add('a');
  const box = outbox();
  box.notify('a', await commit('a', 1));
  box.notify('b', await commit('b', 1));
  await untilLeft(2);
  assert.deepEqual(told, ['b-push-1']);
  assert.deepEqual(await left(), [keys.logEntry('a', 1), keys.outbox('a', 'a-push-1')]);
  goOn();
  await until('it sleeps', () => wake.length > 0);
  assert.equal((await left()).length, 2, 'still stuck');
  stuck.delete('a');
  goOn();
  await untilLeft(0);
  assert.deepEqual(told, ['b-push-1', 'a-push-1']);
  await box.close();
});

test('what was put off is tried again while the stage of another push goes on', async () => {
  stuck.add('a');
  const stage = new AbortController();
  running = once(stage.signal, 'abort');
  const box = outbox();
  box.notify('b', await commit('b', 1));
  await until('it has begun', () => told.length > 0);
  box.notify('a', await commit('a', 1));
  await until('it sleeps', () => wake.length > 0);
  goOn();
  await until('it was tried, and waits for the next time', () => wake.length > 0);
  stuck.delete('a');
  goOn();
  running = undefined;
  await until('it is told', () => told.length > 1);
  assert.deepEqual(told, ['b-push-1', 'a-push-1']);
  stage.abort();
  await untilLeft(0);
  await box.close();
});

test('an entry that stays is trimmed later also when the answer was lost', async () => {
  lagging.add('a');
  let lost = 0;
  const box = outbox(
    intercepting(coordinator, ({ success }) => {
      if (lost > 0 || !success.some(({ type }) => type === 'delete')) return undefined;
      lost++;
      return async (run) => {
        await run();
        throw new QuorateError('outcome-unknown', 'the answer was lost');
      };
    }),
  );
  box.notify('a', await commit('a', 1));
  await until('it sleeps', () => wake.length > 0);
  assert.deepEqual(await left(), [keys.logEntry('a', 1)]);
  goOn();
  await until('the entry is left to be trimmed later', () => trimmedLater.length > 0);
  assert.deepEqual([told, trimmedLater], [['a-push-1'], ['a']]);
  await box.close();
});

test('a coordinator in trouble loses nothing', async () => {
  let failing = true;
  const box = outbox(
    intercepting(coordinator, () =>
      failing ? () => Promise.reject(new QuorateError('unavailable', 'away')) : undefined,
    ),
  );
  const pushId = await commit('a', 1);
  box.notify('a', pushId);
  box.notify('a', pushId);
  await until('it sleeps', () => wake.length > 0);
  failing = false;
  box.notify('a', pushId);
  goOn();
  await untilLeft(0);
  assert.deepEqual(told, [pushId]);
  await box.close();
});

test('a stage that is over is not run again when its records could not be deleted', async () => {
  let failing = true;
  const box = outbox(
    intercepting(coordinator, ({ success }) =>
      failing && success.some(({ type }) => type === 'delete')
        ? () => Promise.reject(new QuorateError('unavailable', 'no leader'))
        : undefined,
    ),
  );
  box.notify('a', await commit('a', 1));
  await until('it sleeps', () => wake.length > 0);
  goOn();
  await until('it was tried again, and sleeps', () => wake.length > 0);
  assert.equal((await left()).length, 2);
  failing = false;
  goOn();
  await untilLeft(0);
  assert.deepEqual(told, ['a-push-1']);
  await box.close();
});

test('closing does not wait for what is put off', async () => {
  stuck.add('a');
  const box = outbox();
  box.notify('a', await commit('a', 1));
  await until('it sleeps', () => wake.length > 0);
  await box.close();
  box.notify('a', 'a-push-1');
  assert.equal((await left()).length, 2);
});

test('a record that cannot be read keeps no other push from its stage', async () => {
  for (const id of ['a', 'b', 'c']) await commit(id, 1);
  const value = encodeRecord({ ofALaterVersion: true });
  await coordinator.transaction({
    compares: [],
    success: [
      { type: 'put', key: keys.outbox('a', 'a-push-1'), value },
      { type: 'put', key: keys.logEntry('b', 1), value },
    ],
    failure: [],
  });
  const box = outbox();
  await box.resume();
  await untilLeft(4);
  assert.deepEqual(told, ['c-push-1']);
  await box.close();
});

test('an item whose entry is gone, with its repository, is forgotten', async () => {
  const box = outbox();
  const pushId = await commit('a', 1);
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'delete', key: keys.logEntry('a', 1) }],
    failure: [],
  });
  box.notify('a', pushId);
  box.notify('a', 'never-was');
  await untilLeft(0);
  assert.deepEqual(told, []);
  await box.close();
});

test('a voter that is away holds up no stage: the entry alone stays', async () => {
  lagging.add('a');
  const box = outbox();
  box.notify('a', await commit('a', 1));
  await untilLeft(1);
  // The coordinator shows what was done before its answer comes back.
  await until('the entry is left to be trimmed later', () => trimmedLater.length > 0);
  assert.deepEqual([told, trimmedLater], [['a-push-1'], ['a']]);
  assert.deepEqual(await leftThen, [keys.logEntry('a', 1)], 'or it would be left to the outbox');
  assert.deepEqual(await left(), [keys.logEntry('a', 1)]);
  await box.close();
});

test('voters whose disks hang keep no other push waiting for its stage', async () => {
  const many = 20;
  hanging.add('a');
  const box = outbox();
  for (let generation = 1; generation <= many; generation++) {
    box.notify('a', await commit('a', generation));
    await until('it is told', () => told.length === generation);
  }
  box.notify('b', await commit('b', 1));
  await until('nothing is left of the other', async () => (await left()).length === 2 * many);
  assert.equal(trimmedLater.length, 0);
  for (const goOnWithout of late.splice(0)) goOnWithout();
  await until('their entries are trimmed later', () => trimmedLater.length === many);
  assert.equal((await left()).filter((key) => key.startsWith(keys.outboxes)).length, 0);
  await box.close();
});

test('repositories of which all disks hang keep no other push waiting for its stage', async () => {
  const box = outbox();
  const ids = Array.from({ length: 9 }, (_, index) => `silent-${index}`);
  for (const [index, id] of ids.entries()) {
    silent.set(id, () => undefined);
    box.notify(id, await commit(id, 1));
    // Each in a batch of its own.
    await until('it is waited for', () => late.length >= Math.min(index + 1, 8));
  }
  const other = await commit('other', 1);
  box.notify('other', other);
  for (const goOnWithout of late) goOnWithout();
  await until('the other is told', () => told.includes(other));
  assert.deepEqual(told, [other]);
  await until('the last one is waited for', () => late.length >= 9);
  for (const goOnWithout of late) goOnWithout();
  const answers = [...silent.values()];
  silent.clear();
  for (const answer of answers) answer();
  await untilLeft(0);
  assert.equal(told.length, 10);
  await box.close();
});

test('closing does not wait for disks that hang', async () => {
  silent.set('a', () => undefined);
  const box = outbox();
  box.notify('a', await commit('a', 1));
  await until('it is waited for', () => late.length > 0);
  const closed = box.close();
  for (const goOnWithout of late) goOnWithout();
  await closed;
  assert.deepEqual(told, []);
});

test('what another front-end committed is its own while it lives, and taken over once, when it is gone', async () => {
  const lease = await coordinator.grantLease(10_000);
  const put = (key: string, record: object, under?: string): Promise<unknown> =>
    coordinator.transaction({
      compares: [],
      success: [
        {
          type: 'put',
          key,
          value: encodeRecord(record),
          ...(under === undefined ? {} : { lease: under }),
        },
      ],
      failure: [],
    });
  await put(keys.frontEnd('other'), {}, lease.id);
  const pushId = await commit('a', 1);
  await put(keys.outbox('a', pushId), { generation: 1, frontEnd: 'other' });
  const boxes = [outbox(), outbox(coordinator, 'third')];
  await Promise.all(boxes.map((box) => box.resume()));
  assert.deepEqual(told, []);
  await lease.revoke();
  await Promise.all(boxes.map((box) => box.resume()));
  await untilLeft(0);
  assert.deepEqual(told, [pushId]);
  await Promise.all(boxes.map((box) => box.close()));
});
