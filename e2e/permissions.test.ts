import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createScene } from './harness.js';

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
