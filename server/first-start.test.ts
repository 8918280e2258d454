import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AccessToken, Accounts, User } from './auth/accounts.js';
import type { AuditEvent } from './observe/audit.js';
import { QuorateError } from '../backends/contract/errors.js';
import { loadConfig } from './config.js';
import type { DataDirectory } from './data-directory.js';
import { announcement, createFirstAdmin } from './first-start.js';

/** The part of accounts that the first start uses, in memory. */
class FakeAccounts implements Pick<
  Accounts,
  'getUser' | 'createUser' | 'listTokens' | 'createToken' | 'revokeToken'
> {
  readonly users: User[] = [];
  readonly tokens: AccessToken[] = [];

  getUser(name: string): Promise<User | undefined> {
    return Promise.resolve(this.users.find((user) => user.name === name));
  }
  createUser(user: { name: string; admin: boolean; canCreate?: boolean }): Promise<User> {
    const made = { canCreate: false, ...user, disabled: false, createdAtMs: 0 };
    this.users.push(made);
    return Promise.resolve(made);
  }
  listTokens(): Promise<readonly AccessToken[]> {
    return Promise.resolve([...this.tokens]);
  }
  createToken(token: { user: string; name: string; scope: 'read' | 'write' | 'admin' }) {
    const made = {
      ...token,
      id: `id${this.tokens.length}`,
      repositoryPattern: undefined,
      createdAtMs: 0,
      expiresAtMs: undefined,
      lastUsedAtMs: undefined,
    };
    this.tokens.push(made);
    return Promise.resolve({ token: made, secret: `secret-${made.id}` });
  }
  revokeToken(id: string): Promise<void> {
    this.tokens.splice(
      this.tokens.findIndex((token) => token.id === id),
      1,
    );
    return Promise.resolve();
  }
}

function dataThat(write: DataDirectory['write']): Pick<DataDirectory, 'write'> {
  return { write };
}

test('a first start that was cut short leaves one administrator with one known token', async () => {
  const accounts = new FakeAccounts();
  const events: AuditEvent[] = [];
  const audit = { record: (event: AuditEvent) => void events.push(event) };
  await assert.rejects(
    createFirstAdmin(
      { accounts, audit },
      dataThat(() => Promise.reject(new Error('power cut'))),
    ),
    /power cut/,
  );
  const files = new Map<string, string>();
  const data = dataThat((name, content) => {
    files.set(name, content);
    return Promise.resolve();
  });
  await createFirstAdmin({ accounts, audit }, data);
  assert.deepEqual(
    accounts.users.map(({ name, admin }) => ({ name, admin })),
    [{ name: 'admin', admin: true }],
  );
  assert.equal(accounts.tokens.length, 1);
  assert.equal(files.get('admin-token'), `secret-${accounts.tokens[0]?.id}\n`);
  assert.equal(events.length, 1);
  assert.ok(!JSON.stringify(events).includes('secret-'));
});

for (const happened of [true, false]) {
  test(`answers of the coordinator that are lost are no reason to end a start (${happened ? 'done' : 'not done'})`, async () => {
    const accounts = new FakeAccounts();
    const lost = new Set<string>();
    /** The first call of each kind has no answer. */
    const losing = async <T>(name: string, run: () => Promise<T>): Promise<T> => {
      if (lost.has(name)) return run();
      lost.add(name);
      if (happened) await run();
      throw new QuorateError('outcome-unknown', 'a member of etcd hangs');
    };
    const troubled: typeof accounts = Object.assign(Object.create(accounts), {
      createUser: (user: { name: string; admin: boolean }) =>
        losing('createUser', () => accounts.createUser(user)),
      createToken: (token: { user: string; name: string; scope: 'admin' }) =>
        losing('createToken', () => accounts.createToken(token)),
    });
    const files: string[] = [];
    const data = dataThat((_, content) => {
      files.push(content);
      return Promise.resolve();
    });
    const audit = { record: () => undefined };
    const { made } = await createFirstAdmin({ accounts: troubled, audit }, data);
    assert.equal(made, true);
    assert.deepEqual([...lost], ['createUser', 'createToken']);
    assert.equal(accounts.users.length, 1);
    assert.equal(accounts.tokens.length, 1, 'the one of which nobody knows the secret is revoked');
    assert.deepEqual(files, [`secret-${accounts.tokens[0]?.id}\n`]);
  });
}

function say(settings: readonly string[], first: boolean, adminMade = first): string {
  return announcement({
    config: loadConfig({ env: {}, flags: {}, set: settings, workingDirectory: '/srv' }),
    server: {
      httpUrl: 'http://127.0.0.1:8080',
      sshUrl: 'ssh://git@127.0.0.1:2222',
      sshHost: '127.0.0.1',
      sshPort: 2222,
      opsUrl: 'http://127.0.0.1:9091',
      pid: 1,
      version: '1.2.3',
    },
    dataDirectory: "/srv/it's/data",
    first,
    adminMade,
    command: 'node main.js',
    workingDirectory: '/srv',
  });
}

test('a later start says where everything is, and nothing to paste', () => {
  const text = say([], false);
  assert.match(text, /http:\/\/127.0.0.1:8080\//);
  assert.match(text, /ssh:\/\/git@127.0.0.1:2222\//);
  assert.doesNotMatch(text, /git push/);
});

test('lines to paste are quoted for the shell, and name the data directory when it is not ./data', () => {
  const text = say([], true);
  assert.match(text, /cat .*it.*s\/data\/admin-token/);
  assert.match(text, /key add admin ~\/.ssh\/id_ed25519.pub --data 'it'\\''s\/data'/);
});

test('a further server of a cluster does not say that it made the user', () => {
  assert.match(say([], true), /^The user `admin` was made; its token is in .*admin-token\./m);
  const further = say([], true, false);
  assert.match(further, /^The user `admin` was there already; a token for this server is in .*/m);
  assert.doesNotMatch(further, /was made/);
});

test('behind a proxy the public name is printed, for SSH too', () => {
  const text = say(['publicUrl=https://git.example.org/'], true);
  assert.match(text, /git clone https:\/\/git.example.org\/demo.git/);
  assert.match(text, /git clone ssh:\/\/git@git.example.org:2222\/demo.git/);
});

test('without authentication there is nothing to sign in with', () => {
  const text = say(['noAuth=true'], true);
  assert.match(text, /git push/);
  assert.doesNotMatch(text, /credential|admin/);
  for (const first of [true, false]) assert.match(say(['noAuth=true'], first), /--no-auth/);
  assert.doesNotMatch(say([], false), /no-auth/);
});

test('servers that share a coordinator each get a token, and spare that of another', async () => {
  const accounts = new FakeAccounts();
  const audit = { record: () => undefined };
  const written: string[] = [];
  const data = dataThat((_, content) => {
    written.push(content);
    return Promise.resolve();
  });
  const made: boolean[] = [];
  for (const place of ['a', 'b', 'a']) {
    made.push((await createFirstAdmin({ accounts, audit }, data, place)).made);
  }
  assert.deepEqual(made, [true, false, false], 'and only the first says that it made the user');
  assert.equal(accounts.users.length, 1);
  const names = accounts.tokens.map(({ name }) => name);
  assert.deepEqual(names.sort(), ['first start at a', 'first start at b']);
  assert.equal(written.length, 3);
});
