import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator, KeyValue, TransactionResult } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { silentMeter } from '../local/testing/local-fixture.js';
import { PastMemory } from './past-reads.js';
import { createManualClock, silentLogger } from './test-environment.js';

const maxAgeMs = 600_000;

let stored: Map<string, KeyValue>;
let lost: boolean;
let asked: string[];
let clock: ReturnType<typeof createManualClock>;
let memory: PastMemory;

function put(key: string, text = key): void {
  const version = (stored.get(key)?.version ?? 0) + 1;
  const value = Buffer.from(text);
  stored.set(key, { key, value, createRevision: 1, modRevision: version, version });
}

function answer(key: string): KeyValue | undefined {
  asked.push(key);
  if (lost) throw new QuorateError('unavailable', 'no quorum');
  return stored.get(key);
}

const never = (): never => assert.fail('not asked here');

const coordinator: Coordinator = {
  limits: { maxOperations: 128, maxCompares: 128, maxRequestBytes: 1_572_864 },
  get: async (key) => answer(key),
  range: never,
  transaction: async ({ success }): Promise<TransactionResult> => ({
    succeeded: true,
    revision: 1,
    results: success.map(({ key }) => {
      const entry = answer(key);
      return { type: 'get', entries: entry === undefined ? [] : [entry], more: false };
    }),
  }),
  grantLease: never,
  leaseLeft: never,
  watch: never,
  identity: never,
  ping: async () => void answer('ping'),
  close: () => Promise.resolve(),
};

beforeEach(() => {
  stored = new Map();
  lost = false;
  asked = [];
  clock = createManualClock();
  memory = new PastMemory({
    coordinator,
    maxAgeMs,
    clock,
    logger: silentLogger,
    meter: silentMeter,
  });
});
afterEach(() => memory.close());

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const text = (entry: KeyValue | undefined): string | undefined =>
  entry && Buffer.from(entry.value).toString();
const unavailable = { code: 'unavailable' };
const either = (key: string): Promise<KeyValue | undefined> =>
  memory.orPast(
    () => memory.coordinator.get(key),
    async () => memory.get(key),
  );

test('what was read before is recalled while the coordinator is lost, and nothing else', async () => {
  const [known, unknown, other] = [keys.user('ada'), keys.user('bob'), keys.head('1')];
  for (const key of [known, unknown, other]) put(key);
  await memory.coordinator.get(known);
  await memory.coordinator.get(other);
  assert.equal(memory.lostForMs, undefined);
  lost = true;
  assert.equal(text(await either(known)), known);
  await assert.rejects(either(unknown), unavailable);
  await assert.rejects(either(other), unavailable);
  clock.advance(5_000);
  assert.equal(memory.lostForMs, 5_000);
  asked = [];
  assert.equal(text(await either(known)), known);
  assert.deepEqual(asked, [], 'what is known to be in vain is not asked first');
  lost = false;
  put(known, 'newer');
  await memory.coordinator.ping();
  assert.equal(memory.lostForMs, undefined);
  assert.equal(text(await either(known)), 'newer');
});

test('the log says once that the coordinator is lost, and why', async (context) => {
  const errors = context.mock.method(silentLogger, 'error');
  lost = true;
  for (let turns = 0; turns < 2; turns += 1) await assert.rejects(memory.coordinator.get('a'));
  const said = errors.mock.calls.map(({ arguments: [facts] }) => Reflect.get(facts, 'err'));
  assert.deepEqual(
    said.map((error) => (error instanceof QuorateError ? error.message : error)),
    ['no quorum'],
  );
});

test('what is too old is not believed any more', async () => {
  const key = keys.token('1');
  put(key);
  await memory.coordinator.get(key);
  lost = true;
  clock.advance(maxAgeMs);
  assert.equal(text(await either(key)), key);
  clock.advance(1);
  await assert.rejects(either(key), unavailable);
});

test('guesses are not remembered; what was there and is gone is', async () => {
  const key = keys.token('1');
  assert.equal(await memory.coordinator.get(key), undefined);
  assert.throws(() => memory.get(key), unavailable);
  put(key);
  await memory.coordinator.get(key);
  stored.clear();
  await memory.coordinator.get(key);
  assert.equal(memory.get(key), undefined);
  await memory.coordinator.get(keys.accessRevision);
  assert.equal(memory.get(keys.accessRevision), undefined);
});

test('as long as the coordinator answers, what was used lately is read again', async () => {
  const revoked = keys.token('1');
  put(revoked);
  await memory.coordinator.get(revoked);
  stored.clear();
  memory.start();
  for (let second = 0; second < 40; second++) {
    await turn();
    clock.advance(1_000);
    await turn();
  }
  lost = true;
  assert.equal(memory.get(revoked), undefined, 'revoked before the coordinator was lost');
});

test('other errors than silence are not answered from memory', async () => {
  const key = keys.user('ada');
  put(key);
  await memory.coordinator.get(key);
  const damaged = new QuorateError('data-corrupt', 'damaged');
  const asking = memory.orPast(
    () => Promise.reject(damaged),
    async () => memory.get(key),
  );
  await assert.rejects(asking, damaged);
});
