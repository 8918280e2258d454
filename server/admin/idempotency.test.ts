import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { until } from '../../backends/contract/testing/until.js';
import { asCoordinator, MemoryCoordinator } from '../auth/memory-coordinator.fixture.js';
import { adminEndpoints } from './admin-api.js';
import { answers } from './answers.js';
import { RequestRecords } from './request-records.js';
import { type ApiAnswer, ApiScene, testClock } from './testing/api-scene.js';

let memory: MemoryCoordinator;
let nowMs: number;
let clock: Clock;
let scenes: ApiScene[];
let token: string;

beforeEach(async () => {
  memory = new MemoryCoordinator();
  nowMs = 1_800_000_000_000;
  clock = { ...testClock, nowMs: () => nowMs, monotonicMs: () => nowMs };
  scenes = [];
  token = await (await frontEnd()).token('root', { admin: true });
});
afterEach(async () => {
  for (const scene of scenes) await scene.close();
});

/** Another process of the same server. */
async function frontEnd(coordinator: Coordinator = asCoordinator(memory)): Promise<ApiScene> {
  const scene = await ApiScene.open({ coordinator, clock });
  scenes.push(scene);
  return scene;
}

function post(scene: ApiScene, path: string, body: object, key: string): Promise<ApiAnswer> {
  return scene.request('POST', path, { token, body, headers: { 'Idempotency-Key': key } });
}

const remembered = (): readonly string[] =>
  [...memory.entries.values()]
    .filter(({ key }) => key.startsWith('admin-requests/'))
    .map(({ value }) => Buffer.from(value).toString());

describe('Idempotency-Key, through another front-end or after a restart', () => {
  test('the same request gets the same answer, and nothing is done twice', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    const first = await post(one, '/users', { name: 'ann' }, 'k1');
    const again = await post(two, '/users', { name: 'ann' }, 'k1');
    assert.equal(first.status, 201);
    assert.deepEqual([again.status, again.text], [201, first.text]);
    assert.equal(two.audited.at(-1)?.details['repeated'], true);
    const other = await post(two, '/users', { name: 'bob' }, 'k1');
    assert.deepEqual([other.status, other.body?.['code']], [409, 'already-exists']);
    assert.equal(await two.accounts.getUser('bob'), undefined);
  });

  test('a token is made once; its secret is kept nowhere', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    const body = { user: 'root', name: 'ci' };
    const first = await post(one, '/tokens', body, 'k1');
    const again = await post(two, '/tokens', body, 'k1');
    assert.equal(again.status, 409);
    assert.match(String(again.body?.['detail']), /done already.* its secret was shown then/);
    const made = (await one.accounts.listTokens('root')).filter(({ name }) => name === 'ci');
    assert.equal(made.length, 1);
    assert.ok(again.text.includes(made[0]?.id ?? 'none'), 'it says which one, to be revoked');
    const secret = String(first.body?.['secret']);
    assert.match(secret, /^qrt_/);
    for (const { key, value } of memory.entries.values()) {
      assert.ok(!key.includes('k1') && !Buffer.from(value).toString().includes(secret));
    }
    // This process still has the whole answer.
    assert.equal((await post(one, '/tokens', body, 'k1')).text, first.text);
  });

  test('a failure is forgotten, and tried again', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    assert.equal((await post(one, '/users', { name: 'root' }, 'k1')).status, 409);
    assert.deepEqual(remembered(), []);
    assert.equal((await post(two, '/users', { name: 'ann' }, 'k1')).status, 201);
  });

  test('while one works, and when it died, the other says so and does nothing', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    let release: () => void = assert.fail;
    const create = one.accounts.createUser.bind(one.accounts);
    const held = new Promise<void>((resolve) => (release = resolve));
    one.accounts.createUser = async (user) => {
      await held;
      return create(user);
    };
    const first = post(one, '/users', { name: 'ann' }, 'k1');
    await until('it to work', () => remembered().length > 0);
    const meanwhile = await post(two, '/users', { name: 'ann' }, 'k1');
    assert.deepEqual([meanwhile.status, meanwhile.body?.['code']], [409, 'failed-precondition']);
    assert.match(String(meanwhile.body?.['detail']), /at work, or its server died/);
    release();
    assert.equal((await first).status, 201);
    assert.equal((await post(two, '/users', { name: 'ann' }, 'k1')).status, 201);
  });

  test('what may have happened is not tried again', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    one.accounts.createUser = async () => {
      throw new QuorateError('outcome-unknown', 'nobody knows');
    };
    assert.equal((await post(one, '/users', { name: 'ann' }, 'k1')).status, 500);
    const again = await post(two, '/users', { name: 'ann' }, 'k1');
    assert.deepEqual([again.status, again.body?.['code']], [409, 'failed-precondition']);
    assert.equal(await two.accounts.getUser('ann'), undefined);
  });

  test('an hour later it is another request', async () => {
    const [one, two] = [await frontEnd(), await frontEnd()];
    assert.equal((await post(one, '/users', { name: 'ann' }, 'k1')).status, 201);
    nowMs += 3_599_000;
    assert.equal((await post(two, '/users', { name: 'ann' }, 'k1')).status, 201);
    nowMs += 3_601_000;
    assert.equal((await post(await frontEnd(), '/users', { name: 'ann' }, 'k1')).status, 409);
  });

  test('a record whose writing was not confirmed is found again', async () => {
    const coordinator = asCoordinator(memory);
    let lost = 1;
    const scene = await frontEnd({
      ...coordinator,
      transaction: async (transaction) => {
        const result = await coordinator.transaction(transaction);
        const about = JSON.stringify(transaction.compares).includes('admin-requests/');
        if (about && lost-- > 0) throw new QuorateError('outcome-unknown', 'no answer');
        return result;
      },
    });
    assert.equal((await post(scene, '/users', { name: 'ann' }, 'k1')).status, 201);
    assert.equal((await post(await frontEnd(), '/users', { name: 'ann' }, 'k1')).status, 201);
  });
});

test('old requests are swept away, and young ones stay', async () => {
  const records = new RequestRecords({
    coordinator: asCoordinator(memory),
    clock,
    logger: { debug() {}, info() {}, warn() {}, error() {}, child: () => assert.fail() },
  });
  const once = (n: number): Promise<unknown> =>
    records.once(
      { place: randomBytes(32).toString('hex'), request: 'r', requestId: `${n}`, secrets: [] },
      async () => ({ status: 201, body: { n } }),
    );
  for (let n = 0; n < 450; n += 1) await once(n);
  nowMs += 3_600_000;
  for (let n = 0; n < 3; n += 1) await once(n);
  memory.put('admin-requests/damaged', Buffer.from('{'));
  await records.sweep();
  assert.equal(remembered().length, 3);
});

test('every answer with a secret in it is of an endpoint that says so', async () => {
  const scene = await frontEnd();
  const told = new Map(adminEndpoints(scene.options).map((one) => [one.action, one.secrets]));
  for (const [action, schema] of Object.entries(answers)) {
    const holds = 'shape' in schema && Object.hasOwn(Object(schema.shape), 'secret');
    assert.deepEqual(told.get(action) ?? [], holds ? ['secret'] : [], action);
  }
});
