import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { LockInfo } from '../../backends/contract/backend.js';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { createOpsServer } from './ops-server.js';
import type { OpsServer } from './ops-server.js';

const logger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => logger,
};

/** Ends every sleep that was begun: time passes when a test says so. */
const sleeping: (() => void)[] = [];
const clock: Clock = {
  nowMs: () => 0,
  monotonicMs: () => 0,
  sleep: () => new Promise<void>((resolve) => sleeping.push(resolve)),
};

const lock: LockInfo = {
  scope: 'ref',
  repositoryId: 'r1',
  ref: 'refs/heads/main',
  state: 'held',
  holder: 'f1',
  pushId: 'p1',
  ageMs: 12,
};

let phase: string;
let check: () => Promise<void>;
let locks: () => Promise<readonly LockInfo[]>;
let warning: string | undefined;
let server: OpsServer;
let base: string;

beforeEach(async () => {
  phase = 'serving';
  warning = undefined;
  check = () => Promise.resolve();
  locks = () => Promise.resolve([lock]);
  server = createOpsServer({
    logger,
    clock,
    metrics: { expose: () => Promise.resolve('up 1\n'), contentType: 'text/plain; version=0.0.4' },
    phase: () => phase,
    checks: { coordinator: () => check(), audit: () => Promise.resolve() },
    warnings: { coordinator: () => warning },
    locks: () => locks(),
  });
  const { port } = await server.listen('127.0.0.1', 0);
  base = `http://127.0.0.1:${port}`;
});
afterEach(() => server.close());

test('readiness follows the phase; health does not', async () => {
  assert.equal((await fetch(`${base}/readyz`)).status, 200);
  phase = 'draining';
  const ready = await fetch(`${base}/readyz`);
  assert.equal(ready.status, 503);
  assert.deepEqual(await ready.json(), { status: 'not ready', phase: 'draining' });
  assert.equal((await fetch(`${base}/healthz`)).status, 200);
});

test('warnings are told from the start, before anything is served', async () => {
  phase = 'starting';
  warning = 'an older copy';
  const ready = await fetch(`${base}/readyz`);
  assert.deepEqual(await ready.json(), {
    status: 'not ready',
    phase: 'starting',
    warnings: { coordinator: 'an older copy' },
  });
});

test('readiness names the check that fails', async () => {
  check = () => Promise.reject(new Error('no quorum'));
  const ready = await fetch(`${base}/readyz`);
  assert.equal(ready.status, 503);
  assert.deepEqual(await ready.json(), {
    status: 'not ready',
    phase: 'serving',
    checks: { coordinator: 'no quorum', audit: 'ok' },
  });
});

test('a check that hangs is a failed check', async () => {
  const asked = new Promise<void>((resolve) => {
    check = () => {
      resolve();
      return new Promise<void>(() => undefined);
    };
  });
  const answer = fetch(`${base}/readyz`);
  await asked;
  for (const end of sleeping) end();
  assert.equal((await answer).status, 503);
});

test('metrics and locks', async () => {
  const metrics = await fetch(`${base}/metrics`);
  assert.equal(metrics.headers.get('content-type'), 'text/plain; version=0.0.4');
  assert.equal(await metrics.text(), 'up 1\n');
  const debug = await fetch(`${base}/debug/locks?x`);
  assert.deepEqual(await debug.json(), { count: 1, locks: [lock] });
});

test('what fails is a 503 without the reason, which is for the log', async () => {
  locks = () => Promise.reject(new Error('secret path'));
  const debug = await fetch(`${base}/debug/locks`);
  assert.equal(debug.status, 503);
  assert.equal(await debug.text(), '/debug/locks cannot be answered now\n');
});

const refusals = [
  { desc: 'another path', path: '/', method: 'GET', status: 404 },
  { desc: 'a property of every object', path: '/constructor', method: 'GET', status: 404 },
  { desc: 'a method that changes things', path: '/metrics', method: 'POST', status: 405 },
];
for (const { desc, path, method, status } of refusals) {
  test(`refused: ${desc}`, async () => {
    const response = await fetch(base + path, { method });
    assert.equal(response.status, status);
    assert.match(await response.text(), /answers/);
  });
}
