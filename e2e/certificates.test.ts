import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { createScene, waitFor, type Scene, type ServerProcess, type SshKey } from './harness.js';

// SSH user certificates, as ssh-keygen makes them and ssh presents them.

let scene: Scene;
let server: ServerProcess;
let authority: SshKey;
let authorityFingerprint = '';

before(async () => {
  scene = await createScene();
  server = await scene.startServer();
  authority = await scene.sshKey();
  for (const user of ['ann', 'bob']) await scene.admin(server, 'user', 'add', user);
  await scene.admin(server, 'repo', 'create', 'team/app');
  await scene.admin(server, 'repo', 'grant', 'team/app', 'ann', 'write');
  const added = await scene.admin(server, 'ca', 'add', authority.publicKeyFile);
  authorityFingerprint = /SHA256:\S+/.exec(added)?.[0] ?? '';
});
after(() => scene.close());

interface Wanted {
  readonly principals?: string;
  readonly validity?: string;
  readonly options?: readonly string[];
  readonly id?: string;
  readonly serial?: string;
  readonly signer?: SshKey;
  readonly type?: 'ed25519' | 'ecdsa' | 'rsa';
}

/** A new key with a certificate beside it, where ssh looks for one. */
async function certified(wanted: Wanted = {}): Promise<SshKey> {
  const key = await scene.sshKey(wanted.type);
  const signer = wanted.signer ?? authority;
  const made = await scene.run('ssh-keygen', [
    '-q',
    '-s',
    signer.privateKeyFile,
    '-I',
    wanted.id ?? 'ann@laptop',
    ...(wanted.principals === '' ? [] : ['-n', wanted.principals ?? 'ann']),
    '-V',
    wanted.validity ?? '-1h:+1h',
    '-z',
    wanted.serial ?? '7',
    ...(wanted.options ?? []).flatMap((option) => ['-O', option]),
    key.publicKeyFile,
  ]);
  assert.equal(made.exitCode, 0, made.stderr);
  return key;
}

async function tryWith(key: SshKey, user = 'git'): Promise<string> {
  const url = server.sshUrl('team/app').replace('git@', `${user}@`);
  const result = await scene.tryGit(['ls-remote', url], { env: await key.environment(server) });
  return result.exitCode === 0 ? 'in' : result.stderr;
}

/** That the key is refused, and why by the audit log, which is written when the client has left. */
async function refusedWith(key: SshKey, why: RegExp, user?: string): Promise<void> {
  const known = (await refusals()).length;
  assert.match(await tryWith(key, user), /Permission denied/);
  let told: readonly string[] = [];
  // Refusals of clients that came before may be written late, too.
  await waitFor('the refusal in the audit log', async () => {
    told = (await refusals()).slice(known);
    return told.some((reason) => why.test(reason));
  }).catch(() => assert.match(told.join('\n'), why));
}

async function refusals(): Promise<readonly string[]> {
  const text = await readFile(path.join(server.dataDirectory, 'audit.jsonl'), 'utf8');
  return [...text.matchAll(/"why":"([^"]*)"/g)].map(([, why = '']) => why);
}

for (const type of ['ed25519', 'ecdsa', 'rsa'] as const) {
  test(`lets its principal in: ${type}`, async () => {
    const key = await certified({ type });
    assert.equal(await tryWith(key), 'in');
    assert.equal(await tryWith(key, 'ann'), 'in');
    const work = await scene.makeRepository();
    const env = await key.environment(server);
    await scene.git(['push', '-q', server.sshUrl('team/app'), `main:${type}`], { cwd: work, env });
  });

  test(`an authority of type ${type}`, async () => {
    const signer = await scene.sshKey(type);
    const key = await certified({ signer });
    assert.match(await tryWith(key), /Permission denied/);
    await scene.admin(server, 'ca', 'add', signer.publicKeyFile);
    assert.equal(await tryWith(key), 'in');
  });
}

const refused: readonly (readonly [desc: string, wanted: Wanted, why: RegExp, user?: string])[] = [
  ['expired', { validity: '-2h:-1h' }, /expired/],
  ['not valid yet', { validity: '+1h:+2h' }, /not valid yet/],
  ['for another principal', { principals: 'bob' }, /not for the principal/, 'ann'],
  ['for a principal who is no user', { principals: 'carol' }, /no principal of it/],
  ['for nobody in particular', { principals: '' }, /no principal of it/],
  ['for two users, without a choice', { principals: 'ann,bob' }, /several/],
  ['from another address', { options: ['source-address=192.0.2.0/24'] }, /source address/],
  ['with force-command', { options: ['force-command=id'] }, /force-command/],
  ['with an unknown critical option', { options: ['critical:x@y=z'] }, /x@y/],
];

for (const [desc, wanted, why, user] of refused) {
  test(`refused: ${desc}`, async () => {
    const key = await certified(wanted);
    await refusedWith(key, why, user);
  });
}

test('refused: from an unknown authority', async () => {
  const key = await certified({ signer: await scene.sshKey() });
  await refusedWith(key, /unknown authority/);
});

test('refused: of a key that the client does not have', async () => {
  const [stolen, own] = [await certified(), await scene.sshKey()];
  await rename(`${stolen.privateKeyFile}-cert.pub`, `${own.privateKeyFile}-cert.pub`);
  assert.match(await tryWith(own), /Permission denied/);
});

test('the address it names, and a choice of principals, are honoured', async () => {
  const near = await certified({ options: ['source-address=192.0.2.0/24,127.0.0.0/8'] });
  assert.equal(await tryWith(near), 'in');
  const both = await certified({ principals: 'ann,bob' });
  assert.equal(await tryWith(both, 'ann'), 'in');
  // bob may not see the repository: it was he who came in.
  assert.match(await tryWith(both, 'bob'), /not found/);
});

test('revoked: by serial number, key id or key; and taken back', async () => {
  const key = await certified({ serial: '4711', id: 'lost laptop' });
  const listed = await scene.run('ssh-keygen', ['-l', '-f', key.publicKeyFile]);
  const fingerprint = /SHA256:\S+/.exec(listed.stdout)?.[0] ?? '';
  const ways = [
    ['--serial', '4711', '--authority', authorityFingerprint],
    ['--key-id', 'lost laptop'],
    ['--key', fingerprint],
  ];
  for (const way of ways) {
    assert.equal(await tryWith(key), 'in');
    await scene.admin(server, 'ca', 'revoke', ...way);
    assert.match(await tryWith(key), /Permission denied/);
    const id = /^([0-9a-f]{32}) /m.exec(await scene.admin(server, 'ca', 'revocations'))?.[1];
    await scene.admin(server, 'ca', 'unrevoke', id ?? 'none');
  }
  const wrong = await scene.quorate(server, ['ca', 'revoke', '--serial', '1']);
  assert.equal(wrong.exitCode, 2);
});

test('a disabled user, and a removed authority, let nobody in', async () => {
  const key = await certified();
  await scene.admin(server, 'user', 'disable', 'ann');
  assert.match(await tryWith(key), /Permission denied/);
  await scene.admin(server, 'user', 'enable', 'ann');
  assert.equal(await tryWith(key), 'in');
  await scene.admin(server, 'ca', 'remove', authorityFingerprint);
  assert.match(await tryWith(key), /Permission denied/);
  await scene.admin(server, 'ca', 'add', authority.publicKeyFile);
});
