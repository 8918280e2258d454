import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Coordinator } from '../backends/contract/coordinator.js';
import type { Clock, Logger } from '../backends/contract/environment.js';
import { openEmbeddedCoordinator } from '../backends/coordination/embedded/embedded-coordinator.js';
import { createAccounts } from '../server/auth/account-store.js';
import type { Accounts } from '../server/auth/accounts.js';
import { parseSshPublicKeyLine } from '../server/auth/ssh-public-key.js';

// Accounts on the coordinator that they live in. What they refuse and say is tested beside their code.

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    sleep(ms, undefined, { ref: false, ...(signal ? { signal } : {}) }).catch(() => undefined),
};
const logger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => logger,
};

let directory = '';
let coordinator: Coordinator;
let accounts: Accounts;

async function open(): Promise<void> {
  coordinator = await openEmbeddedCoordinator({ directory, clock, logger });
  accounts = createAccounts({
    coordinator,
    clock,
    random: { bytes: (length) => randomBytes(length) },
  });
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-accounts-'));
  await open();
});
afterEach(async () => {
  await coordinator.close();
  await rm(directory, { recursive: true, force: true });
});

const field = (bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.of(0, 0, 0, bytes.length), bytes]);

function newKeyLine(): string {
  const blob = Buffer.concat([field(Buffer.from('ssh-ed25519')), field(randomBytes(32))]);
  return `ssh-ed25519 ${blob.toString('base64')} test`;
}

test('users, keys and tokens survive a restart', async () => {
  await accounts.createUser({ name: 'alice', admin: true });
  const line = newKeyLine();
  const { fingerprint } = await accounts.addKey('alice', line);
  const { secret, token } = await accounts.createToken({
    user: 'alice',
    name: 'ci',
    scope: 'write',
  });
  await coordinator.close();
  await open();
  const byToken = await accounts.authenticateToken(secret);
  assert.deepEqual(byToken, {
    kind: 'user',
    name: 'alice',
    admin: true,
    canCreate: true,
    via: { type: 'token', tokenId: token.id, scope: 'write', repositoryPattern: undefined },
  });
  const { blob } = parseSshPublicKeyLine(line).key;
  const byKey = await accounts.authenticateKey(blob);
  assert.deepEqual(byKey, { ...byToken, via: { type: 'key', fingerprint } });
});

test('of many who do the same at once, one succeeds', async () => {
  const users = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  for (const name of users) await accounts.createUser({ name, admin: false });
  const line = newKeyLine();
  const races = [
    users.map(() => accounts.createUser({ name: 'same', admin: false })),
    users.map((user) => accounts.addKey(user, line)),
  ];
  for (const race of races) {
    const outcomes = await Promise.allSettled<unknown>(race);
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  }
  assert.equal((await accounts.listKeys()).length, 1);
});

test('a revoked token, a removed key and a disabled user are refused from the next request on', async () => {
  await accounts.createUser({ name: 'alice', admin: false });
  const line = newKeyLine();
  const key = await accounts.addKey('alice', line);
  const blob = parseSshPublicKeyLine(line).key.blob;
  const first = await accounts.createToken({ user: 'alice', name: '', scope: 'read' });
  const second = await accounts.createToken({ user: 'alice', name: '', scope: 'read' });
  await accounts.revokeToken(first.token.id);
  assert.equal(await accounts.authenticateToken(first.secret), undefined);
  assert.notEqual(await accounts.authenticateToken(second.secret), undefined);
  await accounts.setUserDisabled('alice', true);
  assert.equal(await accounts.authenticateToken(second.secret), undefined);
  assert.equal(await accounts.authenticateKey(blob), undefined);
  await accounts.setUserDisabled('alice', false);
  assert.notEqual(await accounts.authenticateKey(blob), undefined);
  await accounts.removeKey(key.fingerprint);
  assert.equal(await accounts.authenticateKey(blob), undefined);
});

test('lists go over many pages', async () => {
  for (let index = 0; index < 1100; index++) {
    await accounts.createUser({ name: `u${index}`, admin: false });
  }
  assert.equal((await accounts.listUsers()).length, 1100);
});
