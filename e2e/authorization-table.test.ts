import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { SignJWT } from 'jose';
import { createScene, type Scene, type ServerProcess, type SshKey } from './harness.js';
import { Issuer } from './openid-issuer.js';

/*
 * Who may do what over which transport, with real git and ssh. One letter for each of `cells`: `+` allowed, `s` sign in
 * (HTTP 401, SSH "Permission denied"), `h` hidden (404, "not found"), `d` denied (403, "may not"). The types of the
 * table keep a principal from being forgotten, the test keeps a cell from it; `none`: the transport does not know such
 * credentials, or the action.
 */
const cells = [
  'fetch team/app (private)',
  'push team/app',
  'fetch open/lib (public)',
  'push open/lib',
  'fetch what does not exist',
  'create by pushing',
] as const;

interface Row {
  readonly http: string;
  readonly ssh: string;
  /** Changing team/app over the admin API, which is HTTP. */
  readonly administer: string;
}

const table = {
  anonymous: { http: 'ss+sss', ssh: 'none', administer: 's' },
  // Git shows credentials only when it is asked for some, which public repositories do not do.
  'credentials of nobody': { http: 'ss+sss', ssh: 'ssssss', administer: 's' },
  stranger: { http: 'hh+dh+', ssh: 'hh+dh+', administer: 'h' },
  'stranger who may not create': { http: 'hh+dhh', ssh: 'hh+dhh', administer: 'h' },
  reader: { http: '+d+dh+', ssh: '+d+dh+', administer: 'd' },
  writer: { http: '+++dh+', ssh: '+++dh+', administer: 'd' },
  owner: { http: '+++dh+', ssh: '+++dh+', administer: '+' },
  'reader by group': { http: '+d+dh+', ssh: '+d+dh+', administer: 'd' },
  'writer by prefix': { http: '+++dh+', ssh: '+++dh+', administer: 'd' },
  'writer by group and prefix': { http: '+++dh+', ssh: '+++dh+', administer: 'd' },
  // Without the right to create: it comes with the prefix.
  'owner by prefix': { http: '+++dh+', ssh: '+++dh+', administer: '+' },
  'by another prefix': { http: 'hh+dh+', ssh: 'hh+dh+', administer: 'h' },
  'server administrator': { http: '++++h+', ssh: '++++h+', administer: '+' },
  'disabled owner': { http: 'ss+sss', ssh: 'ssssss', administer: 's' },
  "owner's token of scope read": { http: '+d+dhh', ssh: 'none', administer: 'd' },
  "owner's token of scope write": { http: '+++dh+', ssh: 'none', administer: 'd' },
  "owner's token for other/*": { http: 'hh+dhh', ssh: 'none', administer: 'h' },
  "owner's token that is revoked": { http: 'ss+sss', ssh: 'none', administer: 's' },
  "administrator's token of scope read": { http: '+d+dhh', ssh: 'none', administer: 'd' },
  'deploy key that reads': { http: 'none', ssh: '+d+dhh', administer: 'none' },
  'deploy key that writes': { http: 'none', ssh: '+++dhh', administer: 'none' },
  'deploy key of another repository': { http: 'none', ssh: 'hh+dhh', administer: 'none' },
  "owner's certificate": { http: 'none', ssh: '+++dh+', administer: 'none' },
  "stranger's certificate": { http: 'none', ssh: 'hh+dh+', administer: 'none' },
  "owner's certificate, expired": { http: 'none', ssh: 'ssssss', administer: 'none' },
  "owner's certificate, of an unknown authority": {
    http: 'none',
    ssh: 'ssssss',
    administer: 'none',
  },
  'OpenID token that reads': { http: '+d+dhh', ssh: 'none', administer: 'd' },
  'OpenID token that writes': { http: '+++dhh', ssh: 'none', administer: 'd' },
  'OpenID token for another audience': { http: 'ss+sss', ssh: 'none', administer: 's' },
} as const satisfies Record<string, Row>;

type Who = keyof typeof table;

interface Credentials {
  /** `null`: none at all. */
  readonly token?: string | null;
  readonly key?: SshKey;
}

let scene: Scene;
let server: ServerProcess;
let issuer: Issuer;
let work = '';
let credentials: Record<Who, Credentials>;

before(async () => {
  scene = await createScene();
  server = await scene.startServer({ flags: ['--set', 'limits.failedSignIns=0'] });
  issuer = await Issuer.open();
  work = await scene.makeRepository();
  await admin('repo create team/app');
  await admin('repo create team/other');
  await admin('repo create open/lib --public');
  credentials = { ...(await people()), ...(await tokens()), ...(await machines()) };
  await admin('user disable disabled');
});
after(async () => {
  await issuer.close();
  await scene.close();
});

function admin(words: string, ...more: readonly string[]): Promise<string> {
  return scene.admin(server, ...words.split(' '), ...more);
}

async function token(user: string, words = '--scope admin'): Promise<string> {
  return (await admin(`token create ${user} ${words}`)).trim();
}

/** A user with a key and a token of all rights. */
async function person(name: string, options = ''): Promise<Required<Credentials>> {
  const key = await scene.sshKey();
  await admin(`user add ${name}${options}`);
  await admin(`key add ${name}`, key.publicKeyFile);
  return { token: await token(name), key };
}

async function people() {
  const made = {
    anonymous: { token: null },
    'credentials of nobody': { token: `qrt_${'x'.repeat(49)}`, key: await scene.sshKey() },
    stranger: await person('stranger'),
    'stranger who may not create': await person('nocreate', ' --no-create'),
    reader: await person('reader'),
    writer: await person('writer'),
    owner: await person('owner'),
    'reader by group': await person('grouped'),
    'writer by prefix': await person('prefixed'),
    'writer by group and prefix': await person('both'),
    'owner by prefix': await person('lead', ' --no-create'),
    'by another prefix': await person('elsewhere'),
    'server administrator': await person('root', ' --admin'),
    'disabled owner': await person('disabled'),
  };
  for (const [group, member] of [
    ['readers', 'grouped'],
    ['crew', 'both'],
  ]) {
    await admin(`group add ${group}`);
    await admin(`group join ${group} ${member}`);
  }
  for (const grant of [
    'team/app reader read',
    'team/app writer write',
    'team/app owner admin',
    'team/app disabled admin',
    'team/app @readers read',
    'team/* prefixed write',
    'team/* @crew write',
    'team/** lead admin',
    'teams/* elsewhere admin',
  ]) {
    await admin(`repo grant ${grant}`);
  }
  return made;
}

async function tokens() {
  const revoked = await token('owner', '--name revoked');
  const id = /^([0-9a-f]{16}) .*revoked$/m.exec(await admin('token list owner'))?.[1];
  await admin(`token revoke ${id}`);
  await trust('reads', 'read');
  await trust('writes', 'write');
  const signing = await issuer.addKey('one', 'ES256');
  const jwt = (may: string, audience: string): Promise<string> =>
    new SignJWT({ may })
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .setIssuer(issuer.url)
      .setAudience(audience)
      .setSubject('job')
      .setExpirationTime('1h')
      .sign(signing.privateKey);
  return {
    "owner's token of scope read": { token: await token('owner', '--scope read') },
    "owner's token of scope write": { token: await token('owner', '--scope write') },
    "owner's token for other/*": { token: await token('owner', '--scope admin --repo other/*') },
    "owner's token that is revoked": { token: revoked },
    "administrator's token of scope read": { token: await token('root', '--scope read') },
    'OpenID token that reads': { token: await jwt('read', 'quorate') },
    'OpenID token that writes': { token: await jwt('write', 'quorate') },
    'OpenID token for another audience': { token: await jwt('write', 'else') },
  };
}

function trust(name: string, level: string): Promise<string> {
  const where = `--issuer ${issuer.url} --audience quorate --repo team/*`;
  return admin(`oidc set ${name} ${where} --level ${level} --claim may=${level}`);
}

async function machines() {
  const [reading, writing, other] = [
    await scene.sshKey(),
    await scene.sshKey(),
    await scene.sshKey(),
  ];
  await admin('deploy-key add team/app', reading.publicKeyFile);
  await admin('deploy-key add team/app --write', writing.publicKeyFile);
  await admin('deploy-key add team/other --write', other.publicKeyFile);
  const [authority, unknown] = [await scene.sshKey(), await scene.sshKey()];
  await admin('ca add', authority.publicKeyFile);
  return {
    'deploy key that reads': { key: reading },
    'deploy key that writes': { key: writing },
    'deploy key of another repository': { key: other },
    "owner's certificate": { key: await certified('owner', authority) },
    "stranger's certificate": { key: await certified('stranger', authority) },
    "owner's certificate, expired": { key: await certified('owner', authority, '-2h:-1h') },
    "owner's certificate, of an unknown authority": { key: await certified('owner', unknown) },
  };
}

async function certified(user: string, signer: SshKey, validity = '+1h'): Promise<SshKey> {
  const key = await scene.sshKey();
  const words = `-q -s ${signer.privateKeyFile} -I ${user} -n ${user} -V ${validity}`.split(' ');
  const made = await scene.run('ssh-keygen', [...words, key.publicKeyFile]);
  assert.equal(made.exitCode, 0, made.stderr);
  // ssh would offer the plain key as well, if it could.
  await rm(key.publicKeyFile);
  return key;
}

/** One letter for each cell. */
async function tryCells(
  who: string,
  url: (repository: string) => string,
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const unique = who.replaceAll(/[^a-z]/gi, '');
  const push = (repository: string): readonly string[] => {
    return ['push', url(repository), `main:${unique}`];
  };
  const runs: Record<(typeof cells)[number], readonly string[]> = {
    'fetch team/app (private)': ['ls-remote', url('team/app')],
    'push team/app': push('team/app'),
    'fetch open/lib (public)': ['ls-remote', url('open/lib')],
    'push open/lib': push('open/lib'),
    'fetch what does not exist': ['ls-remote', url('team/none')],
    'create by pushing': push(`team/new-${unique}`),
  };
  const letters = await Promise.all(
    cells.map(async (cell) => {
      const { exitCode, stderr } = await scene.tryGit(runs[cell], { cwd: work, env });
      return exitCode === 0 ? '+' : refusalLetter(`${who}: ${cell}`, stderr);
    }),
  );
  return letters.join('');
}

function refusalLetter(what: string, stderr: string): string {
  if (/Authentication failed|could not read Username|Permission denied \(/.test(stderr)) return 's';
  if (/not found/.test(stderr)) return 'h';
  if (/error: 403|may not|not allowed/.test(stderr)) return 'd';
  return assert.fail(`${what}: ${stderr}`);
}

async function tryAdministering(secret: string | null): Promise<string> {
  const answer = await fetch(`${server.url}/api/v1/repositories/team%2Fapp`, {
    method: 'PATCH',
    headers: {
      'Content-Type': 'application/json',
      ...(secret === null ? {} : { Authorization: `Bearer ${secret}` }),
    },
    body: '{"settings":{"receive.denyDeletes":"false"}}',
  });
  const text = await answer.text();
  const letter = { 200: '+', 401: 's', 403: 'd', 404: 'h' }[answer.status];
  return letter ?? assert.fail(`${answer.status}: ${text}`);
}

const rows: readonly (readonly [string, Row])[] = Object.entries(table);

describe('who may do what over which transport', () => {
  for (const [who, expected] of rows) {
    test(who, async () => {
      const known = new Map<string, Credentials>(Object.entries(credentials)).get(who);
      assert.ok(known !== undefined);
      const { token: secret, key } = known;
      assert.equal(expected.http === 'none', secret === undefined, 'HTTP has a column of its own');
      assert.equal(expected.ssh === 'none', key === undefined, 'SSH has a column of its own');
      assert.equal(expected.administer === 'none', secret === undefined);
      if (secret !== undefined) {
        const signIn = secret === null ? null : { user: 'x', token: secret };
        const url = (repository: string): string => server.httpUrl(repository, signIn);
        assert.equal(await tryCells(`${who}http`, url, {}), expected.http);
        assert.equal(await tryAdministering(secret), expected.administer);
      }
      if (key !== undefined) {
        const env = await key.environment(server);
        const url = (repository: string): string => server.sshUrl(repository);
        assert.equal(await tryCells(`${who}ssh`, url, env), expected.ssh);
      }
    });
  }
});

/** What somebody unknown may try with a repository. */
const attempts: readonly (readonly [string, RequestInit?])[] = [
  ['/NAME'],
  ['/NAME/info/refs?service=git-upload-pack'],
  ['/NAME/info/refs?service=git-receive-pack'],
  ['/NAME/git-upload-pack', posted('git-upload-pack')],
  ['/NAME/git-receive-pack', posted('git-receive-pack')],
  ['/api/v1/repositories/NAME'],
];

function posted(service: string): RequestInit {
  const type = `application/x-${service}-request`;
  return { method: 'POST', headers: { 'Content-Type': type }, body: '0000' };
}

/** Without what differs from request to request anyway. */
async function attempt(name: string): Promise<readonly string[]> {
  const answers = attempts.map(async ([path, init]) => {
    const written = path.startsWith('/api/') ? encodeURIComponent(name) : name;
    const answer = await fetch(`${server.url}${path.replace('NAME', written)}`, init);
    const text = await answer.text();
    return `${answer.status} ${text}`.replace(/"instance":"[^"]*"/, '').replaceAll(name, 'NAME');
  });
  return await Promise.all(answers);
}

test('without signing in, a private repository and none at all have the same answers', async () => {
  const kept = await attempt('team/app');
  assert.deepEqual(kept, await attempt('team/none'));
  for (const answer of kept) assert.match(answer, /^401 /);
});
