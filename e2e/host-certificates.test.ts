import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { createScene, waitFor, type Scene, type ServerProcess, type SshKey } from './harness.js';

// SSH host certificates, as ssh-keygen makes them and ssh judges them.

const types = ['ed25519', 'ecdsa', 'rsa'] as const;
type KeyType = (typeof types)[number];

let scene: Scene;
let server: ServerProcess;
let authority: SshKey;
let user: SshKey;

before(async () => {
  scene = await createScene();
  server = await scene.startServer({ flags: ['--set', 'ssh.checkInterval=100ms'] });
  authority = await scene.sshKey();
  user = await scene.sshKey();
  await scene.admin(server, 'user', 'add', 'ann');
  await scene.admin(server, 'key', 'add', 'ann', user.publicKeyFile);
  await scene.admin(server, 'repo', 'create', 'team/app');
  await scene.admin(server, 'repo', 'grant', 'team/app', 'ann', 'write');
});
after(() => scene.close());

const keyFile = (type: KeyType): string =>
  path.join(server.dataDirectory, 'host-keys', `ssh_host_${type}_key`);

/** Certifies a host key, and waits until the server says so. */
async function certify(type: KeyType, ...options: readonly string[]): Promise<void> {
  const wanted = ['-q', '-s', authority.privateKeyFile, '-I', `host ${type}`, '-h', ...options];
  const made = await scene.run('ssh-keygen', [...wanted, `${keyFile(type)}.pub`]);
  assert.equal(made.exitCode, 0, made.stderr);
}

async function certifyAll(): Promise<void> {
  for (const type of types) await certify(type, '-n', server.sshHost);
  await waitFor('the certificates', async () => {
    const shown = await scene.admin(server, 'status');
    return types.every((type) => new RegExp(`${type}\\S* for ${server.sshHost}`).test(shown));
  });
}

async function removeCertificates(): Promise<void> {
  for (const type of types) await rm(`${keyFile(type)}-cert.pub`, { force: true });
  await waitFor('no certificates', async () => {
    return !(await scene.admin(server, 'status')).includes('SSH host certificates');
  });
}

const place = (): string => `[${server.sshHost}]:${server.sshPort}`;

async function authorityLine(): Promise<string> {
  return `@cert-authority ${place()} ${await readFile(authority.publicKeyFile, 'utf8')}`;
}

async function plainLine(type: KeyType): Promise<string> {
  return `${place()} ${await readFile(`${keyFile(type)}.pub`, 'utf8')}`;
}

/** For git: a client that knows what `known` says and nothing else, and asks nobody. */
async function client(
  known: string,
  ...options: readonly string[]
): Promise<Record<string, string>> {
  const file = scene.path('known-hosts');
  await writeFile(file, known);
  const settings = [
    'IdentitiesOnly=yes',
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    `UserKnownHostsFile=${file}`,
    'GlobalKnownHostsFile=none',
    ...options,
  ];
  const command = ['ssh', '-F', 'none', '-i', user.privateKeyFile, '-v'];
  command.push(...settings.flatMap((option) => ['-o', option]));
  return { GIT_SSH_COMMAND: command.join(' ') };
}

/** What ssh says of a fetch, and whether it went well. */
async function look(known: string, ...options: readonly string[]): Promise<[boolean, string]> {
  const env = await client(known, ...options);
  const done = await scene.tryGit(['ls-remote', server.sshUrl('team/app')], { env });
  return [done.exitCode === 0, done.stderr];
}

const algorithms: readonly (readonly [KeyType, string])[] = [
  ['ed25519', 'ssh-ed25519-cert-v01@openssh.com'],
  ['ecdsa', 'ecdsa-sha2-nistp256-cert-v01@openssh.com'],
  ['rsa', 'rsa-sha2-512-cert-v01@openssh.com'],
  ['rsa', 'rsa-sha2-256-cert-v01@openssh.com'],
];

for (const [type, algorithm] of algorithms) {
  test(`who knows only the authority pushes and clones: ${algorithm}`, async () => {
    await certifyAll();
    const env = await client(await authorityLine(), `HostKeyAlgorithms=${algorithm}`);
    const work = await scene.makeRepository({ commits: 2 });
    const url = server.sshUrl('team/app');
    const branch = algorithm.split('-cert')[0] ?? type;
    await scene.git(['push', '-q', url, `main:${branch}`], { cwd: work, env });
    const clone = scene.path('work', `clone-${branch}`);
    const cloned = await scene.tryGit(['clone', '-b', branch, url, clone], { env });
    assert.equal(cloned.exitCode, 0, cloned.stderr);
    assert.match(cloned.stderr, new RegExp(`kex: host key algorithm: ${algorithm}`));
    assert.match(cloned.stderr, /Host '.*' is known and matches the .*-CERT host certificate/);
  });
}

test('by default the client asks for a certificate when it knows the authority', async () => {
  await certifyAll();
  const [went, said] = await look(await authorityLine());
  assert.ok(went, said);
  assert.match(said, /kex: host key algorithm: ssh-ed25519-cert-v01@openssh\.com/);
});

for (const type of types) {
  test(`who knows the plain key only goes on as before: ${type}`, async () => {
    await certifyAll();
    const [went, said] = await look(await plainLine(type));
    assert.ok(went, said);
    const [asked, plain] = await look(await plainLine(type), 'HostKeyAlgorithms=-*-cert-v01*');
    assert.ok(asked, plain);
    assert.doesNotMatch(plain, /kex: host key algorithm: \S*cert/);
  });
}

test('who knows neither key nor authority is not let on', async () => {
  await certifyAll();
  const stranger = await scene.sshKey();
  const other = `@cert-authority ${place()} ${await readFile(stranger.publicKeyFile, 'utf8')}`;
  const [went, said] = await look(other);
  assert.ok(!went);
  assert.match(said, /No matching CA found. Retry with plain key/);
  assert.match(said, /Host key verification failed/);
});

test('a certificate for another name is refused by the client, which falls back to the plain key', async () => {
  await removeCertificates();
  await certify('ed25519', '-n', 'elsewhere.example.org');
  await waitFor('the certificate', async () =>
    (await scene.admin(server, 'status')).includes('for elsewhere.example.org'),
  );
  const [went, said] = await look(await authorityLine());
  assert.ok(!went);
  assert.match(said, /Certificate invalid: name is not a listed principal/);
  const [back, how] = await look((await authorityLine()) + (await plainLine('ed25519')));
  assert.ok(back, how);
});

test('a certificate that ends while the server runs is taken back; the renewed one is shown', async () => {
  await removeCertificates();
  await certify('ed25519', '-n', server.sshHost, '-V', '-1h:+3s');
  await waitFor('its end', async () =>
    /not offered: .*it expired at/.test(await scene.admin(server, 'status')),
  );
  const [went, said] = await look(await authorityLine());
  assert.ok(!went);
  assert.match(said, /Host key verification failed/);
  const [back, how] = await look((await authorityLine()) + (await plainLine('ed25519')));
  assert.ok(back, how);
  const readiness = await fetch(`${server.opsUrl}/readyz`);
  assert.equal(readiness.status, 200);
  assert.match(await readiness.text(), /"ssh":"ssh_host_ed25519_key-cert\.pub: it expired/);
  await certifyAll();
  assert.deepEqual((await look(await authorityLine()))[0], true);
});

test('a user certificate in the place of one for hosts is told, and not offered', async () => {
  await removeCertificates();
  const publicKey = `${keyFile('rsa')}.pub`;
  const args = ['-q', '-s', authority.privateKeyFile, '-I', 'x', '-n', 'ann', publicKey];
  assert.equal((await scene.run('ssh-keygen', args)).exitCode, 0);
  await waitFor('the log line', () =>
    Promise.resolve(
      /it is a user certificate: sign host keys with ssh-keygen -h/.test(server.logs()),
    ),
  );
  const [went, said] = await look(await plainLine('rsa'), 'HostKeyAlgorithms=rsa-sha2-512');
  assert.ok(went, said);
  await removeCertificates();
});

for (const [, algorithm] of algorithms) {
  test(`keys are exchanged anew during transfers: ${algorithm}`, async () => {
    await certifyAll();
    const work = await scene.makeRepository({ files: { big: randomBytes(6_000_000) } });
    const options = [`HostKeyAlgorithms=${algorithm}`, 'RekeyLimit=1M'];
    const env = await client(await authorityLine(), ...options);
    const url = server.sshUrl('team/app');
    const branch = `rekeyed-${algorithm.split('-cert')[0]}`;
    const pushed = await scene.tryGit(['push', url, `main:${branch}`], { cwd: work, env });
    assert.equal(pushed.exitCode, 0, pushed.stderr);
    const clone = scene.path('work', branch);
    const cloned = await scene.tryGit(['clone', '-b', branch, url, clone], { env });
    assert.equal(cloned.exitCode, 0, cloned.stderr);
    for (const { stderr } of [pushed, cloned]) {
      const exchanges = stderr.match(/kex: host key algorithm: \S+/g) ?? [];
      assert.ok(exchanges.length > 1, stderr);
      assert.deepEqual([...new Set(exchanges)], [`kex: host key algorithm: ${algorithm}`]);
    }
    await scene.git(['fsck', '--strict'], { cwd: clone });
  });
}

test('certificates in a directory of their own, for host keys that servers share', async () => {
  await removeCertificates();
  await certify('rsa', '-n', server.sshHost);
  const apart = scene.path('certificates');
  await mkdir(apart);
  await copyFile(`${keyFile('rsa')}-cert.pub`, path.join(apart, 'ssh_host_rsa_key-cert.pub'));
  const keys = `ssh.hostKeys=${path.dirname(keyFile('rsa'))}`;
  const certificates = `ssh.hostCertificates=${apart}`;
  const other = await scene.startServer({ flags: ['--set', keys, '--set', certificates] });
  const shown = await scene.admin(other, 'status');
  assert.match(shown, /SSH host certificates: +ssh-rsa for 127\.0\.0\.1 until forever/);
});
