import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { getPriority, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { GitRunner } from './git-runner.js';
import { createGitRunner } from './runner.js';
import {
  noMeter,
  procFile,
  processesWith,
  quietLogger,
  TestRepository,
} from './testing/repository.js';
import { until } from '../contract/testing/until.js';

/** A command that runs a script, as a hook or an alias does. */
function shell(script: string): { args: string[]; config: Record<string, string> } {
  return { args: ['probe'], config: { 'alias.probe': `!${script}` } };
}

const blobBytes = 24 * 1024 * 1024;

describe('git runner', () => {
  let git: GitRunner;
  let repository: TestRepository;
  /** Incompressible, far more than any buffer between git and a reader. */
  let content: Buffer;
  let blob: string;
  let env: Record<string, string>;

  before(async () => {
    process.env['QUORATE_TEST_SECRET'] = 'do not pass on';
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
    repository = new TestRepository();
    content = randomBytes(blobBytes);
    const stored = await git.run({
      args: ['hash-object', '-w', '--stdin'],
      stdin: content,
      env: { GIT_DIR: repository.gitDir },
    });
    blob = stored.stdout.toString().trim();
    const tree = repository.git(['mktree'], `100644 blob ${blob}\tfile\n`);
    repository.git(['update-ref', 'refs/heads/main', repository.commit([], tree)]);
    env = { GIT_DIR: repository.gitDir };
  });

  after(async () => {
    await git.close();
    repository.remove();
    delete process.env['QUORATE_TEST_SECRET'];
  });

  it('knows its version and reports exit codes and stderr', async () => {
    assert.match(git.version, /^\d+\.\d+/);
    const result = await git.run({ args: ['cat-file', '-e', 'f'.repeat(40)], env });
    assert.equal(result.exitCode, 1);
    const bad = await git.run({ args: ['no-such-command'] });
    assert.equal(bad.exitCode, 1);
    assert.match(bad.stderr, /no-such-command/);
  });

  it('gives git a clean environment and an empty home', async () => {
    const { stdout } = await git.run(shell('env; pwd; ls -A; ls -A "$HOME"; ls /proc/self/fd'));
    const text = stdout.toString();
    assert.doesNotMatch(text, /QUORATE|do not pass on|NODE_/);
    const names = text.split('\n').flatMap((line) => /^(\w+)=/.exec(line)?.[1] ?? []);
    const expected = new Set(
      (
        'PATH LC_ALL HOME XDG_CONFIG_HOME GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_ATTR_NOSYSTEM ' +
        'GIT_NO_REPLACE_OBJECTS GIT_TERMINAL_PROMPT GIT_CEILING_DIRECTORIES GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 ' +
        'GIT_PREFIX PWD OLDPWD SHLVL _ GIT_EXEC_PATH'
      ).split(' '),
    );
    assert.deepEqual(
      names.filter((name) => !expected.has(name)),
      [],
    );
  });

  it('hands configuration over out of sight, and arguments as they are', async () => {
    const config = { 'quorate.a': 'x "y" \n z', 'quorate.B.c': '--option' };
    const read = await git.run({ args: ['config', '--null', '--get', 'quorate.a'], config });
    assert.equal(read.stdout.toString(), 'x "y" \n z\0');
    const strange = await git.run({
      args: ['rev-parse', '--sq-quote', '--', '$(id)', '--', '-x', "'", '*'],
    });
    assert.equal(strange.stdout.toString().trim(), String.raw`'--' '$(id)' '--' '-x' ''\''' '*'`);
  });

  it('refuses what the kernel would cut short', async () => {
    await assert.rejects(git.run({ args: ['version', 'a\0b'] }), { code: 'invalid-argument' });
    await assert.rejects(git.run({ args: ['version'], env: { X: 'a\0b' } }), {
      code: 'invalid-argument',
    });
    await assert.rejects(git.run({ args: ['version'], config: { 'a.b': '\0' } }), {
      code: 'invalid-argument',
    });
  });

  it('says when git cannot be run', async () => {
    await assert.rejects(git.run({ args: ['version'], cwd: join(repository.directory, 'none') }), {
      code: 'unavailable',
    });
  });

  it('does not block when git answers while it is still being written to', async () => {
    const lines = 150_000;
    const { stdout } = await git.run({
      args: ['cat-file', '--batch-check'],
      env,
      stdin: Buffer.from(`${'0'.repeat(40)}\n`.repeat(lines)),
    });
    assert.equal(
      stdout.length,
      lines * '0000000000000000000000000000000000000000 missing\n'.length,
    );
  });

  it('makes git wait for a reader that does not read, and loses nothing', async () => {
    const buffered = process.memoryUsage().arrayBuffers;
    const child = await git.stream({ args: ['cat-file', 'blob', blob], env });
    let exited = false;
    void child.exited.then(() => (exited = true));
    await once(child.stdout, 'readable');
    // Time for git to write it all, if it could.
    for (let round = 0; round < 20; round++) await git.run({ args: ['version'] });
    assert.equal(exited, false);
    assert.equal(git.running, 1);
    assert.ok(process.memoryUsage().arrayBuffers - buffered < blobBytes / 4);
    const hash = createHash('sha1').update(`blob ${blobBytes}\0`);
    for await (const chunk of child.stdout) hash.update(chunk);
    assert.equal(hash.digest('hex'), blob);
    assert.equal((await child.exited).exitCode, 0);
    assert.equal(git.running, 0);
  });

  it('pipes a stream in, at the pace of git', async () => {
    const { stdout } = await git.run({
      args: ['hash-object', '--stdin'],
      stdin: Readable.from([content.subarray(0, 100), content.subarray(100)]),
    });
    assert.equal(stdout.toString().trim(), blob);
  });

  it('ends git when its source fails, and so never takes a part for the whole', async () => {
    const source = new PassThrough();
    source.write('begin');
    const child = await git.stream({ args: ['hash-object', '--stdin'], stdin: source });
    source.destroy(new Error('client is gone'));
    const result = await child.exited;
    assert.equal(result.exitCode, null);
  });

  it('leaves a source alone that git does not read to its end', async () => {
    const source = new PassThrough();
    source.write(content);
    const { exitCode } = await git.run({ args: ['version'], stdin: source });
    assert.equal(exitCode, 0);
    assert.equal(source.destroyed, false);
    source.destroy();
  });

  it('keeps the end of stderr only, and passes all of it on', async () => {
    let seen = 0;
    const { stderr } = await git.run({
      ...shell('head -c 1000000 /dev/zero | tr "\\0" x >&2; echo end >&2; true'),
      onStderr: (bytes) => (seen += bytes.length),
    });
    assert.equal(stderr.length, 16 * 1024);
    assert.ok(stderr.endsWith('xend\n'));
    assert.equal(seen, 1_000_004);
  });

  it('bounds what it collects', async () => {
    await assert.rejects(
      git.run({ args: ['cat-file', 'blob', blob], env, maxStdoutBytes: 1_000_000 }),
      { code: 'resource-exhausted' },
    );
    assert.equal(git.running, 0);
  });

  it('kills the whole tree: upload-pack and its pack-objects', async () => {
    const marker = randomUUID();
    const want = `want ${repository.git(['rev-parse', 'main'])} ofs-delta\n`;
    const child = await git.stream({
      args: ['upload-pack', '--stateless-rpc', repository.gitDir],
      env: { QUORATE_TEST_MARKER: marker },
      stdin: Buffer.from(`${(want.length + 4).toString(16).padStart(4, '0')}${want}00000009done\n`),
    });
    await until('pack-objects runs', () =>
      processesWith(marker).some((line) => line.includes('pack-objects')),
    );
    child.kill();
    child.kill();
    const { exitCode, signal } = await child.exited;
    assert.equal(exitCode, null);
    assert.equal(signal, 'SIGTERM');
    await until('the tree is gone', () => processesWith(marker).length === 0);
  });

  it('ends a git whose reader goes away', async () => {
    const child = await git.stream(shell('sleep 1000'));
    child.stdout.destroy();
    assert.equal((await child.exited).exitCode, null);
  });

  it('kills what ignores SIGTERM', async () => {
    const marker = randomUUID();
    const child = await git.stream({
      ...shell('trap "" TERM; echo on; while :; do sleep 1; done'),
      env: { QUORATE_TEST_MARKER: marker },
    });
    await once(child.stdout, 'readable');
    child.kill();
    await child.exited;
    await until('it is killed', () => processesWith(marker).length === 0);
  });

  it('ends what a git leaves behind, unless that is asked for', async () => {
    const marker = randomUUID();
    const script = shell('sleep 1000 >/dev/null 2>&1 </dev/null & true');
    await git.run({ ...script, env: { QUORATE_TEST_MARKER: marker } });
    await until('the rest is gone', () => processesWith(marker).length === 0);

    await git.run({ ...script, env: { QUORATE_TEST_MARKER: marker }, leaveDescendants: true });
    const [left = ''] = processesWith(marker);
    assert.match(left, /sleep 1000/);
    process.kill(Number(left.split(' ')[0]));
  });

  it('aborts before the start, in the queue, and after the start', async () => {
    await assert.rejects(git.run({ args: ['version'], signal: AbortSignal.abort() }), {
      code: 'cancelled',
    });
    const controller = new AbortController();
    const running = git.run({ ...shell('sleep 1000'), signal: controller.signal });
    await until('it runs', () => git.running === 1);
    controller.abort();
    await assert.rejects(running, { code: 'cancelled' });
    assert.equal(git.running, 0);
  });

  it('ends what takes too long', async () => {
    const { exitCode } = await git.run({ ...shell('sleep 1000'), timeoutMs: 50 });
    assert.equal(exitCode, null);
  });

  it('lowers priority and limits memory', async () => {
    const { stdout } = await git.run({
      ...shell('nice; ionice; ulimit -d'),
      background: true,
      memoryLimitBytes: 512 * 1024 * 1024,
    });
    // The tests may themselves run at a low priority; there is none below 19.
    const priority = Math.min(19, getPriority() + 10);
    assert.deepEqual(stdout.toString().trim().split('\n'), [
      String(priority),
      'idle',
      String(512 * 1024),
    ]);
  });

  it('converses', async () => {
    const conversation = await git.converse({ args: ['cat-file', '--batch-check'], env });
    await conversation.write(`${blob}\n`);
    const [answer] = await once(conversation.stdout, 'data');
    assert.equal(String(answer), `${blob} blob ${blobBytes}\n`);
    conversation.end();
    assert.equal((await conversation.exited).exitCode, 0);
    await assert.rejects(conversation.write('x\n'), { code: 'unavailable' });
  });

  it('passes a second server off, and outlives its own helpers', async () => {
    const marker = randomUUID();
    const own = await createGitRunner({ logger: quietLogger, meter: noMeter, helpers: 1 });
    try {
      const before = new Set(helperPids());
      const stream = await own.stream({
        ...shell('sleep 1000'),
        env: { QUORATE_TEST_MARKER: marker },
      });
      const run = own.run({ ...shell('sleep 1000'), env: { QUORATE_TEST_MARKER: marker } });
      const outcome = assert.rejects(run, { code: 'unavailable' });
      await until('both run', () => own.running === 2);
      for (const pid of before) process.kill(pid, 'SIGKILL');
      assert.equal((await stream.exited).exitCode, null);
      await outcome;
      await until('orphans are ended', () => processesWith(marker).length === 0);
      assert.equal((await own.run({ args: ['version'] })).exitCode, 0);
      assert.equal((await git.run({ args: ['version'] })).exitCode, 0);
    } finally {
      await own.close();
    }
  });

  it('bounds what runs and what waits, first come first served', async () => {
    const own = await createGitRunner({
      logger: quietLogger,
      meter: noMeter,
      helpers: 1,
      limits: { runs: 1, queued: 2, streams: 1 },
    });
    try {
      const controller = new AbortController();
      const first = own.run({ ...shell('sleep 1000'), signal: controller.signal });
      const order: number[] = [];
      const waiting = [1, 2].map((n) => own.run({ args: ['version'] }).then(() => order.push(n)));
      await assert.rejects(own.run({ args: ['version'] }), { code: 'resource-exhausted' });
      // A stream and a conversation have places of their own, so that neither can be what a run waits for.
      const stream = await own.stream({ args: ['version'] });
      stream.stdout.resume();
      await stream.exited;
      controller.abort();
      await assert.rejects(first, { code: 'cancelled' });
      await Promise.all(waiting);
      assert.deepEqual(order, [1, 2]);
    } finally {
      await own.close();
    }
  });

  it('leaves nothing when it closes, and refuses afterwards', async () => {
    const marker = randomUUID();
    const own = await createGitRunner({ logger: quietLogger, meter: noMeter });
    const stream = await own.stream({
      ...shell('sleep 1000 & sleep 1000'),
      env: { QUORATE_TEST_MARKER: marker },
    });
    await Promise.all([own.close(), own.close()]);
    assert.equal((await stream.exited).exitCode, null);
    assert.deepEqual(processesWith(marker), []);
    await assert.rejects(own.run({ args: ['version'] }), { code: 'unavailable' });
  });

  it('is not harmed by a start on a copy of its run directory', async () => {
    const original = mkdtempSync(join(tmpdir(), 'quorate-test-run-'));
    const copy = `${original}-copy`;
    const options = { logger: quietLogger, meter: noMeter };
    const first = await createGitRunner({ ...options, runDirectory: original });
    await cp(original, copy, { recursive: true, filter: (name) => !name.endsWith('.lock') });
    const second = await createGitRunner({ ...options, runDirectory: copy });
    await second.close();
    try {
      assert.equal((await first.run({ args: ['version'] })).exitCode, 0);
    } finally {
      await first.close();
      for (const directory of [original, copy]) rmSync(directory, { recursive: true });
    }
  });

  it('keeps what git needs out of the temporary directory, where old files are removed', async () => {
    const runDirectory = mkdtempSync(join(tmpdir(), 'quorate-test-run-'));
    const own = await createGitRunner({ logger: quietLogger, meter: noMeter, runDirectory });
    const { stdout } = await own.run(shell('echo "$HOME"; pwd; echo "$GIT_CONFIG_GLOBAL"'));
    const places = stdout.toString().trim().split('\n');
    assert.equal(places.length, 3);
    await own.close();
    rmSync(runDirectory, { recursive: true });
    for (const place of places) assert.ok(place.startsWith(join(runDirectory, 'git')), place);
  });

  for (const desc of ['the server', 'the server and its helpers'] as const) {
    it(`leaves no git when ${desc} is killed, and the next one waits for that`, async (t) => {
      const marker = randomUUID();
      const runDirectory = mkdtempSync(join(tmpdir(), 'quorate-test-run-'));
      const victim = spawn(
        process.execPath,
        [
          fileURLToPath(new URL('./testing/victim.js', import.meta.url)),
          runDirectory,
          repository.gitDir,
          blob,
          marker,
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      t.after(() => victim.kill('SIGKILL'));
      await once(victim.stdout, 'data');
      const directory = helperDirectory(victim.pid ?? 0);
      await until('all of it runs', () => processesWith(marker).length >= 6);
      const helpers = desc === 'the server' ? [] : childrenOf(victim.pid ?? 0);
      victim.kill('SIGKILL');
      for (const pid of helpers) process.kill(pid, 'SIGKILL');

      const next = await createGitRunner({ logger: quietLogger, meter: noMeter, runDirectory });
      assert.deepEqual(processesWith(marker), []);
      await next.close();
      await until('its directory is gone', () => !existsSync(directory));
      rmSync(runDirectory, { recursive: true, force: true });
    });
  }
});

/** Helpers of this process. */
function helperPids(): number[] {
  return childrenOf(process.pid);
}

function childrenOf(parent: number): number[] {
  return processesWith('spawner/helper.js')
    .map((line) => Number(line.split(' ')[0]))
    .filter((pid) => readParent(pid) === parent);
}

function readParent(pid: number): number {
  const stat = procFile(pid, 'stat');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

/** The temporary directory of a server, from the environment of its helper. */
function helperDirectory(server: number): string {
  const [helper] = childrenOf(server);
  const environment = procFile(helper ?? 0, 'environ').split('\0');
  const socket = environment.find((line) => line.startsWith('QUORATE_SPAWN_SOCKET='));
  assert.ok(socket !== undefined);
  return dirname(socket.slice(socket.indexOf('=') + 1));
}
