import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { beforeEach, describe, test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError, type ErrorCode } from '../../backends/contract/errors.js';
import { createAccounts } from './account-store.js';
import { GoneDeployKeys } from './gone-deploy-keys.js';
import type { Accounts, SignInRefusal } from './accounts.js';
import { asCoordinator, MemoryCoordinator, unused } from './memory-coordinator.fixture.js';
import { classifyTokenSecret } from './token-secret.js';
import { parseSshPublicKeyLine } from './ssh-public-key.js';

const field = (bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.of(0, 0, 0, bytes.length), bytes]);
const ed25519Line = (comment = ''): string => {
  const blob = Buffer.concat([field(Buffer.from('ssh-ed25519')), field(randomBytes(32))]);
  return `ssh-ed25519 ${blob.toString('base64')} ${comment}`;
};
const keyOf = (secret: string) => `tokens/${createHash('sha256').update(secret).digest('hex')}`;
const blobOf = (line: string): Uint8Array => parseSshPublicKeyLine(line).key.blob;

async function rejects(promise: Promise<unknown>, code: ErrorCode): Promise<string> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof QuorateError, String(error));
    assert.equal(error.code, code);
    return error.message;
  }
  return assert.fail(`resolved instead of failing with ${code}`);
}

let memory: MemoryCoordinator;
let accounts: Accounts;
let now = 1000;
const clock: Clock = { nowMs: () => now, monotonicMs: () => now, sleep: unused };

beforeEach(async () => {
  memory = new MemoryCoordinator();
  now = 1000;
  accounts = createAccounts({
    coordinator: asCoordinator(memory),
    clock,
    random: { bytes: (length) => randomBytes(length) },
  });
  await accounts.createUser({ name: 'alice', admin: false });
});

describe('users', () => {
  test('are created once, found and listed', async () => {
    await accounts.createUser({ name: 'root', admin: true, canCreate: false });
    await rejects(accounts.createUser({ name: 'alice', admin: true }), 'already-exists');
    assert.deepEqual(await accounts.getUser('alice'), {
      name: 'alice',
      admin: false,
      disabled: false,
      canCreate: true,
      createdAtMs: 1000,
    });
    assert.equal(await accounts.getUser('nobody'), undefined);
    assert.deepEqual(
      (await accounts.listUsers()).map((user) => user.name),
      ['alice', 'root'],
    );
  });

  test('of which two requests make one: one of them', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => accounts.createUser({ name: 'bob', admin: false })),
    );
    assert.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  });

  test('have decent names', async () => {
    const bad = [
      '',
      'Alice',
      '-a',
      '.a',
      'a/b',
      '../a',
      'a b',
      'a\n',
      'é',
      'a'.repeat(65),
      'anonymous',
      'trusted',
    ];
    for (const name of bad) {
      await rejects(accounts.createUser({ name, admin: false }), 'invalid-argument');
      assert.equal(await accounts.getUser(name), undefined);
    }
    for (const name of ['a', '0', 'a.b_c-d', 'a'.repeat(64), 'constructor']) {
      await accounts.createUser({ name, admin: false });
    }
  });

  test('more than a page of them are all listed', async () => {
    for (let index = 0; index < 1200; index++) {
      await accounts.createUser({ name: `u${index}`, admin: false });
    }
    assert.equal((await accounts.listUsers()).length, 1201);
  });

  test('can be disabled and enabled; a lost race is run again', async () => {
    let races = 3;
    memory.beforeTransaction = () => {
      if (races-- <= 0) return;
      const entry = memory.entries.get('users/alice');
      assert.ok(entry);
      memory.revision++;
      const changed = { ...JSON.parse(Buffer.from(entry.value).toString()), canCreate: false };
      memory.put('users/alice', Buffer.from(JSON.stringify(changed)));
    };
    const user = await accounts.setUserDisabled('alice', true);
    assert.deepEqual([user.disabled, user.canCreate], [true, false]);
    assert.equal((await accounts.setUserDisabled('alice', false)).disabled, false);
    await rejects(accounts.setUserDisabled('nobody', true), 'not-found');
  });

  test('a race that never ends is given up', async () => {
    memory.beforeTransaction = () => {
      memory.revision++;
      const entry = memory.entries.get('users/alice');
      assert.ok(entry);
      memory.put('users/alice', entry.value);
    };
    await rejects(accounts.setUserDisabled('alice', true), 'aborted');
  });

  test('damaged records are reported, not believed', async () => {
    memory.put('users/mallory', Buffer.from('{"name":"mallory","admin":"yes"}'));
    await rejects(accounts.getUser('mallory'), 'data-corrupt');
    memory.put('users/mallory', Buffer.from('{'));
    await rejects(accounts.getUser('mallory'), 'data-corrupt');
  });
});

describe('keys', () => {
  test('say who somebody is', async () => {
    const line = ed25519Line('alice@laptop');
    const key = await accounts.addKey('alice', line);
    assert.deepEqual(await accounts.listKeys('alice'), [key]);
    assert.deepEqual(
      [key.user, key.type, key.comment, key.createdAtMs],
      ['alice', 'ssh-ed25519', 'alice@laptop', 1000],
    );
    assert.deepEqual(await accounts.authenticateKey(blobOf(line)), {
      kind: 'user',
      name: 'alice',
      admin: false,
      canCreate: true,
      via: { type: 'key', fingerprint: key.fingerprint },
    });
    assert.equal(await accounts.authenticateKey(blobOf(ed25519Line())), undefined);
    assert.equal(await accounts.authenticateKey(new Uint8Array(0)), undefined);
  });

  test('belong to one user, and only that one is told who it is', async () => {
    await accounts.createUser({ name: 'bob', admin: false });
    const line = ed25519Line();
    await accounts.addKey('alice', line);
    assert.match(await rejects(accounts.addKey('alice', line), 'already-exists'), /alice/);
    assert.doesNotMatch(await rejects(accounts.addKey('bob', line), 'already-exists'), /alice/);
    const contested = ed25519Line();
    const outcomes = await Promise.allSettled(
      ['alice', 'bob'].map((user) => accounts.addKey(user, contested)),
    );
    assert.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  });

  test('need a user', async () => {
    await rejects(accounts.addKey('nobody', ed25519Line()), 'not-found');
    assert.deepEqual(await accounts.listKeys(), []);
  });

  test('removed, or of a disabled user, are nobody from then on', async () => {
    const line = ed25519Line();
    const { fingerprint } = await accounts.addKey('alice', line);
    await accounts.setUserDisabled('alice', true);
    assert.equal(await accounts.authenticateKey(blobOf(line)), undefined);
    await accounts.setUserDisabled('alice', false);
    assert.notEqual(await accounts.authenticateKey(blobOf(line)), undefined);
    await accounts.removeKey(fingerprint);
    assert.equal(await accounts.authenticateKey(blobOf(line)), undefined);
    await rejects(accounts.removeKey(fingerprint), 'not-found');
    for (const fake of ['', 'SHA256:', '../users/alice'])
      await rejects(accounts.removeKey(fake), 'not-found');
  });
});

describe('deploy keys', () => {
  test('reach one repository, as far as they were made to', async () => {
    const [reading, writing] = [ed25519Line('ci'), ed25519Line()];
    const key = await accounts.addDeployKey({ repositoryId: 'r1', line: reading, write: false });
    await accounts.addDeployKey({ repositoryId: 'r1', line: writing, write: true });
    const { fingerprint } = key;
    assert.deepEqual(await accounts.authenticateKey(blobOf(reading)), {
      kind: 'machine',
      name: `deploy-key:${fingerprint}`,
      reach: [{ repositoryId: 'r1', level: 'read' }],
    });
    const writer = await accounts.authenticateKey(blobOf(writing));
    assert.deepEqual(writer?.kind === 'machine' && writer.reach, [
      { repositoryId: 'r1', level: 'write' },
    ]);
    assert.equal((await accounts.listDeployKeys('r1')).length, 2);
    assert.deepEqual(await accounts.listDeployKeys('r2'), []);
    assert.deepEqual(await accounts.listKeys(), []);
    await rejects(accounts.removeDeployKey('r2', fingerprint), 'not-found');
    await rejects(accounts.removeKey(fingerprint), 'not-found');
    await accounts.removeDeployKey('r1', fingerprint);
    assert.equal(await accounts.authenticateKey(blobOf(reading)), undefined);
  });

  test('are nobody else`s key', async () => {
    const line = ed25519Line();
    const own = ed25519Line();
    await accounts.addKey('alice', own);
    await accounts.addDeployKey({ repositoryId: 'r1', line, write: false });
    await rejects(accounts.addKey('alice', line), 'already-exists');
    for (const taken of [line, own]) {
      const wanted = { repositoryId: 'r2', line: taken, write: true };
      await rejects(accounts.addDeployKey(wanted), 'already-exists');
    }
    assert.equal((await accounts.listKeys('alice')).length, 1);
  });

  test('of many repositories that go together are found by few readings of all keys', async () => {
    const lines = Array.from({ length: 30 }, () => ed25519Line());
    for (const [n, line] of lines.entries()) {
      await accounts.addDeployKey({ repositoryId: `r${n}`, line, write: false });
    }
    const damaged = 'keys/SHA256:damaged';
    memory.put(damaged, Buffer.from('{"repositoryId":7}'));
    const read = memory.range.bind(memory);
    let readings = 0;
    const gone = new GoneDeployKeys(asCoordinator(memory));
    memory.range = (...asked) => {
      readings += 1;
      return read(...asked);
    };
    await Promise.all(lines.slice(1).map((_, n) => gone.remove(`r${n + 1}`)));
    assert.ok(readings <= 2, `${readings} readings`);
    const left = [...memory.entries.keys()].filter((key) => key.startsWith('keys/'));
    assert.equal(left.length, 2, 'that of r0, and one that cannot be read');
    memory.entries.delete(damaged);
    assert.equal((await accounts.listDeployKeys('r0')).length, 1);
  });

  test('go with their repository', async () => {
    const line = ed25519Line();
    const other = ed25519Line();
    await accounts.addDeployKey({ repositoryId: 'r1', line, write: false });
    await accounts.addDeployKey({ repositoryId: 'r3', line: other, write: false });
    const gone = new GoneDeployKeys(asCoordinator(memory));
    await gone.rebind('r1', 'r2');
    const moved = await accounts.authenticateKey(blobOf(line));
    assert.deepEqual(moved?.kind === 'machine' && moved.reach, [
      { repositoryId: 'r2', level: 'read' },
    ]);
    await gone.remove('r2');
    assert.equal(await accounts.authenticateKey(blobOf(line)), undefined);
    assert.notEqual(await accounts.authenticateKey(blobOf(other)), undefined);
  });
});

/** What is noted behind the back of requests has been noted. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

async function lastUse(): Promise<number | undefined> {
  return (await accounts.listTokens('alice'))[0]?.lastUsedAtMs;
}

describe('the last use of a token', () => {
  let secret = '';
  let id = '';
  beforeEach(async () => {
    const made = await accounts.createToken({ user: 'alice', name: '', scope: 'read' });
    ({ secret } = made);
    ({ id } = made.token);
  });

  test('is noted, at most once a minute', async () => {
    assert.equal(await lastUse(), undefined);
    await accounts.authenticateToken(secret);
    await settle();
    assert.equal(await lastUse(), 1000);
    const written = memory.revision;
    now = 60_999;
    await accounts.authenticateToken(secret);
    await settle();
    assert.equal(memory.revision, written);
    now = 61_000;
    await accounts.authenticateToken(secret);
    await settle();
    assert.equal(await lastUse(), 61_000);
  });

  test('is no use when it was refused', async () => {
    await accounts.setUserDisabled('alice', true);
    await accounts.authenticateToken(secret);
    await settle();
    assert.equal(await lastUse(), undefined);
  });

  test('that cannot be noted refuses nobody', async () => {
    memory.beforeTransaction = () => {
      throw new Error('no quorum');
    };
    assert.notEqual(await accounts.authenticateToken(secret), undefined);
    await settle();
    assert.equal(await lastUse(), undefined);
  });

  test('goes with the token, also when it is noted late', async () => {
    await accounts.authenticateToken(secret);
    await settle();
    now = 100_000;
    const used = accounts.authenticateToken(secret);
    await accounts.revokeToken(id);
    await used;
    await settle();
    assert.deepEqual(
      [...memory.entries.keys()].filter((key) => key.startsWith('token-uses/')),
      [],
    );
  });
});

describe('tokens', () => {
  test('say who somebody is; the secret is stored nowhere', async () => {
    const { token, secret } = await accounts.createToken({
      user: 'alice',
      name: 'ci',
      scope: 'write',
      repositoryPattern: 'team/*',
    });
    assert.match(secret, /^qrt_[A-Za-z0-9_-]{49}$/);
    assert.deepEqual(await accounts.authenticateToken(secret), {
      kind: 'user',
      name: 'alice',
      admin: false,
      canCreate: true,
      via: { type: 'token', tokenId: token.id, scope: 'write', repositoryPattern: 'team/*' },
    });
    const hash = createHash('sha256').update(secret).digest('hex');
    assert.ok(memory.entries.has(`tokens/${hash}`));
    for (const entry of memory.entries.values()) {
      assert.ok(!Buffer.from(entry.value).toString().includes(secret.slice(4, 30)));
    }
    await settle();
    assert.deepEqual(await accounts.listTokens('alice'), [{ ...token, lastUsedAtMs: 1000 }]);
    assert.ok(!JSON.stringify(token).includes(hash));
  });

  test('of another spelling are nobody', async () => {
    const { secret } = await accounts.createToken({ user: 'alice', name: '', scope: 'read' });
    const flipped = secret.slice(0, 10) + (secret[10] === 'A' ? 'B' : 'A') + secret.slice(11);
    for (const wrong of [
      '',
      'qrt_',
      flipped,
      `${secret} `,
      secret.toUpperCase(),
      secret.slice(0, -1),
    ]) {
      assert.equal(await accounts.authenticateToken(wrong), undefined, wrong);
    }
    assert.equal(classifyTokenSecret(secret), 'well-formed');
    assert.equal(classifyTokenSecret(flipped), 'mistyped');
    assert.equal(classifyTokenSecret('hunter2'), 'foreign');
  });

  test('a record under a hash that is not its own is not believed', async () => {
    const one = await accounts.createToken({ user: 'alice', name: '', scope: 'read' });
    const two = await accounts.createToken({ user: 'alice', name: '', scope: 'admin' });
    memory.put(
      keyOf(one.secret),
      memory.entries.get(keyOf(two.secret))?.value ?? new Uint8Array(0),
    );
    assert.equal(await accounts.authenticateToken(one.secret), undefined);
  });

  test('expire at their time', async () => {
    const { secret } = await accounts.createToken({
      user: 'alice',
      name: '',
      scope: 'read',
      expiresAtMs: 2000,
    });
    now = 1999;
    assert.notEqual(await accounts.authenticateToken(secret), undefined);
    now = 2000;
    assert.equal(await accounts.authenticateToken(secret), undefined);
    await rejects(
      accounts.createToken({ user: 'alice', name: '', scope: 'read', expiresAtMs: 2000 }),
      'invalid-argument',
    );
  });

  test('revoked, or of a disabled user, are nobody from then on', async () => {
    const kept = await accounts.createToken({ user: 'alice', name: 'kept', scope: 'read' });
    const { token, secret } = await accounts.createToken({
      user: 'alice',
      name: '',
      scope: 'read',
    });
    await accounts.setUserDisabled('alice', true);
    assert.equal(await accounts.authenticateToken(secret), undefined);
    await accounts.setUserDisabled('alice', false);
    assert.notEqual(await accounts.authenticateToken(secret), undefined);
    await accounts.revokeToken(token.id);
    assert.equal(await accounts.authenticateToken(secret), undefined);
    assert.notEqual(await accounts.authenticateToken(kept.secret), undefined);
    await rejects(accounts.revokeToken(token.id), 'not-found');
    for (const fake of ['', 'x', token.id.slice(0, 8)])
      await rejects(accounts.revokeToken(fake), 'not-found');
  });

  test('that are refused: whose they are and why is told for the log', async () => {
    const told: SignInRefusal[] = [];
    const refusal = async (secret: string): Promise<SignInRefusal | undefined> => {
      told.length = 0;
      await accounts.authenticateToken(secret, { onRefused: (one) => told.push(one) });
      assert.ok(told.length < 2);
      return told[0];
    };
    const { token, secret } = await accounts.createToken({
      user: 'alice',
      name: '',
      scope: 'read',
      expiresAtMs: 2000,
    });
    const known = { user: 'alice', tokenId: token.id };
    assert.equal(await refusal(secret), undefined);
    await accounts.setUserDisabled('alice', true);
    assert.deepEqual(await refusal(secret), { problem: 'disabled user', ...known });
    now = 2000;
    assert.deepEqual(await refusal(secret), { problem: 'expired token', ...known });
    await accounts.revokeToken(token.id);
    const revoked = { problem: 'unknown or revoked token', tokenId: token.id };
    assert.deepEqual(await refusal(secret), revoked);
    const mistyped = secret.slice(0, 10) + (secret[10] === 'A' ? 'B' : 'A') + secret.slice(11);
    assert.deepEqual(await refusal(mistyped), { problem: 'mistyped token' });
    assert.deepEqual(await refusal('hunter2'), { problem: 'wrong token' });
  });

  test('need a user, a decent name and pattern', async () => {
    await rejects(accounts.createToken({ user: 'nobody', name: '', scope: 'read' }), 'not-found');
    await rejects(
      accounts.createToken({ user: 'alice', name: 'a\nb', scope: 'read' }),
      'invalid-argument',
    );
    await rejects(
      accounts.createToken({ user: 'alice', name: '', scope: 'read', repositoryPattern: '/x' }),
      'invalid-argument',
    );
    assert.deepEqual(await accounts.listTokens(), []);
  });
});
