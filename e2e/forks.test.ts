import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { poolsOnDisk } from './checker/store-on-disk.js';

// Forks as people use them: the command line, git over HTTP and SSH, and rights on both sides.

interface Shown {
  readonly sizeBytes: number;
  readonly sharedBytes: number;
  readonly sharedBy: number;
  readonly savedBytes: number;
}

async function show(scene: Scene, server: ServerProcess, name: string): Promise<Shown> {
  const shown: Shown = JSON.parse(await scene.admin(server, 'repo', 'show', name, '--json'));
  return shown;
}

/** Clones, checks every object, and answers the tip of main. */
async function cloned(scene: Scene, url: string, env = {}): Promise<string> {
  const directory = scene.path('work', `clone-${(clones += 1)}`);
  const said = await scene.tryGit(['clone', '--quiet', '--bare', url, directory], { env });
  assert.deepEqual([said.exitCode, said.stderr], [0, ''], 'git is told nothing but the pack');
  await scene.git(['fsck', '--strict'], { cwd: directory });
  return (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
}
let clones = 0;

test('a fork by the command line: clones, pushes, bytes saved; it outlives its source', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const ssh = await key.environment(server);
  const work = await scene.makeRepository({ commits: 20 });
  await scene.git(['push', '-q', server.httpUrl('team/app'), 'main'], { cwd: work });
  await scene.admin(server, 'repo', 'maintain', 'team/app');
  const said = await scene.admin(server, 'repo', 'fork', 'team/app', 'ann/app');
  assert.equal(said, 'forked team/app as ann/app\n');
  const tip = (await scene.git(['rev-parse', 'main'], { cwd: work })).trim();
  for (const name of ['team/app', 'ann/app']) {
    assert.equal(await cloned(scene, server.httpUrl(name)), tip);
    assert.equal(await cloned(scene, server.sshUrl(name), ssh), tip);
  }

  const alone = await show(scene, server, 'ann/app');
  assert.equal(alone.sizeBytes, 0);
  assert.equal(alone.sharedBy, 2);
  assert.ok(alone.sharedBytes > 1000);
  assert.equal(alone.savedBytes, alone.sharedBytes);
  assert.match(
    await scene.admin(server, 'repo', 'show', 'team/app'),
    /^shared: +\S+ KiB by 2 repositories\nsaved: +\S+ KiB$/m,
  );

  const mine = await scene.commit(work, 'mine', 'mine');
  await scene.git(['push', '-q', server.httpUrl('ann/app'), 'main'], { cwd: work });
  await scene.git(['reset', '-q', '--hard', tip], { cwd: work });
  const theirs = await scene.commit(work, 'theirs', 'theirs');
  await scene.git(['push', '-q', server.sshUrl('team/app'), 'main'], { cwd: work, env: ssh });
  for (const name of ['team/app', 'ann/app']) await scene.admin(server, 'repo', 'maintain', name);
  assert.equal(await cloned(scene, server.httpUrl('ann/app')), mine);
  assert.equal(await cloned(scene, server.sshUrl('team/app'), ssh), theirs);

  // What is in one and not in the other is fetched by negotiation, from whichever side.
  const both = scene.path('work', 'both');
  await scene.git(['clone', '-q', server.httpUrl('ann/app'), both]);
  await scene.git(['fetch', '-q', server.httpUrl('team/app'), 'main'], { cwd: both });
  const fetched = await scene.git(['rev-parse', 'FETCH_HEAD'], { cwd: both });
  assert.equal(fetched.trim(), theirs);

  await scene.admin(server, 'repo', 'delete', 'team/app', '--yes');
  await waitFor(
    'the pool to go',
    async () => (await poolsOnDisk(server.dataDirectory)).length === 0,
  );
  await scene.admin(server, 'repo', 'maintain', 'ann/app');
  assert.equal(await cloned(scene, server.httpUrl('ann/app')), mine);
  const { sharedBytes, sharedBy, savedBytes } = await show(scene, server, 'ann/app');
  assert.deepEqual([sharedBytes, sharedBy, savedBytes], [0, 1, 0]);

  const trail = await scene.admin(server, 'audit', '--repo', 'team/app', '--json');
  assert.match(trail, /"event": *"admin\.repository\.fork"|repository\.fork/);
});

test('forking needs the right to read the one and to create the other; what is hidden stays behind', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const work = await scene.makeRepository();
  await scene.git(['push', '-q', server.httpUrl('team/app'), 'main', 'main:refs/secret/x'], {
    cwd: work,
  });
  await scene.admin(server, 'repo', 'set', 'team/app', 'transfer.hideRefs=refs/secret');
  await scene.admin(server, 'user', 'add', 'ann');
  await scene.admin(server, 'user', 'add', 'bob', '--no-create');
  const tokens = {
    ann: (await scene.admin(server, 'token', 'create', 'ann')).trim(),
    bob: (await scene.admin(server, 'token', 'create', 'bob')).trim(),
  };
  const forkAs = async (user: 'ann' | 'bob') => {
    const answer = await fetch(`${server.url}/api/v1/repositories/team%2Fapp/fork`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${tokens[user]}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({ name: `${user}/app` }),
    });
    return { status: answer.status, text: await answer.text() };
  };
  assert.equal((await forkAs('ann')).status, 404, 'it is private');
  for (const user of ['ann', 'bob']) {
    await scene.admin(server, 'repo', 'grant', 'team/app', user, 'read');
  }
  assert.equal((await forkAs('bob')).status, 403);
  const made = await forkAs('ann');
  assert.equal(made.status, 201, made.text);
  assert.equal((await forkAs('ann')).status, 409);

  const ann = server.httpUrl('ann/app', { user: 'ann', token: tokens.ann });
  assert.doesNotMatch(await scene.git(['ls-remote', ann]), /secret/);
  assert.match(await scene.git(['ls-remote', ann]), /refs\/heads\/main/);
  await scene.git(['push', '-q', ann, 'main:mine'], { cwd: work });
  const bob = server.httpUrl('ann/app', { user: 'bob', token: tokens.bob });
  assert.notEqual((await scene.tryGit(['ls-remote', bob])).exitCode, 0, 'a fork is private');
});

test('forks, pushes, clones and maintenance go on at once, through a restart', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const work = await scene.makeRepository({ commits: 5 });
  const app = server.httpUrl('app');
  await scene.git(['push', '-q', app, 'main'], { cwd: work });
  const over = new AbortController();
  const until = async (act: () => Promise<unknown>): Promise<void> => {
    while (!over.signal.aborted) await act();
  };
  const background = [
    until(() => scene.admin(server, 'repo', 'maintain', 'app')),
    until(() => cloned(scene, app)),
  ];
  const tips: string[] = [];
  for (let count = 0; count < 6; count += 1) {
    tips.push(await scene.commit(work, `file-${count}`, `content ${count}`));
    await scene.git(['push', '-q', app, 'main'], { cwd: work });
    await scene.admin(server, 'repo', 'fork', 'app', `fork-${count}`);
  }
  over.abort();
  await Promise.all(background);
  await scene.admin(server, 'repo', 'delete', 'app', '--yes');
  await server.restart();
  for (const [count, tip] of tips.entries()) {
    await scene.admin(server, 'repo', 'maintain', `fork-${count}`);
    assert.equal(await cloned(scene, server.httpUrl(`fork-${count}`)), tip);
  }
  assert.equal((await poolsOnDisk(server.dataDirectory)).length, 1);
  for (const count of tips.keys()) {
    await scene.admin(server, 'repo', 'delete', `fork-${count}`, '--yes');
  }
  await waitFor(
    'the pool to go',
    async () => (await poolsOnDisk(server.dataDirectory)).length === 0,
  );
});

test('the directory backend says why it makes no forks', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer({ backend: 'directory' });
  await scene.admin(server, 'repo', 'create', 'app');
  const refused = await scene.quorate(server, ['repo', 'fork', 'app', path.join('other', 'app')]);
  assert.equal(refused.exitCode, 1);
  assert.match(refused.stderr, /the directory backend makes no forks/);
});
