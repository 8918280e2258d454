import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect as connectSocket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, test, type TestContext } from 'node:test';
import { type CertificateFiles, TestAuthority } from '../coordination/etcd/testing/certificates.js';
import { rejectsWith } from '../conformance/backend-harness.js';
import {
  type ClusterCredentials,
  type CredentialFiles,
  type LoadedCredentials,
  loadClusterCredentials,
} from './cluster-credentials.js';
import { wholeFrame } from './frames.js';
import type { NodeAddress } from './node-requests.js';
import { digestOf, sign, SignatureCheck } from './request-signature.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { connect, secret, serveReplica } from './testing/node-scene.js';
import { startProxy } from './testing/stallable-proxy.js';
import { stubReplica } from './testing/stub-replica.js';
import { pickPort } from '../contract/testing/ports.js';
import { until } from '../contract/testing/until.js';

const repositoryId = '12'.repeat(16);
const storeId = 'ab'.repeat(16);
const replica = stubReplica({
  applied: () => Promise.resolve(7),
  heldPushes: () => Promise.resolve([]),
});

async function served(t: TestContext, credentials: ClusterCredentials): Promise<NodeAddress> {
  const { server, address } = await serveReplica(replica, { credentials });
  t.after(() => server.drain(0));
  return address;
}

/** What a client of these credentials gets for an answer. */
async function ask(
  t: TestContext,
  address: NodeAddress,
  options: { readonly credentials?: ClusterCredentials; readonly store?: string } = {},
): Promise<number> {
  const { credentials = secret, store = storeId } = options;
  const { client, replica: remote } = await connect(address, store, { credentials });
  t.after(() => client.close());
  return remote.applied(repositoryId);
}

/** One request of somebody who knows HTTP and nothing else. */
async function post(
  address: NodeAddress,
  path: string,
  headers: Record<string, string> = {},
): Promise<number | undefined> {
  const body = wholeFrame('json', Buffer.from('{}'));
  const sent = request({ ...address, path, method: 'POST', headers, agent: false });
  sent.end(body);
  const [response] = await once(sent, 'response');
  response.resume();
  return response.statusCode;
}

describe('a shared secret', () => {
  test('who has it gets an answer, who has another one or none does not', async (t) => {
    const address = await served(t, secret);
    assert.equal(await ask(t, address), 7);
    const wrong = { secret: Buffer.from('another secret of the same length') };
    await rejectsWith(ask(t, address, { credentials: wrong }), 'unavailable');
    const path = `/v1/${storeId}/${repositoryId}/applied`;
    assert.equal(await post(address, path), 404);
    const client = { 'Quorate-Client': 'cd'.repeat(16) };
    assert.equal(await post(address, path, client), 401);
    const bearer = { ...client, Authorization: `Bearer ${secret.secret.toString()}` };
    assert.equal(await post(address, path, bearer), 401);
  });

  test('a request is good once, for one store, one call and its own arguments', () => {
    let boots = 0;
    const check = new SignatureCheck(secret.secret, () => String(boots++).padStart(32, '0'));
    const client = 'cd'.repeat(16);
    const path = '/v1/x/y/apply';
    const asked = { boot: check.boot, client, path, argumentsDigest: digestOf(Buffer.from('{}')) };
    const authorize = (count: number, more: Partial<typeof asked> = {}): string =>
      sign(secret.secret, { ...asked, ...more, count }).authorization;
    const good = (authorization: string, more: Partial<typeof asked> = {}): boolean =>
      check.check(authorization, { client, path, ...more }).good;
    assert.ok(good(authorize(2)));
    assert.ok(good(authorize(1)), 'requests overtake each other');
    assert.ok(!good(authorize(1)), 'replayed');
    assert.ok(!good(authorize(3), { path: '/v1/other/y/apply' }), 'another store');
    assert.ok(!good(authorize(3), { client: 'ef'.repeat(16) }), 'in the name of another client');
    assert.ok(!good(authorize(3, { boot: '9'.repeat(32) })), 'of another start of the server');
    assert.ok(!good(authorize(3).replace(asked.argumentsDigest, digestOf(Buffer.from('[]')))));
    assert.ok(!good(`${authorize(3)} more`));
    assert.ok(!good(''));
    assert.ok(good(authorize(3)));
    assert.ok(good(authorize(10_000)));
    assert.ok(!good(authorize(4)), 'too old to be told from a replay');
    for (let n = 0; n < 10_000; n += 1) {
      const other = n.toString(16).padStart(32, '0');
      const { authorization } = sign(secret.secret, { ...asked, client: other, count: 1 });
      check.check(authorization, { client: other, path });
    }
    assert.ok(!good(authorize(10_000)), 'what was forgotten is good under no boot');
  });

  test('a recorded request is refused, and so is one whose arguments were changed', async (t) => {
    const address = await served(t, secret);
    const proxy = await startProxy(address);
    t.after(() => proxy.close());
    const { client, replica: remote } = await connect(proxy.address, storeId);
    t.after(() => client.close());
    assert.deepEqual(await remote.heldPushes(repositoryId), []);
    const heard = proxy.heard().toString('latin1');
    const recorded = heard.slice(heard.indexOf(`POST /v1/${storeId}/${repositoryId}/heldPushes`));
    assert.match(recorded, /Quorate-Cluster/);
    assert.match(await tell(address, recorded, 60_000), /^HTTP\/1\.1 401/);
  });

  test('what lacks the secret is no node', async (t) => {
    const authority = await served(t, {
      secret: Buffer.from('what the impostor has for a secret'),
    });
    await rejectsWith(ask(t, authority), 'unavailable');
  });

  test('another store at the address is not taken for the one that was asked', async (t) => {
    const address = await served(t, secret);
    await rejectsWith(ask(t, address, { store: 'cd'.repeat(16) }), 'unavailable');
  });

  test('garbage ends the connection, and nothing else', async (t) => {
    const address = await served(t, secret);
    const head = `POST /v1/${storeId}/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n`;
    for (const text of ['nonsense\r\n\r\n', `${head}\x09\xff\xff\xff\xff`, `GET / HTTP/1.1\r\n`]) {
      await tell(address, text, 500);
    }
    assert.equal(await ask(t, address), 7);
  });
});

describe('mutual TLS', () => {
  test('members of one authority serve each other, nobody else', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'quorate-node-tls-'));
    t.after(() => rm(directory, { recursive: true }));
    const authority = await TestAuthority.make(directory);
    const foreign = await TestAuthority.make(directory, 'foreign');
    const [one, two, other] = [
      await credentials(authority, authority, 'one'),
      await credentials(authority, authority, 'two'),
      await credentials(authority, foreign, 'other'),
    ];
    const address = await served(t, one);
    assert.equal(await ask(t, address, { credentials: two }), 7);
    await rejectsWith(ask(t, address, { credentials: other }), 'unavailable');
    await rejectsWith(ask(t, address, { credentials: secret }), 'unavailable');
    const foreignServer = await served(t, other);
    await rejectsWith(ask(t, foreignServer, { credentials: two }), 'unavailable');
    const both = await served(t, { ...one, ...secret });
    assert.equal(await ask(t, both, { credentials: { ...two, ...secret } }), 7);
    await rejectsWith(ask(t, both, { credentials: two }), 'unavailable');
  });

  test('a client whose credentials do not fit is told so by its log, before anybody answered it', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'quorate-node-misfit-'));
    t.after(() => rm(directory, { recursive: true }));
    const authority = await TestAuthority.make(directory);
    const foreign = await TestAuthority.make(directory, 'foreign');
    const member = await credentials(authority, authority, 'member');
    // It believes the members, who do not believe it; and the other way round.
    const unknown = await credentials(authority, foreign, 'unknown');
    const doubting = await credentials(foreign, authority, 'doubting');
    const overTls = await served(t, member);
    const plain = await served(t, secret);
    for (const [address, own, says] of [
      [overTls, secret, /at once: it may want TLS, .* no certificates \(cluster\.tls\.ca, /],
      [plain, member, /does not speak TLS as this process does: all members need certificates/],
      [overTls, unknown, /at once: it may not take the certificate of this process/],
      [
        overTls,
        doubting,
        /certificate of a storage node is not taken \([A-Z_]+\): .*cluster\.tls\.ca/,
      ],
    ] as const) {
      const said: string[] = [];
      const logger = { ...silentLogger, warn: (_: object, message: string) => said.push(message) };
      const { client } = await connect(address, storeId, { credentials: own, logger });
      assert.match(client.misfit ?? '', says);
      await client.close();
      assert.match(said.join('\n'), says);
    }
    const said: string[] = [];
    const logger = { ...silentLogger, warn: (_: object, message: string) => said.push(message) };
    const { client } = await connect({ host: '127.0.0.1', port: await pickPort() }, storeId, {
      logger,
    });
    assert.equal(client.misfit, undefined);
    await client.close();
    assert.match(said.join('\n'), /^a storage node did not answer a sign of life/);
  });
});

describe('certificates that change', () => {
  test('both sides go on with new ones, also of another authority, without a restart', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'quorate-node-renewed-'));
    t.after(() => rm(directory, { recursive: true }));
    const authority = await TestAuthority.make(directory);
    const next = await TestAuthority.make(directory, 'next');
    const trusted = { caFile: join(directory, 'trusted.pem') };
    const [old, renewed] = await Promise.all(
      [authority, next].map(({ caFile }) => readFile(caFile, 'utf8')),
    );
    await writeFile(trusted.caFile, `${old}`);
    const server = await authority.sign('server');
    const client = await authority.sign('client');
    const address = await served(t, await load({ ...trusted, ...server }));
    const asking = await load({ ...trusted, ...client });
    assert.equal(await ask(t, address, { credentials: asking }), 7);
    const stranger = await load({ caFile: next.caFile, ...(await next.sign('stranger')) });
    await rejectsWith(ask(t, address, { credentials: stranger }), 'unavailable');
    // First both are trusted, then everybody has a new certificate.
    await writeFile(trusted.caFile, `${old}${renewed}`);
    await replace(await next.sign('server-2'), server);
    await until('the new certificates', async () => {
      const answer = await ask(t, address, { credentials: stranger }).catch(() => 0);
      return answer === 7;
    });
    // Each looks at the files when its turn comes.
    const takes = (authorities: string): Promise<void> =>
      until('an answer by these authorities', async () => {
        if (asking.tls?.current.ca.toString() !== authorities) return false;
        return (await ask(t, address, { credentials: asking }).catch(() => 0)) === 7;
      });
    await takes(`${old}${renewed}`);
    await replace(await next.sign('client-2'), client);
    await writeFile(trusted.caFile, `${renewed}`);
    await takes(`${renewed}`);
    // What does not fit together is not taken.
    await writeFile(server.certFile, 'nonsense');
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await ask(t, address, { credentials: asking }), 7);
  });
});

test('a channel is opened anew with new certificates, and the old one ends with its last call', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-node-channel-'));
  t.after(() => rm(directory, { recursive: true }));
  const authority = await TestAuthority.make(directory);
  const files = await authority.sign('member');
  const credentials = await load({ caFile: authority.caFile, ...files });
  let finish: ((generation: number) => void) | undefined;
  const holding = stubReplica({ applied: () => new Promise((resolve) => (finish = resolve)) });
  const { server, address } = await serveReplica(holding, { credentials });
  t.after(() => server.drain(0));
  const proxy = await startProxy(address);
  t.after(() => proxy.close());
  const { client, replica: remote } = await connect(proxy.address, storeId, { credentials });
  t.after(() => client.close());
  assert.equal(proxy.open, 1);
  const asked = remote.applied(repositoryId);
  await until('the call to be there', () => finish !== undefined);
  await replace(await authority.sign('member-2'), files);
  await until('a second channel', () => proxy.open === 2);
  finish?.(9);
  assert.equal(await asked, 9);
  await until('the first to end', () => proxy.open === 1);
});

test('credentials are needed, and have to be good ones', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-node-secret-'));
  t.after(() => rm(directory, { recursive: true }));
  const secretFile = join(directory, 'secret');
  await refused({}, /--cluster-secret-file/);
  await refused(
    { secretFile },
    /the cluster secret in .* cannot be read \(ENOENT\): --cluster-secret-file /,
  );
  await writeFile(secretFile, ' too short \n');
  await refused({ secretFile }, /shorter than 16/);
  await refused({ caFile: secretFile }, /cluster\.tls\.cert/);
  await writeFile(secretFile, '0123456789abcdef\n');
  const { secret: read } = await load({ secretFile });
  assert.equal(read?.toString(), (await readFile(secretFile, 'utf8')).trim());
});

async function credentials(
  trusted: TestAuthority,
  signer: TestAuthority,
  name: string,
): Promise<LoadedCredentials> {
  const { certFile, keyFile } = await signer.sign(name);
  return load({ caFile: trusted.caFile, certFile, keyFile });
}

const loaded: LoadedCredentials[] = [];
afterEach(() => {
  for (const { tls } of loaded.splice(0)) tls?.close();
});

/** Looks at the files often. */
async function load(files: CredentialFiles): Promise<LoadedCredentials> {
  const watch = { checkMs: 20, clock: systemClock, logger: silentLogger };
  const credentials = await loadClusterCredentials(files, watch);
  loaded.push(credentials);
  return credentials;
}

async function refused(files: object, message: RegExp): Promise<void> {
  await assert.rejects(load(files), { code: 'invalid-argument', message });
}

/** Says something to a port; what comes back at once, if anything does in that time. */
async function tell(address: NodeAddress, text: string, patienceMs: number): Promise<string> {
  const socket = connectSocket(address);
  const parts: Buffer[] = [];
  socket
    .on('error', () => undefined)
    .on('data', (bytes) => {
      parts.push(bytes);
      socket.end();
    });
  socket.write(Buffer.from(text, 'latin1'));
  socket.setTimeout(patienceMs, () => socket.end());
  await once(socket, 'close');
  return Buffer.concat(parts).toString('latin1');
}

async function replace(by: CertificateFiles, files: CertificateFiles): Promise<void> {
  await copyFile(by.certFile, files.certFile);
  await copyFile(by.keyFile, files.keyFile);
}
