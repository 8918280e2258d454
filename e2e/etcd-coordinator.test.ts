import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { EtcdCluster } from './etcd.js';
import { createScene, type Scene, type ServerProcess } from './harness.js';

describe('one server on etcd', () => {
  let cluster: EtcdCluster;
  let scene: Scene;
  let server: ServerProcess;
  before(async () => {
    scene = await createScene();
    cluster = await EtcdCluster.start({ members: 3 });
    server = await scene.startServer({ flags: ['--coordinator', cluster.url] });
  });
  after(async () => {
    await scene.close();
    await cluster.stop();
  });

  test('pushes, clones and restarts as on the embedded coordinator', async () => {
    const repository = await scene.makeRepository({ commits: 3 });
    const url = server.httpUrl('team/first.git');
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const tip = await scene.commit(repository, 'more.txt', 'more\n');
    const key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    const ssh = { cwd: repository, env: await key.environment(server) };
    await scene.git(['push', '-q', server.sshUrl('team/first.git'), 'main'], ssh);
    await server.restart();
    const clone = scene.path('work', 'clone');
    await scene.git(['clone', '-q', server.httpUrl('team/first.git'), clone]);
    assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), tip);
  });

  test('pushes go on after the leader of etcd was killed', async () => {
    const repository = await scene.makeRepository();
    const url = server.httpUrl('team/second.git');
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const killed = await cluster.killLeader();
    const tip = await scene.commit(repository, 'after.txt', 'after\n');
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const listed = await scene.git(['ls-remote', url, 'refs/heads/main']);
    assert.ok(listed.startsWith(tip));
    killed.start();
    await cluster.ready();
  });
});

test('an address that is not etcd stops the start, says which it is and what to do', async (t) => {
  const scene = await createScene(t);
  const web = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
  t.after(() => web.close());
  await once(web, 'listening');
  const address = web.address();
  assert.ok(typeof address === 'object' && address !== null);
  const server = await scene.launchServer({
    flags: ['--coordinator', `etcd://127.0.0.1:${address.port}`],
  });
  await assert.rejects(
    server.ready(),
    (error: Error) =>
      error.message.includes(`what listens on 127.0.0.1:${address.port} is no etcd`) &&
      error.message.includes('--coordinator etcd://HOST:PORT'),
  );
});
