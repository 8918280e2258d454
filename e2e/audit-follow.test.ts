import assert from 'node:assert/strict';
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { createScene, waitFor, type Scene, type ServerProcess } from './harness.js';
import { mainScript } from './server-process.js';

let scene: Scene;
let server: ServerProcess;

before(async () => {
  scene = await createScene();
  // Small files, so that the log is set aside while it is followed; and a stop that would be waited for in vain.
  const settings = ['audit.maxFileSize=2k', 'shutdown.grace=10m'];
  server = await scene.startServer({ flags: settings.flatMap((setting) => ['--set', setting]) });
});
after(() => scene.close());

interface Follower {
  readonly child: ChildProcessWithoutNullStreams;
  /** Everything on stdout so far. */
  readonly said: () => string;
}

function follow(...args: readonly string[]): Follower {
  const child = spawn(process.execPath, [mainScript, 'audit', '--follow', ...args], {
    env: { ...scene.env, QUORATE_URL: server.url, QUORATE_TOKEN: server.adminToken },
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return { child, said: () => text };
}

async function end({ child }: Follower): Promise<number | null> {
  const closed = once(child, 'close');
  child.kill('SIGINT');
  await closed;
  return child.exitCode;
}

const add = (user: string): Promise<string> => scene.admin(server, 'user', 'add', user);

test('what happens is shown as it happens, over files that are set aside and a restart', async () => {
  await add('before');
  const follower = follow('--event', 'admin', '--json');
  try {
    await waitFor('what was before', () => follower.said().includes('"before"'));
    for (let n = 0; n < 30; n += 1) await add(`u${n}`);
    await waitFor('the last of them', () => follower.said().includes('"u29"'));
    await server.restart();
    await add('later');
    await waitFor('what is after the restart', () => follower.said().includes('"later"'));
  } finally {
    assert.equal(await end(follower), 0);
  }
  const users = [...follower.said().matchAll(/"name":"(\w+)"/g)].map(([, name]) => name);
  const expected = ['before', ...Array.from({ length: 30 }, (_, n) => `u${n}`), 'later'];
  assert.deepEqual(users, expected, 'each once, in order');
  assert.doesNotMatch(follower.said(), /"event":"authentication"/);
});

test('following is one request: it does not fill the log with itself', async () => {
  const follower = follow('--limit', '1');
  try {
    await waitFor('its beginning', () => follower.said() !== '');
    await add('someone');
    await waitFor('it', () => / admin .* ok .* admin .*name=someone.*\n/.test(follower.said()));
    const lines = (): number => follower.said().split('\n').length;
    const seen = lines();
    await add('another');
    await waitFor('the other', () => /name=another.*\n/.test(follower.said()));
    // The two of them: who signed in, and what was done.
    assert.ok(lines() - seen <= 2, follower.said());
  } finally {
    await end(follower);
  }
});

test('a stop of the server does not wait for followers; others may not follow', async () => {
  const token = (await scene.admin(server, 'token', 'create', 'someone')).trim();
  const refused = await scene.quorate(server, ['audit', '--follow'], { token });
  assert.equal(refused.exitCode, 1);
  assert.match(refused.stderr, /needs a server administrator/);
  const wrong = await scene.quorate(server, ['audit', '--follow', '--since', '2h']);
  assert.equal(wrong.exitCode, 2);
  const follower = follow('--event', 'admin');
  await waitFor('its beginning', () => follower.said().includes('name='));
  process.kill(server.pid, 'SIGTERM');
  assert.deepEqual(await server.exited(), { exitCode: 0, signal: null });
  await end(follower);
});
