import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Finished, Scene, ServerProcess } from './harness.js';
import { mainScript } from './server-process.js';

/* Every command of `quorate`, as people type it, against a real server. */
describe('the command line', () => {
  let scene: Scene;
  let server: ServerProcess;
  let source: string;
  before(async () => {
    scene = await createScene();
    server = await scene.startServer();
    source = await scene.makeRepository({ commits: 20 });
  });
  after(() => scene.close());

  const quorate = (...args: readonly string[]): Promise<string> => scene.admin(server, ...args);
  const json = async (...args: readonly string[]): Promise<unknown> =>
    JSON.parse(await quorate(...args, '--json'));
  const fails = async (...args: readonly string[]): Promise<string> => {
    const result = await scene.quorate(server, args);
    assert.notEqual(result.exitCode, 0);
    assert.match(result.stderr, /^quorate: [^\n]+\n$/);
    return result.stderr;
  };

  test('a user gets a token, and pushes and clones with it until disabled', async () => {
    await quorate('user', 'add', 'ann');
    assert.match(await quorate('user', 'list'), /^ann +no +yes +no /m);
    const token = (
      await quorate('token', 'create', 'ann', '--name', 'laptop', '--expires', '30d')
    ).trim();
    assert.match(await quorate('token', 'list', 'ann'), /^[0-9a-f]+ +ann +write +all .* laptop$/m);

    const url = withToken('team/app.git', token);
    await scene.git(['push', url, 'main'], { cwd: source });
    assert.match(await quorate('repo', 'show', 'team/app'), /^grant ann: +admin$/m);
    await scene.git(['clone', '-q', url, scene.path('work', 'clone')]);

    await quorate('user', 'disable', 'ann');
    assert.notEqual((await scene.tryGit(['ls-remote', url])).exitCode, 0);
    await quorate('user', 'enable', 'ann');
    await scene.git(['ls-remote', url]);
    const id = /^[0-9a-f]+(?= +ann)/m.exec(await quorate('token', 'list', 'ann'))?.[0] ?? '';
    await quorate('token', 'revoke', id);
    assert.notEqual((await scene.tryGit(['ls-remote', url])).exitCode, 0);
  });

  test('a key opens SSH until it is removed', async () => {
    const key = await scene.sshKey();
    const added = await quorate('key', 'add', 'admin', key.publicKeyFile);
    const fingerprint = /SHA256:\S+/.exec(added)?.[0] ?? '';
    assert.match(await quorate('key', 'list', 'admin'), /^SHA256:\S+ +admin +ssh-ed25519 /m);
    const ssh = async () =>
      (await scene.run('ssh', [...(await key.sshArguments(server))])).stdout + fingerprint;
    assert.match(await ssh(), /admin/);
    const line = await readFile(key.publicKeyFile, 'utf8');
    const again = await scene.quorate(server, ['key', 'add', 'admin', '-'], { stdin: line });
    assert.match(again.stderr, /^quorate: admin has this key already\n$/);
    await quorate('key', 'remove', fingerprint);
    assert.equal((await quorate('key', 'list', 'admin')).includes(fingerprint), false);
    assert.notEqual((await scene.run('ssh', [...(await key.sshArguments(server))])).exitCode, 0);
  });

  test('repositories are made, changed, granted, renamed and deleted', async () => {
    await quorate('repo', 'create', 'group/one.git', '--default-branch', 'trunk', '--public');
    await quorate('repo', 'set', 'group/one', 'receive.denyDeletes=true', '--private');
    await quorate('user', 'add', 'bob');
    await quorate('repo', 'grant', 'group/one', 'bob', 'write');
    const shown = await quorate('repo', 'show', 'group/one');
    assert.match(shown, /^visibility: +private\nHEAD: +refs\/heads\/trunk$/m);
    assert.match(shown, /^grant bob: +write$/m);
    assert.match(shown, /^receive\.denyDeletes: +true$/m);

    const url = withToken('group/one.git', server.adminToken);
    await scene.git(['push', url, 'main:trunk', 'main:other'], { cwd: source });
    assert.notEqual((await scene.tryGit(['push', url, ':other'], { cwd: source })).exitCode, 0);
    await quorate('repo', 'set', 'group/one', '--unset', 'receive.denyDeletes');
    await scene.git(['push', url, ':other'], { cwd: source });
    assert.match(
      await fails('repo', 'set', 'group/one', 'receive.denyDelete=1'),
      /did you mean receive\.denyDeletes\?/,
    );

    await quorate('repo', 'revoke', 'group/one', 'bob');
    await quorate('repo', 'rename', 'group/one', 'group/two');
    assert.match(await quorate('repo', 'list', '--prefix', 'group/'), /^group\/two +private/m);
    await scene.git(['ls-remote', withToken('group/two', server.adminToken)]);
    assert.match(await fails('repo', 'delete', 'group/two'), /add --yes/);
    await quorate('repo', 'delete', 'group/two', '--yes');
    assert.match(await fails('repo', 'show', 'group/two'), /there is no repository group\/two/);
  });

  test('an import brings all refs, and HEAD; maintenance packs them', async () => {
    await scene.git(['tag', 'v1'], { cwd: source });
    const refs = await scene.git(['for-each-ref', '--format=%(objectname) %(refname)'], {
      cwd: source,
    });
    assert.match(
      await quorate('repo', 'import', 'moved/app', source),
      /^imported 2 refs into moved\/app\n$/,
    );
    const remote = await scene.git([
      'ls-remote',
      withToken('moved/app', server.adminToken),
      'refs/*',
    ]);
    assert.equal(remote.replaceAll('\t', ' '), refs);
    assert.match(await quorate('repo', 'maintain', 'moved/app'), /^packs: +\d+ -> 1$/m);
  });

  test('a failed import leaves nothing', async () => {
    assert.match(
      await fails('repo', 'import', 'moved/ext', 'ext::sh -c true'),
      /cannot import from that source/,
    );
    const result = await scene.quorate(server, [
      'repo',
      'import',
      'moved/gone',
      scene.path('nowhere'),
    ]);
    assert.equal(result.exitCode, 1);
    assert.match(
      result.stderr,
      /\nquorate: the source cannot be reached: fatal: '\/\S*nowhere' does not appear to be a git repository\n/,
    );
    await fails('repo', 'show', 'moved/gone');
  });

  async function refused(credentials: { user: string; token: string } | null): Promise<string> {
    const url = server.httpUrl('moved/hidden', credentials);
    const result = await scene.quorate(server, ['repo', 'import', 'moved/copy', url]);
    assert.equal(result.exitCode, 1);
    return result.stderr;
  }

  test('an import from a source that wants credentials says what to do', async () => {
    await quorate('repo', 'create', 'moved/hidden');
    assert.match(
      await refused(null),
      /\nquorate: the source cannot be reached: it wants to know who asks; put a user and a password \(or token\) into the URL: https:\/\/USER:TOKEN@HOST\/PATH\n$/,
    );
    const wrong = await refused({ user: 'admin', token: 'a-wrong-one' });
    assert.match(
      wrong,
      /: it does not accept the user and password \(or token\) in the URL; check/,
    );
    assert.ok(!wrong.includes('a-wrong-one'));
    await fails('repo', 'show', 'moved/copy');
  });

  test('the one store is shown, its repositories are verified, and pushes explained', async () => {
    const url = withToken('shown/app.git', server.adminToken);
    await scene.git(['push', url, 'main'], { cwd: source });
    assert.match(await quorate('node', 'list'), /^local +alive /m);
    assert.match(
      await quorate('repo', 'replicas', 'shown/app'),
      /^local +voter +alive +- +1 +0 +yes/m,
    );
    assert.match(await quorate('repo', 'verify', '--all'), /^shown\/app +local +1 +none$/m);

    const audit = await quorate('audit', '--repo', 'shown/app', '--json');
    const pushId = /"pushId":\s*"([0-9a-f]+)"/.exec(audit)?.[1] ?? '';
    const story = await quorate('explain', 'push', pushId);
    assert.match(story, /^repository: +shown\/app$/m);
    assert.match(story, /^\d+ ms +committed +- +generation 1$/m);
    assert.match(await fails('explain', 'push', 'nobody'), /remembered for a day/);
    for (const args of [
      ['node', 'drain', 'local'],
      ['node', 'remove', 'local'],
      ['repo', 'move', 'shown/app', '--anywhere'],
      ['repo', 'recover', 'shown/app'],
    ]) {
      assert.match(await fails(...args), /not possible: this server is no member of a cluster, /);
    }
  });

  test('damage that nothing can heal is named, and mended as the documentation says', async () => {
    const url = withToken('damaged/app.git', server.adminToken);
    await scene.git(['push', url, 'main'], { cwd: source });
    const copies = await json('repo', 'verify', 'damaged/app');
    assert.ok(Array.isArray(copies));
    const id: string = copies[0].repositoryId;
    const packs = join(server.dataDirectory, 'store/repos', id.slice(0, 2), id, 'git/objects/pack');
    const pack = join(packs, (await readdir(packs)).find((name) => name.endsWith('.pack')) ?? '');
    const bytes = await readFile(pack);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    await chmod(pack, 0o600);
    await writeFile(pack, bytes);
    const verified = await scene.quorate(server, ['repo', 'verify', '--all']);
    assert.equal(verified.exitCode, 1);
    assert.match(verified.stdout, /\ndamaged\/app on local:\n.*\.pack/);
    assert.match(verified.stderr, new RegExp(`healed from: damaged/app \\(id ${id}\\); docs/`));

    await scene.git(['pack-objects', '-q', '--all', join(packs, 'pack')], { cwd: source });
    await quorate('repo', 'maintain', 'damaged/app');
    assert.match(await quorate('repo', 'verify', 'damaged/app'), / none$/m);
    await scene.git(['clone', '-q', url, scene.path('work', 'mended')]);
  });

  test('Ctrl-C ends an import on the server, with its git, and leaves nothing', async () => {
    // A Git server that accepts and never says a word.
    const sockets = new Set<{ destroy(): unknown }>();
    const silent = createServer((socket) => sockets.add(socket.on('error', () => undefined)));
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const address = silent.address();
    assert.ok(address !== null && typeof address === 'object');
    const child = spawn(
      process.execPath,
      [mainScript, 'repo', 'import', 'moved/slow', `git://127.0.0.1:${address.port}/x`],
      { env: environment(), stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    await waitFor('git to connect', () => sockets.size > 0);
    child.kill('SIGINT');
    await once(child, 'close');
    assert.equal(child.exitCode, 130);
    assert.match(stderr, /quorate: interrupted; the server has been told to stop\n$/);
    await waitFor('the repository to be taken back', async () => {
      const result = await scene.quorate(server, ['repo', 'show', 'moved/slow']);
      return result.exitCode === 1;
    });
    silent.close();
    for (const socket of sockets) socket.destroy();
  });

  test('status and locks', async () => {
    const status = await quorate('status');
    assert.match(status, /^backend: +local$/m);
    assert.match(status, /^object engine: +.*git \d/m);
    assert.match(status, new RegExp(`^http: +${server.url}$`, 'm'));
    await waitFor('the locks to go', async () => (await quorate('locks')) === '');
    assert.deepEqual(await json('locks'), []);
    assert.match(JSON.stringify(await json('status')), /"storage":\{"backend":"local"/);
  });

  test('the data directory is enough to find the server and its token', async () => {
    const result = await scene.run(process.execPath, [
      mainScript,
      'status',
      '--data',
      server.dataDirectory,
    ]);
    assert.equal(result.exitCode, 0, result.stderr);
  });

  test('on a terminal long work shows bars, and deleting asks', async () => {
    const imported = await onTerminal(['repo', 'import', 'moved/bars', source]);
    assert.match(imported, /storing +[█░]+ \d+% \| \d+\/\d+/);
    assert.match(imported, /imported 2 refs into moved\/bars/);
    const maintained = await onTerminal(['repo', 'maintain', 'moved/bars']);
    assert.match(maintained, /█+ 100% \| /);
    const kept = await onTerminal(['repo', 'delete', 'moved/bars'], 'n\n');
    assert.match(kept, /quorate: moved\/bars was not deleted/);
    await onTerminal(['repo', 'delete', 'moved/bars'], 'y\n');
    await fails('repo', 'show', 'moved/bars');
  });

  test('what was done is in the audit log, and no secret', async () => {
    const file = join(server.dataDirectory, 'audit.jsonl');
    // Events are gathered for a while before they are written.
    await scene.admin(server, 'audit', '--limit', '1');
    const text = await readFile(file, 'utf8');
    for (const action of [
      'user.create',
      'token.create',
      'key.add',
      'repository.import',
      'repository.delete',
    ]) {
      assert.ok(text.includes(`"action":"${action}"`), action);
    }
    assert.ok(!text.includes(server.adminToken) && !server.logs().includes(server.adminToken));
  });

  function withToken(name: string, token: string): string {
    return `${server.url.replace('http://', `http://x:${token}@`)}/${name}`;
  }

  function environment(): Record<string, string> {
    return { ...scene.env, QUORATE_URL: server.url, QUORATE_TOKEN: server.adminToken };
  }

  /** Under `script`, which gives the command a terminal. Answers what came onto the screen. */
  async function onTerminal(args: readonly string[], typed = ''): Promise<Finished['stdout']> {
    const words = [process.execPath, mainScript, ...args].map((word) => `'${word}'`).join(' ');
    const child = spawn('script', ['-q', '-e', '-c', words, '/dev/null'], {
      env: { ...environment(), TERM: 'xterm', SHELL: '/bin/sh' },
      stdio: 'pipe',
      timeout: 180_000,
    });
    let screen = '';
    let answered = typed === '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      screen += text;
      // What is asked may come in parts.
      if (answered || !screen.includes('[y/N]')) return;
      answered = true;
      child.stdin.write(typed);
    });
    await once(child, 'close');
    child.stdin.destroy();
    return screen;
  }
});
