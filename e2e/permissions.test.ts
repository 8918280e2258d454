import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { createScene, waitFor } from './harness.js';

test('a group gets a path prefix, over HTTP and SSH; who leaves it is out at once', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const key = await scene.sshKey();
  await scene.admin(server, 'user', 'add', 'ann');
  await scene.admin(server, 'key', 'add', 'ann', key.publicKeyFile);
  const token = (await scene.admin(server, 'token', 'create', 'ann')).trim();
  await scene.admin(server, 'repo', 'create', 'team/app');
  const ssh = { env: await key.environment(server) };
  const [overHttp, overSsh] = [
    server.httpUrl('team/app', { user: 'ann', token }),
    server.sshUrl('team/app'),
  ];
  const may = async (): Promise<string> => {
    const http = await scene.tryGit(['ls-remote', overHttp]);
    const secure = await scene.tryGit(['ls-remote', overSsh], ssh);
    return [http, secure].map(({ exitCode }) => (exitCode === 0 ? 'yes' : 'no')).join(' ');
  };
  assert.equal(await may(), 'no no');
  await waitFor('the use of the token to be noted', async () => {
    const listed = await scene.admin(server, 'token', 'list', 'ann', '--json');
    return /"lastUsedAt": *"20/.test(listed);
  });
  await scene.admin(server, 'group', 'add', 'crew');
  await scene.admin(server, 'group', 'join', 'crew', 'ann');
  await scene.admin(server, 'repo', 'grant', 'team/*', '@crew', 'read');
  assert.equal(await may(), 'yes yes');
  assert.match(await scene.admin(server, 'repo', 'grants'), /team\/\* +@crew +read/);
  assert.equal(await scene.admin(server, 'group', 'members', 'crew'), 'ann\n');

  const work = await scene.makeRepository();
  const refused = await scene.tryGit(['push', overHttp, 'main'], { cwd: work });
  assert.match(refused.stderr, /403|may not push/);
  assert.notEqual(
    (await scene.tryGit(['push', overSsh, 'main'], { cwd: work, ...ssh })).exitCode,
    0,
  );
  await scene.admin(server, 'repo', 'grant', 'team/*', '@crew', 'write');
  await scene.git(['push', '-q', overHttp, 'main'], { cwd: work });
  await scene.git(['push', '-q', overSsh, 'main:other'], { cwd: work, ...ssh });

  await scene.admin(server, 'group', 'leave', 'crew', 'ann');
  assert.equal(await may(), 'no no');
  await scene.admin(server, 'repo', 'grant', 'team/app', '@crew', 'read');
  await scene.admin(server, 'group', 'join', 'crew', 'ann');
  await scene.admin(server, 'repo', 'revoke', 'team/*', '@crew');
  assert.equal(await may(), 'yes yes');
  await scene.admin(server, 'group', 'remove', 'crew');
  assert.equal(await may(), 'no no');
  const again = await scene.quorate(server, ['group', 'add', 'crew']);
  assert.match(again.stderr, /there was a group crew/);
});

for (const backend of ['local', 'directory'] as const) {
  test(`deploy keys fetch, and push where they may, their one repository: ${backend}`, (t) =>
    deployKeys(t, backend));
}

async function deployKeys(t: TestContext, backend: 'local' | 'directory'): Promise<void> {
  const scene = await createScene(t);
  const server = await scene.startServer({ backend });
  const [reader, writer] = [await scene.sshKey(), await scene.sshKey()];
  for (const name of ['team/app', 'team/other']) await scene.admin(server, 'repo', 'create', name);
  await scene.admin(server, 'deploy-key', 'add', 'team/app', reader.publicKeyFile);
  await scene.admin(server, 'deploy-key', 'add', 'team/app', writer.publicKeyFile, '--write');
  const work = await scene.makeRepository();
  const as = async (key: typeof reader, args: readonly string[]) =>
    scene.tryGit(args, { cwd: work, env: await key.environment(server) });
  const [app, other] = [server.sshUrl('team/app'), server.sshUrl('team/other')];
  assert.equal((await as(writer, ['push', app, 'main'])).exitCode, 0);
  assert.equal((await as(reader, ['ls-remote', app])).exitCode, 0);
  assert.match((await as(reader, ['push', app, 'main:x'])).stderr, /may not push/);
  assert.match((await as(reader, ['ls-remote', other])).stderr, /not found/);
  assert.match((await as(writer, ['push', other, 'main'])).stderr, /not found/);
  assert.match((await as(writer, ['push', server.sshUrl('team/new'), 'main'])).stderr, /not found/);

  await scene.admin(server, 'repo', 'rename', 'team/app', 'team/moved');
  const moved = server.sshUrl('team/moved');
  assert.equal((await as(reader, ['ls-remote', moved])).exitCode, 0);
  const listed = await scene.admin(server, 'deploy-key', 'list', 'team/moved', '--json');
  const fingerprints = [...listed.matchAll(/SHA256:[A-Za-z0-9+/]{43}/g)].map(([text]) => text);
  assert.equal(fingerprints.length, 2);
  for (const fingerprint of fingerprints) {
    await scene.admin(server, 'deploy-key', 'remove', 'team/moved', fingerprint);
  }
  assert.match((await as(reader, ['ls-remote', moved])).stderr, /Permission denied/);

  // A repository that comes to stand in its place is not theirs.
  await scene.admin(server, 'deploy-key', 'add', 'team/moved', reader.publicKeyFile);
  await scene.admin(server, 'repo', 'delete', 'team/moved', '--yes');
  await scene.admin(server, 'repo', 'create', 'team/moved');
  assert.match((await as(reader, ['ls-remote', moved])).stderr, /Permission denied/);
}
