import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { SignJWT } from 'jose';
import { createScene, type Finished, type Scene, type ServerProcess } from './harness.js';
import { Issuer, type KeyPair } from './openid-issuer.js';

// Branch rules that name programs: deploy keys over SSH, CI jobs over HTTP.

let scene: Scene;
let server: ServerProcess;
let issuer: Issuer;
let signing: KeyPair;
let work = '';

before(async () => {
  scene = await createScene();
  server = await scene.startServer();
  issuer = await Issuer.open();
  signing = await issuer.addKey('one', 'ES256');
  await scene.admin(server, 'repo', 'create', 'team/app');
  for (const [name, branch] of [
    ['ci', '*'],
    ['release', 'release'],
  ] as const) {
    const from = ['--issuer', issuer.url, '--audience', 'quorate', '--claim', `branch=${branch}`];
    const to = ['--repo', 'team/*', '--level', 'write'];
    await scene.admin(server, 'oidc', 'set', name, ...from, ...to);
  }
  work = await scene.makeRepository();
});
after(async () => {
  await issuer.close();
  await scene.close();
});

async function job(branch: string, refspec: string): Promise<Finished> {
  const token = await new SignJWT({ iss: issuer.url, aud: 'quorate', sub: 'job', branch })
    .setProtectedHeader({ alg: 'ES256', kid: 'one' })
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(signing.privateKey);
  const url = server.httpUrl('team/app', { user: 'ci', token });
  return scene.tryGit(['push', '--porcelain', url, refspec], { cwd: work });
}

test('a CI job pushes where a rule names an entry that vouches for it; others do not', async () => {
  const push = ['--push', 'oidc:release'];
  await scene.admin(server, 'rule', 'set', 'team/app', 'tags', '--refs', 'refs/tags/**', ...push);
  const other = await job('main', 'main:refs/tags/v1');
  assert.match(other.stdout, /\[remote rejected\] \(rule tags: only oidc:release may push/);
  assert.equal((await job('main', 'main:refs/heads/main')).exitCode, 0);
  // Both entries vouch for it: it goes by the name of the first, and is let in by the second.
  const named = await job('release', 'main:refs/tags/v1');
  assert.equal(named.exitCode, 0, named.stdout);
  const trail = await scene.admin(server, 'audit', '--json', '--repo', 'team/app');
  assert.match(trail, /"actor": *"oidc:ci:job"/);
});

test('a deploy key pushes where a rule names it, and a rule can leave it alone', async () => {
  const [one, two] = [await scene.sshKey(), await scene.sshKey()];
  const fingerprints: string[] = [];
  for (const key of [one, two]) {
    const file = key.publicKeyFile;
    const added = await scene.admin(server, 'deploy-key', 'add', 'team/app', file, '--write');
    fingerprints.push(/SHA256:[A-Za-z0-9+/]{43}/.exec(added)?.[0] ?? '');
  }
  const push = async (key: typeof one, refspec: string): Promise<Finished> =>
    scene.tryGit(['push', '--porcelain', server.sshUrl('team/app'), refspec], {
      cwd: work,
      env: await key.environment(server),
    });
  const name = `deploy-key:${fingerprints[0]}`;
  const set = ['rule', 'set', 'team/app', 'stable', '--refs', 'refs/heads/stable'];
  const said = await scene.admin(server, ...set, '--push', name);
  assert.match(said, new RegExp(`only deploy-key:SHA256:`));
  assert.equal((await push(one, 'main:stable')).exitCode, 0);
  const refused = await push(two, ':stable');
  assert.match(refused.stdout, /rule stable: only deploy-key:SHA256:.* may push to this ref/);
  await scene.admin(server, ...set, '--no-deletion', '--exempt', `deploy-key:${fingerprints[1]}`);
  assert.match((await push(one, ':stable')).stdout, /rule stable: this ref may not be deleted/);
  assert.equal((await push(two, ':stable')).exitCode, 0);
});

test('a name gives no right to write', async () => {
  const reader = await scene.sshKey();
  const added = await scene.admin(server, 'deploy-key', 'add', 'team/app', reader.publicKeyFile);
  const name = `deploy-key:${/SHA256:[A-Za-z0-9+/]{43}/.exec(added)?.[0]}`;
  const set = ['rule', 'set', 'team/app', 'all', '--refs', 'refs/heads/**', '--push', name];
  await scene.admin(server, ...set);
  const env = await reader.environment(server);
  const result = await scene.tryGit(['push', server.sshUrl('team/app'), 'main:x'], {
    cwd: work,
    env,
  });
  assert.match(result.stderr, /may not push/);
  await scene.admin(server, 'rule', 'remove', 'team/app', 'all');
});

for (const name of ['deploy-key:SHA256:short', 'deploy-key:*', 'oidc:', 'oidc:CI', 'ci:x']) {
  test(`no name of anybody: ${name}`, async () => {
    const set = ['rule', 'set', 'team/app', 'bad', '--refs', 'refs/heads/x', '--push', name];
    const result = await scene.quorate(server, set);
    assert.equal(result.exitCode, 1);
    assert.match(result.stderr, /push\.0: wants names of users, @groups, deploy keys and CI/);
  });
}
