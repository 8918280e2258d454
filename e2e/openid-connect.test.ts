import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, test } from 'node:test';
import { generateKeyPair, SignJWT } from 'jose';
import { createScene, type Scene, type ServerProcess } from './harness.js';
import { Issuer, type KeyPair } from './openid-issuer.js';

// OpenID Connect tokens of CI jobs, from a real issuer on loopback, as git's password and as a bearer token.

let scene: Scene;
let server: ServerProcess;
let issuer: Issuer;
let work = '';

let signing: KeyPair;

before(async () => {
  scene = await createScene();
  server = await scene.startServer({ flags: ['--set', 'limits.failedSignIns=0'] });
  issuer = await Issuer.open();
  signing = await issuer.addKey('one', 'ES256');
  for (const name of ['team/app', 'other/app']) await scene.admin(server, 'repo', 'create', name);
  await trust('ci', issuer.url, 'team/*', 'write', 'repository=acme/*');
  work = await scene.makeRepository();
});
after(async () => {
  await issuer.close();
  await scene.close();
});

function trust(
  name: string,
  url: string,
  repositories: string,
  level: string,
  ...claims: readonly string[]
): Promise<string> {
  return scene.admin(
    server,
    'oidc',
    'set',
    name,
    '--issuer',
    url,
    '--audience',
    'quorate',
    '--repo',
    repositories,
    '--level',
    level,
    ...claims.flatMap((claim) => ['--claim', claim]),
  );
}

/** A token as the CI service would make it, but for what is wanted otherwise. */
async function token(
  other: {
    readonly claims?: Readonly<Record<string, unknown>>;
    readonly key?: KeyPair;
    readonly kid?: string;
    readonly algorithm?: string;
    readonly expires?: string;
  } = {},
): Promise<string> {
  const claims = { iss: issuer.url, aud: 'quorate', sub: 'repo:acme/app', repository: 'acme/app' };
  const jwt = new SignJWT({ ...claims, ...other.claims })
    .setProtectedHeader({ alg: other.algorithm ?? 'ES256', kid: other.kid ?? 'one' })
    .setIssuedAt();
  if (other.expires !== 'never') jwt.setExpirationTime(other.expires ?? '5m');
  return await jwt.sign((other.key ?? signing).privateKey);
}

async function fetches(secret: string, repository = 'team/app'): Promise<string> {
  const url = server.httpUrl(repository, { user: 'ci', token: secret });
  const result = await scene.tryGit(['ls-remote', url]);
  return result.exitCode === 0 ? 'in' : result.stderr;
}

async function bearer(secret: string): Promise<number> {
  const response = await fetch(`${server.url}/team/app/info/refs?service=git-upload-pack`, {
    headers: { Authorization: `Bearer ${secret}` },
  });
  await response.arrayBuffer();
  return response.status;
}

test('a CI job pushes where its claims let it', async () => {
  const secret = await token();
  const url = server.httpUrl('team/app', { user: 'ci', token: secret });
  await scene.git(['push', '-q', url, 'main'], { cwd: work });
  assert.equal(await fetches(secret), 'in');
  assert.equal(await bearer(secret), 200);
  assert.match(await fetches(secret, 'other/app'), /not found/);
  // No rights on the server, and no repositories of its own.
  const created = await scene.tryGit(
    ['push', server.httpUrl('team/new', { user: 'ci', token: secret }), 'main'],
    { cwd: work },
  );
  assert.match(created.stderr, /not found/);
  const asked = await scene.quorate(server, ['user', 'list'], { token: secret });
  assert.match(asked.stderr, /server administrator/);
  const shown = await scene.quorate(server, ['repo', 'show', 'team/app'], { token: secret });
  assert.equal(shown.exitCode, 0, shown.stderr);
});

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

test('tokens that are not to be believed', async () => {
  const stranger = await generateKeyPair('ES256');
  const [header = '', payload = ''] = (await token()).split('.');
  const unsigned = `${encode({ alg: 'none' })}.${payload}.`;
  const hmacHead = encode({ alg: 'HS256', kid: 'one' });
  const secret = JSON.stringify(issuer.keys[0]);
  const mac = createHmac('sha256', secret).update(`${hmacHead}.${payload}`).digest('base64url');
  const seconds = Math.floor(Date.now() / 1000);
  const rsa = await issuer.addKey('two', 'PS256');
  const cases: Readonly<Record<string, string>> = {
    'another audience': await token({ claims: { aud: 'somebody-else' } }),
    'another issuer': await token({ claims: { iss: 'https://issuer.example.org' } }),
    'no issuer': await token({ claims: { iss: undefined } }),
    'signed by a stranger': await token({ key: stranger }),
    'signed with an unknown key': await token({ key: stranger, kid: 'none' }),
    'an algorithm that is not accepted': await token({ key: rsa, kid: 'two', algorithm: 'PS256' }),
    'a changed payload': `${header}.${encode({ iss: issuer.url })}.${'A'.repeat(86)}`,
    'no signature at all': unsigned,
    'a secret instead of a key pair': `${hmacHead}.${payload}.${mac}`,
    expired: await token({ claims: { exp: seconds - 60 }, expires: 'never' }),
    'without an end': await token({ expires: 'never' }),
    'not valid yet': await token({ claims: { nbf: seconds + 120 } }),
    'without a subject': await token({ claims: { sub: undefined } }),
    'another claim': await token({ claims: { repository: 'evil/app' } }),
    'a claim of another type': await token({ claims: { repository: ['acme/app'] } }),
    'without the claim': await token({ claims: { repository: undefined } }),
    'far too long': await token({ claims: { padding: 'x'.repeat(9000) } }),
    'three dots': 'a..b',
  };
  for (const [desc, wrong] of Object.entries(cases)) {
    assert.equal(await bearer(wrong), 401, desc);
  }
  assert.match(await fetches(cases['another audience'] ?? ''), /Authentication failed/);
});

test('clocks may differ a little', async () => {
  const seconds = Math.floor(Date.now() / 1000);
  const late = await token({ claims: { exp: seconds - 10 }, expires: 'never' });
  assert.equal(await bearer(late), 200);
});

test('keys are fetched when needed, and not for every token', async () => {
  const fetchedBefore = issuer.fetches;
  for (let n = 0; n < 5; n++) assert.equal(await bearer(await token()), 200);
  // Strangers name keys that there are not.
  const stranger = await generateKeyPair('ES256');
  for (let n = 0; n < 10; n++) {
    assert.equal(await bearer(await token({ key: stranger, kid: `k${n}` })), 401);
  }
  assert.ok(issuer.fetches <= fetchedBefore + 1, `${issuer.fetches - fetchedBefore} fetches`);
});

test('an issuer that is removed, or not to be had', async () => {
  const gone = await Issuer.open();
  await trust('gone', gone.url, 'team/*', 'read', 'repository=acme/*');
  await gone.close();
  assert.equal(await bearer(await token({ claims: { iss: gone.url } })), 503);
  await scene.admin(server, 'oidc', 'remove', 'gone');
  assert.equal(await bearer(await token({ claims: { iss: gone.url } })), 401);
  const words = 'oidc set endless --audience quorate --repo ** --claim repository=**'.split(' ');
  const places = ['--issuer', 'https://endless.example.org', '--jwks', `${issuer.url}/endless`];
  const endless = await scene.admin(server, ...words, ...places);
  assert.match(endless, /may read/);
  const iss = 'https://endless.example.org';
  assert.equal(await bearer(await token({ claims: { iss } })), 503);
});

test('a trust that cannot be meant is refused', async () => {
  const wrong: readonly (readonly [RegExp, readonly string[]])[] = [
    [/https/, ['--issuer', 'http://example.org', '--repo', 'a/*', '--claim', 'a=b']],
    [/claims/, ['--issuer', 'https://example.org', '--repo', 'a/*']],
    [/repositories/, ['--issuer', 'https://example.org', '--repo', '/a', '--claim', 'a=b']],
    [
      /algorithms/,
      ['--issuer', 'https://example.org', '--repo', 'a', '--claim', 'a=b', '--algorithm', 'none'],
    ],
  ];
  for (const [why, args] of wrong) {
    const answer = await scene.quorate(server, ['oidc', 'set', 'x', '--audience', 'y', ...args]);
    assert.equal(answer.exitCode, 1);
    assert.match(answer.stderr, why);
  }
});
