/** What cannot be served is told in a sentence that git shows, over both transports and in all versions of the protocol. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { createScene } from './harness.js';

test('a frozen repository: clients of fetches and pushes read why', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const source = await scene.makeRepository({ commits: 2 });
  await scene.git(['push', '-q', server.httpUrl('app'), 'main'], { cwd: source });
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const before = (await scene.git(['rev-parse', 'main~1'], { cwd: source })).trim();
  await server.stop();
  // Somebody writes a ref behind the server's back.
  const files = await readdir(server.dataDirectory, { recursive: true });
  const head = files.find((file) => file.endsWith('/git/HEAD'));
  assert.ok(head !== undefined, 'the repository is in the store');
  const gitDirectory = path.join(server.dataDirectory, path.dirname(head));
  await scene.git(['update-ref', 'refs/heads/main', before], {
    cwd: gitDirectory,
    env: { GIT_DIR: gitDirectory },
  });
  await server.restart();
  const env = await key.environment(server);
  const words = /the repository is frozen/;
  const transports = [
    { name: 'HTTP', url: server.httpUrl('app'), options: {} },
    { name: 'SSH', url: server.sshUrl('app'), options: { env } },
  ];
  for (const { name, url, options } of transports) {
    for (const protocol of [0, 1, 2] as const) {
      const listed = await scene.tryGit(['ls-remote', url], { ...options, protocol });
      assert.notEqual(listed.exitCode, 0);
      assert.match(listed.stderr, words, `ls-remote over ${name}, v${protocol}`);
    }
    const cloned = await scene.tryGit(['clone', '-q', url, scene.path('work', name)], options);
    assert.match(cloned.stderr, words, `clone over ${name}`);
    const pushed = await scene.tryGit(['push', url, 'main:refs/heads/new'], {
      ...options,
      cwd: source,
    });
    assert.match(pushed.stderr, words, `push over ${name}`);
  }
});
