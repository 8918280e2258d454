import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { readFile, stat } from 'node:fs/promises';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { processesUsing } from './processes.js';
import { mainScript } from './server-process.js';

describe('a first start', () => {
  let scene: Scene;
  let server: ServerProcess;
  before(async () => {
    scene = await createScene();
    server = await scene.startServer();
  });
  after(() => scene.close());

  /** Lines to paste are for a shell, so a shell runs them. */
  async function paste(line: string, env: Readonly<Record<string, string>>, cwd: string) {
    const result = await scene.run('bash', ['-c', line], { env, cwd });
    assert.equal(result.exitCode, 0, `${line}\n${result.stdout}${result.stderr}`);
  }

  async function get(path: string): Promise<{ status: number; text: string }> {
    const response = await fetch(server.opsUrl + path);
    return { status: response.status, text: await response.text() };
  }

  function printedLine(start: string): string {
    const line = server.stdout.split('\n').find((text) => text.startsWith(start));
    assert.ok(line !== undefined, `no line starts with ${start}:\n${server.stdout}`);
    return line;
  }

  test('makes an administrator whose token only this system user can read, and logs no secret', async () => {
    const file = `${server.dataDirectory}/admin-token`;
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.equal((await stat(server.dataDirectory)).mode & 0o777, 0o700);
    const token = (await readFile(file, 'utf8')).trim();
    assert.ok(token.length >= 20);
    assert.ok(!server.stdout.includes(token) && !server.logs().includes(token));
  });

  test('prints lines that work when they are pasted', async () => {
    const repository = await scene.makeRepository({ commits: 3 });
    const head = await scene.git(['rev-parse', 'HEAD'], { cwd: repository });
    await paste(printedLine('git config --global credential.'), {}, scene.directory);
    await paste(printedLine('git push http://'), {}, repository);
    await paste(printedLine('git clone http://'), {}, scene.path('work'));
    assert.equal(await scene.git(['rev-parse', 'HEAD'], { cwd: scene.path('work', 'demo') }), head);

    const key = await scene.sshKey();
    const addKey = printedLine(`node `).replace('~/.ssh/id_ed25519.pub', key.publicKeyFile);
    assert.match(addKey, / key add admin /);
    // The path of the program is relative to where the server was started.
    await paste(
      addKey.replace(/^node \S+/, `"${process.execPath}" "${mainScript}"`),
      {},
      scene.directory,
    );
    const ssh = await key.environment(server);
    await paste(printedLine('git clone ssh://'), ssh, scene.path('work'));
    assert.equal(
      await scene.git(['rev-parse', 'HEAD'], { cwd: scene.path('work', 'demo-ssh') }),
      head,
    );
  });

  test('answers on the operations address', async () => {
    assert.equal((await get('/healthz')).status, 200);
    const ready = await get('/readyz');
    assert.equal(ready.status, 200, ready.text);
    assert.match((await get('/metrics')).text, /^quorate_build_info\{/m);
    assert.deepEqual(JSON.parse((await get('/debug/locks')).text), { count: 0, locks: [] });
    assert.equal((await get('/nothing')).status, 404);
  });

  test('is the only server on its data directory', async () => {
    const second = await scene.launchServer({ dataDirectory: server.dataDirectory });
    const { exitCode } = await second.exited();
    assert.equal(exitCode, 1);
    assert.match(second.logs(), /quorate: the data directory is in use by another quorate server/);
    assert.equal((await fetch(`${server.opsUrl}/readyz`)).status, 200);
  });

  test('stops on SIGTERM, and the next start is on the same data and says nothing to paste', async () => {
    const token = server.adminToken;
    const printed = server.stdout.length;
    await server.restart();
    assert.equal(server.adminToken, token);
    assert.doesNotMatch(server.stdout.slice(printed), /git push/);
    const listed = await scene.git(['ls-remote', server.httpUrl('demo.git')]);
    assert.match(listed, /\trefs\/heads\/main$/m);
  });
});

test('SIGTERM: not ready, nothing new is accepted, what runs is finished', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const url = new URL(`${server.url}/repo.git/git-receive-pack`);
  const auth = Buffer.from(`admin:${server.adminToken}`).toString('base64');
  await scene.admin(server, 'repo', 'create', 'repo');
  // A push whose body is not complete: it runs until we end it.
  const running = request(url, {
    method: 'POST',
    headers: {
      authorization: `Basic ${auth}`,
      'content-type': 'application/x-git-receive-pack-request',
      expect: '100-continue',
    },
  });
  const continued = new Promise((resolve) => running.once('continue', resolve));
  const answered = new Promise<number | undefined>((resolve, reject) => {
    running.once('response', (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode));
    });
    running.once('error', reject);
  });
  running.flushHeaders();
  await continued;
  running.write('0000');

  process.kill(server.pid, 'SIGTERM');
  await waitFor(
    'readiness to end',
    async () => (await fetch(`${server.opsUrl}/readyz`)).status === 503,
  );
  await assert.rejects(fetch(server.url), 'a new connection is refused');
  assert.ok(server.running);
  running.end();
  assert.equal(await answered, 200);
  assert.deepEqual(await server.exited(), { exitCode: 0, signal: null });
});

test('a second signal ends the server at once', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const idle = request(`${server.url}/a.git/git-receive-pack`, {
    method: 'POST',
    headers: {
      authorization: `Basic ${Buffer.from(`admin:${server.adminToken}`).toString('base64')}`,
      'content-type': 'application/x-git-receive-pack-request',
      expect: '100-continue',
    },
  });
  const broken = new Promise((resolve) => idle.once('error', resolve));
  const continued = new Promise((resolve) => idle.once('continue', resolve));
  idle.flushHeaders();
  await continued;
  process.kill(server.pid, 'SIGTERM');
  await waitFor('the drain', async () => (await fetch(`${server.opsUrl}/readyz`)).status === 503);
  // One that follows within half a second is taken for the same one.
  await waitFor('the server to end', () => {
    if (server.running) process.kill(server.pid, 'SIGTERM');
    return !server.running;
  });
  assert.deepEqual(await server.exited(), { exitCode: 1, signal: null });
  await broken;
});

const refusedStarts = [
  {
    desc: 'an unknown setting',
    flags: ['--set', 'htp=1'],
    status: 2,
    says: /^quorate: htp in the flag --set htp=1 is no setting; did you mean http\?$/m,
  },
  {
    desc: 'a wrong value',
    flags: ['--log-level', 'loud'],
    status: 2,
    says: /^quorate: log.level in the flag --log-level wants debug or info/m,
  },
  {
    desc: 'no authentication for the world',
    flags: ['--no-auth', '--http', '0.0.0.0:0'],
    status: 2,
    says: /^quorate: noAuth in the flag --no-auth is refused, since http/m,
  },
  { desc: 'an unknown flag', flags: ['--htpp', '1'], status: 2, says: /^quorate: .*--htpp/m },
  {
    desc: 'an address that is not ours',
    flags: ['--http', '192.0.2.1:80'],
    status: 1,
    says: /^quorate: http cannot listen on 192.0.2.1:80: this machine has no such address; choose another address with --http HOST:PORT$/m,
  },
];
for (const { desc, flags, status, says } of refusedStarts) {
  test(`a start is refused in one sentence, with nothing left running: ${desc}`, async (t) => {
    const scene = await createScene(t);
    const server = await scene.launchServer({ flags });
    const { exitCode } = await server.exited();
    assert.equal(exitCode, status);
    // The last that is said, so that nobody has to look for it.
    assert.match(server.logs(), says);
  });
}

test('a start on a port in use says which, and leaves nothing running', async (t) => {
  const scene = await createScene(t);
  const blocker = createServer();
  const port = await new Promise<number>((resolve) => {
    blocker.listen(0, '127.0.0.1', () => {
      const address = blocker.address();
      assert.ok(typeof address === 'object' && address !== null);
      resolve(address.port);
    });
  });
  t.after(() => blocker.close());
  for (const key of ['http', 'ssh', 'ops']) {
    const server = await scene.launchServer({ flags: [`--${key}`, `127.0.0.1:${port}`] });
    const { exitCode } = await server.exited();
    assert.equal(exitCode, 1, server.logs());
    const says = new RegExp(
      `^quorate: ${key} cannot listen on 127.0.0.1:${port}: another program uses it .*--${key} HOST:PORT$`,
      'm',
    );
    assert.match(server.logs().trimEnd().split('\n').at(-1) ?? '', says);
  }
});

test('kill -9 leaves no process, and the next start serves what was pushed', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const repository = await scene.makeRepository({ commits: 2 });
  await scene.git(['push', '-q', server.httpUrl('team/app.git'), 'main'], { cwd: repository });
  await server.kill('SIGKILL');
  await waitFor('its processes to end', async () => {
    return (await processesUsing(scene.directory)).length === 0;
  });
  await server.restart();
  const head = (await scene.git(['rev-parse', 'main'], { cwd: repository })).trim();
  const listed = await scene.git(['ls-remote', server.httpUrl('team/app'), 'refs/heads/main']);
  assert.equal(listed, `${head}\trefs/heads/main\n`);
});
