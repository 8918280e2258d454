import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { configurationMarkdown } from './config-table.js';
import { loadConfig } from './config.js';
import type { Config, ConfigSources } from './config.js';

let directory: string;
before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'config-'));
});
after(() => rm(directory, { recursive: true }));

function load(sources: Partial<ConfigSources> = {}): Config {
  return loadConfig({ env: {}, flags: {}, set: [], workingDirectory: directory, ...sources });
}

async function fileWith(content: string): Promise<string> {
  const file = path.join(directory, 'quorate.json');
  await writeFile(file, content);
  return file;
}

test('the defaults make a server on loopback addresses', () => {
  const config = load();
  assert.deepEqual(config.http, { host: '127.0.0.1', port: 8080 });
  assert.equal(config.data, path.join(directory, 'data'));
  assert.equal(config.backend, 'local');
  assert.equal(config.root, undefined);
  assert.equal(config['shutdown.grace'], 30_000);
  assert.equal(config['audit.maxFileSize'], 64 * 1024 * 1024);
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.http));
});

test('flags beat the environment, which beats the file, which beats the defaults', async () => {
  const file = await fileWith(
    '{"http": "127.0.0.1:1", "ssh": "127.0.0.1:1", "ops": "127.0.0.1:1", "log": {"level": "warn"}}',
  );
  const config = load({
    file,
    env: { QUORATE_SSH: '127.0.0.1:2', QUORATE_HTTP: '127.0.0.1:2' },
    flags: { http: '[::1]:3' },
    set: ['log.level=error'],
  });
  assert.deepEqual(config.http, { host: '::1', port: 3 });
  assert.equal(config.ssh.port, 2);
  assert.equal(config.ops.port, 1);
  assert.equal(config['log.level'], 'error');
});

test('the file may be named in the environment; its relative paths start beside it', async () => {
  await fileWith('{"data": "store"}');
  const config = load({ env: { QUORATE_CONFIG: 'quorate.json' } });
  assert.equal(config.data, path.join(directory, 'store'));
});

test('variables of the client and of Kubernetes services are no settings', () => {
  load({
    env: {
      QUORATE_URL: 'http://x',
      QUORATE_TOKEN: 'x',
      QUORATE_SERVICE_HOST: '10.0.0.1',
      QUORATE_SERVICE_PORT_SSH: '22',
      QUORATE_PORT: 'tcp://10.0.0.1:80',
      QUORATE_PORT_80_TCP_ADDR: '10.0.0.1',
      QUORATE_HTTP_SERVICE_PORT: '80',
    },
  });
});

const refused: readonly (Partial<ConfigSources> & { desc: string; says: RegExp; json?: string })[] =
  [
    {
      desc: 'an unknown key in the file',
      json: '{"htp": 1}',
      says: /^htp in the file .*quorate.json is no setting; did you mean http\?$/,
    },
    {
      desc: 'an unknown nested key',
      json: '{"log": {"levle": "info"}}',
      says: /^log.levle in the file .*; did you mean log.level\?$/,
    },
    { desc: 'an inherited key', json: '{"constructor": 1}', says: /^constructor in the file/ },
    {
      desc: 'a wrong value in the file',
      json: '{"log": {"level": "loud"}}',
      says: /^log.level in the file .* wants debug or info or warn or error, not "loud"$/,
    },
    { desc: 'a file that is no JSON', json: 'http: 1', says: /is not JSON/ },
    { desc: 'a file that is a list', json: '[]', says: /must hold one JSON object/ },
    {
      desc: 'a missing file',
      file: 'nowhere.json',
      says: /nowhere.json cannot be read \(there is no such file\)/,
    },
    {
      desc: 'an unknown variable',
      env: { QUORATE_HTPP: '1' },
      says: /^the environment variable QUORATE_HTPP names no setting; did you mean QUORATE_HTTP\?$/,
    },
    {
      desc: 'a wrong variable',
      env: { QUORATE_SHUTDOWN_GRACE: '30' },
      says: /^shutdown.grace in the environment variable QUORATE_SHUTDOWN_GRACE wants a number with ms/,
    },
    {
      desc: 'an address without a port',
      flags: { http: 'localhost' },
      says: /^http in the flag --http wants HOST:PORT/,
    },
    {
      desc: 'a port beyond the last',
      flags: { http: 'localhost:65536' },
      says: /^http in the flag --http/,
    },
    {
      desc: 'an assignment to no setting',
      set: ['a=1'],
      says: /^a in the flag --set a=1 is no setting; docs\/configuration.md lists all of them$/,
    },
    { desc: 'an assignment without a value', set: ['http'], says: /--set http wants KEY=VALUE/ },
    {
      desc: 'a count below its minimum',
      set: ['audit.maxFiles=-1'],
      says: /wants a whole number, 0 or more/,
    },
    {
      desc: 'a duration that a timer cannot hold',
      set: ['shutdown.grace=25d'],
      says: /^shutdown.grace/,
    },
    {
      desc: 'a publicUrl of another protocol',
      set: ['publicUrl=ftp://a'],
      says: /^publicUrl .* wants an http or https URL/,
    },
    {
      desc: 'a network that is none',
      set: ['webhooks.allowedNetworks=127.0.0.1,10.0.0.0/33'],
      says: /^webhooks.allowedNetworks in .* wants networks or addresses/,
    },
    {
      desc: 'directory without root',
      flags: { backend: 'directory' },
      says: /^backend in the flag --backend is directory, which needs root/,
    },
    {
      desc: 'root without directory',
      flags: { root: '/srv/git' },
      says: /^root in the flag --root is only for backend=directory/,
    },
    {
      desc: 'no-auth on a public address',
      flags: { noAuth: true, http: '0.0.0.0:80' },
      says: /^noAuth in the flag --no-auth is refused, since http in the flag --http is no loopback address/,
    },
    {
      desc: 'no-auth on a name',
      flags: { noAuth: true, ssh: 'example.org:22' },
      says: /^noAuth .* ssh/,
    },
    ...['http://a:1', 'etcd://', 'etcd://a', 'etcd://a:0', 'etcd://a:1,', 'etcd://a:1,b'].map(
      (value) => ({
        desc: `the coordinator ${value}`,
        flags: { coordinator: value },
        says: /^coordinator in the flag --coordinator wants embedded, or etcd:\/\/HOST:PORT,HOST:PORT/,
      }),
    ),
    {
      desc: 'an etcd user without a password',
      set: ['etcd.user=quorate'],
      says: /^etcd.user .* needs etcd.passwordFile too$/,
    },
    {
      desc: "a certificate for etcd without etcd's authorities",
      set: ['etcd.cert=a', 'etcd.key=b'],
      says: /^etcd.cert .* needs etcd.ca too$/,
    },
    {
      desc: 'two listeners on one address',
      flags: { ssh: '127.0.0.1:8080' },
      says: /are the same address/,
    },
  ];
for (const { desc, says, json, ...sources } of refused) {
  test(`the start is refused: ${desc}`, async () => {
    const file = json === undefined ? sources.file : await fileWith(json);
    assert.throws(() => load({ ...sources, file }), { code: 'invalid-argument', message: says });
  });
}

test('the coordinator is embedded, or the members of an etcd cluster', () => {
  assert.deepEqual(load().coordinator, { type: 'embedded' });
  const { coordinator } = load({ flags: { coordinator: 'etcd://a.example:2379,[::1]:2479' } });
  assert.deepEqual(coordinator, { type: 'etcd', endpoints: ['a.example:2379', '[::1]:2479'] });
});

test('no-auth is accepted on loopback addresses', () => {
  const config = load({
    flags: { noAuth: true, http: 'localhost:0', ssh: '[::1]:0', ops: '127.9.9.9:0' },
  });
  assert.equal(config.noAuth, true);
});

test('docs/configuration.md holds the table of settings as it is', async () => {
  const file = new URL('../../docs/configuration.md', import.meta.url);
  const text = await readFile(file, 'utf8');
  assert.ok(text.includes(configurationMarkdown()), 'run node scripts/configuration-docs.mjs');
});

test('members of a cluster need a coordinator that they share, and credentials', () => {
  const etcd = { coordinator: 'etcd://127.0.0.1:2379' };
  const cases: readonly (readonly [Partial<ConfigSources['flags']>, RegExp])[] = [
    [{ role: 'storage' }, /role in the flag --role is storage, which needs a coordinator/],
    [{ ...etcd, role: 'front-end' }, /must know each other.*--cluster-secret-file/],
    [
      { 'cluster.secretFile': 'secret' },
      /cluster\.secretFile in .* needs a coordinator that its members share/,
    ],
    [
      { ...etcd, 'cluster.secretFile': 'secret', 'cluster.alone': true },
      /cluster\.alone in .* --alone is for a server that is no member/,
    ],
    [{ ...etcd, 'cluster.tls.ca': 'ca.pem' }, /needs cluster\.tls\.cert too/],
    [{ ...etcd, 'node.id': '../up' }, /node\.id in .* is no node id/],
  ];
  for (const [flags, message] of cases) {
    assert.throws(() => load({ flags }), { code: 'invalid-argument', message });
  }
  const config = load({
    flags: { ...etcd, role: 'storage', 'cluster.secretFile': 'secret', 'node.id': 'storage-0' },
  });
  assert.equal(config['cluster.secretFile'], path.join(directory, 'secret'));
  assert.deepEqual(config['node.listen'], { host: '0.0.0.0', port: 7420 });
});
