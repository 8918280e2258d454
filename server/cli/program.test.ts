import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import type { ApiScene } from '../admin/testing/api-scene.js';
import { CliScene } from './testing/cli-scene.js';
import { type Outcome, quorateCommand, type RunOptions } from './testing/run-quorate.js';
import { until } from '../../backends/contract/testing/until.js';

let cli: CliScene;
let scene: ApiScene;
let env: Readonly<Record<string, string>>;
let directory: string;

before(async () => {
  cli = await CliScene.open();
  ({ server: scene, env, directory } = cli);
});
after(() => cli.close());

const quorate = (args: readonly string[], options: RunOptions = {}): Promise<Outcome> =>
  cli.quorate(args, options);

/** Runs a command that has to succeed; answers its stdout. */
const ok = async (...args: readonly string[]): Promise<string> => {
  const outcome = await quorate(args);
  assert.equal(outcome.exitCode, 0, `quorate ${args.join(' ')}: ${outcome.stderr}`);
  return outcome.stdout;
};
const okJson = async (...args: readonly string[]): Promise<unknown> =>
  JSON.parse(await ok(...args, '--json'));

describe('commands', () => {
  test('users', async () => {
    assert.equal(await ok('user', 'add', 'ann', '--no-create'), 'added user ann\n');
    assert.match(
      await ok('user', 'list'),
      /^NAME +ADMIN +CREATES +DISABLED +CREATED \(UTC\)\nann +no +no +no +20/m,
    );
    assert.equal(await ok('user', 'disable', 'ann'), 'disabled user ann\n');
    assert.equal((await scene.accounts.getUser('ann'))?.disabled, true);
    assert.equal(await ok('user', 'enable', 'ann'), 'enabled user ann\n');
    assert.equal((await scene.accounts.getUser('ann'))?.disabled, false);
    assert.match(JSON.stringify(await okJson('user', 'list')), /^\[\{"name":"ann","admin":false,/);
    assert.match(JSON.stringify(await okJson('user', 'add', 'bob', '--admin')), /"admin":true/);
  });

  test('keys', async () => {
    const line = `ssh-ed25519 ${Buffer.concat([field('ssh-ed25519'), field('k'.repeat(32))]).toString('base64')} ann@laptop`;
    const file = join(directory, 'id.pub');
    await writeFile(file, `# mine\n${line}\n`);
    const added = await ok('key', 'add', 'root', file);
    const fingerprint = /SHA256:\S+/.exec(added)?.[0] ?? '';
    assert.match(
      await ok('key', 'list', 'root'),
      new RegExp(
        `^FINGERPRINT.*\\n${fingerprint.replaceAll('+', '\\+')}  root  ssh-ed25519 .* ann@laptop\\n$`,
      ),
    );
    assert.equal(await ok('key', 'remove', fingerprint), `removed ${fingerprint}\n`);
    const none = await quorate(['key', 'list', 'root']);
    assert.deepEqual([none.stdout, none.stderr], ['', 'there are no keys\n']);
    const empty: readonly (readonly [words: string, said: string])[] = [
      ['repo list --prefix nobody/', 'there are no repositories\n'],
      ['rule list --server', 'there are no rules\n'],
    ];
    for (const [words, said] of empty) {
      const { exitCode, stdout, stderr } = await quorate(words.split(' '));
      assert.deepEqual([exitCode, stdout, stderr], [0, '', said]);
    }
    for (const args of [
      ['key', 'list', 'nobody'],
      ['token', 'list', 'nobody'],
      ['signing-key', 'list', 'nobody'],
    ]) {
      const { exitCode, stderr } = await quorate(args);
      assert.deepEqual([exitCode, stderr], [1, 'quorate: there is no user nobody\n']);
    }
    const { stderr } = await quorate(['key', 'remove', fingerprint]);
    assert.equal(stderr, `quorate: there is no key ${fingerprint}\n`);
    const unread = await quorate(['key', 'add', 'root', join(directory, 'no.pub')]);
    assert.match(unread.stderr, /^quorate: cannot read \S+no\.pub: there is no such file\n$/);
    assert.deepEqual(await okJson('key', 'list', 'root'), []);
    const piped = await quorate(['key', 'add', 'root', '-', '--json'], { stdin: line });
    assert.match(piped.stdout, /"fingerprint":"SHA256:/);
  });

  test('a private key is not sent', async () => {
    const stdin = '-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n';
    const audited = scene.audited.length;
    const outcome = await quorate(['key', 'add', 'root', '-'], { stdin });
    assert.equal(outcome.exitCode, 1);
    assert.match(outcome.stderr, /^quorate: stdin holds a private key: give the public one/);
    assert.equal(scene.audited.length, audited);
  });

  test('tokens: the secret alone on stdout, once', async () => {
    const made = await quorate([
      'token',
      'create',
      'root',
      '--name',
      'ci',
      '--expires',
      '30d',
      '--scope',
      'read',
      '--repo',
      'team/*',
    ]);
    const secret = made.stdout.trimEnd();
    assert.equal(made.stdout, `${secret}\n`);
    assert.match(secret, /^\S+$/);
    const principal = await scene.accounts.authenticateToken(secret);
    assert.ok(principal?.kind === 'user' && principal.via.type === 'token');
    assert.equal(principal.via.scope, 'read');
    assert.equal(principal.via.repositoryPattern, 'team/*');
    const list = await ok('token', 'list', 'root');
    assert.match(
      list,
      new RegExp(
        `^${principal.via.tokenId} +root +read +team/\\* +20\\d\\d-\\d\\d-\\d\\d .* ci$`,
        'm',
      ),
    );
    assert.ok(!list.includes(secret));
    await ok('token', 'revoke', principal.via.tokenId);
    assert.equal(await scene.accounts.authenticateToken(secret), undefined);
  });

  test('repositories', async () => {
    assert.equal(
      await ok('repo', 'create', 'team/app.git', '--public', '--set', 'receive.denyDeletes=true'),
      'created team/app\n',
    );
    await ok('repo', 'create', 'team/lib', '--default-branch', 'trunk');
    assert.equal(
      (await ok('repo', 'list', '--prefix', 'team/')).replaceAll(/ +\d{4}-.*/g, ''),
      'NAME      VISIBILITY  CREATED (UTC)\nteam/app  public\nteam/lib  private\n',
    );
    await ok(
      'repo',
      'set',
      'team/app',
      'receive.maxRefs=10',
      '--unset',
      'receive.denyDeletes',
      '--private',
      '--default-branch',
      'next',
    );
    await ok('repo', 'grant', 'team/app', 'root', 'write');
    const shown = await ok('repo', 'show', 'team/app');
    assert.match(
      shown,
      /^name: +team\/app\nid: +\S+\nvisibility: +private\nHEAD: +refs\/heads\/next\n/,
    );
    assert.match(shown, /^size: +1\.5 KiB$/m);
    assert.match(shown, /^grant root: +write\nreceive\.maxRefs: +10\n$/m);
    await ok('repo', 'revoke', 'team/app', 'root');
    assert.equal(
      await ok('repo', 'rename', 'team/lib', 'team/library'),
      'renamed team/lib to team/library\n',
    );
    assert.equal(await ok('repo', 'delete', 'team/library', '--yes'), 'deleted team/library\n');
    assert.match(
      JSON.stringify(await okJson('repo', 'list')),
      /^\[\{"id":"[^"]+","name":"team\/app","public":false,/,
    );
  });

  test('import and maintenance', async () => {
    const outcome = await quorate(['repo', 'import', 'moved/app', 'https://example.org/x.git']);
    assert.equal(outcome.stdout, 'imported 3 refs into moved/app\n');
    assert.equal(outcome.stderr, 'receiving: 1 of 2\n');
    assert.match(
      await ok('repo', 'maintain', 'moved/app'),
      /^packs: +3 -> 1\nsize: +2\.0 KiB -> 1\.0 KiB\ntook: +1\.5 s\n$/,
    );
    assert.match(
      JSON.stringify(await okJson('repo', 'maintain', 'moved/app')),
      /^\{"packsBefore":3/,
    );
  });

  test('status and locks', async () => {
    assert.match(
      await ok('status'),
      /^version: +0\.0\.0 \(node v.*\nbackend: +memory\n.*ssh cryptography: +native\n$/s,
    );
    assert.equal(await ok('locks'), '');
    scene.backend.lockInfos = [
      {
        scope: 'ref',
        repositoryId: 'r1',
        ref: 'refs/heads/\x1b[2Jx',
        state: 'held',
        holder: 'fe',
        pushId: 'p1',
        ageMs: 40,
      },
    ];
    assert.match(
      await ok('locks'),
      /^SCOPE .*\nref +r1 +refs\/heads\/\\x1b\[2Jx +held +40 ms +fe +p1\n$/,
    );
    assert.deepEqual(await okJson('locks'), scene.backend.lockInfos);
    scene.backend.lockInfos = scene.backend.lockInfos.map((lock) => ({
      ...lock,
      repository: 'team/app',
    }));
    assert.match(await ok('locks'), /^SCOPE +REPOSITORY .*\nref +team\/app +refs/);
  });

  test('serve hands its flags on', async () => {
    const outcome = await quorate([
      'serve',
      '--data',
      'd',
      '--http',
      ':0',
      '--no-auth',
      '--config',
      'f',
      '--set',
      'a=1',
      '--set',
      'b=2',
    ]);
    assert.equal(outcome.exitCode, 3);
    assert.deepEqual(JSON.parse(outcome.stdout), {
      file: 'f',
      flags: { data: 'd', noAuth: true, http: ':0' },
      set: ['a=1', 'b=2'],
    });
    assert.deepEqual(JSON.parse((await quorate(['serve'])).stdout), { flags: {}, set: [] });
  });
});

describe('mistakes', () => {
  const cases = [
    {
      desc: 'a typo in a command',
      args: ['stats'],
      exitCode: 2,
      says: /^quorate: unknown command 'stats'\n\(Did you mean status\?\)\n$/,
    },
    { desc: 'a typo further on', args: ['repo', 'lst'], exitCode: 2, says: /Did you mean list\?/ },
    {
      desc: 'a typo in an option',
      args: ['repo', 'create', 'x', '--publc'],
      exitCode: 2,
      says: /Did you mean --public\?/,
    },
    {
      desc: 'a missing argument',
      args: ['user', 'add'],
      exitCode: 2,
      says: /^quorate: missing required argument 'name'\n$/,
    },
    {
      desc: 'a duration that is none',
      args: ['token', 'create', 'root', '--expires', 'soon'],
      exitCode: 2,
      says: /^quorate: "soon" is no duration: write it like 12h, 30d, 4w or 1y\n$/,
    },
    {
      desc: 'no assignment',
      args: ['repo', 'set', 'x', 'public'],
      exitCode: 2,
      says: /^quorate: "public" is not KEY=VALUE\n$/,
    },
    {
      desc: 'nothing to set',
      args: ['repo', 'set', 'x'],
      exitCode: 2,
      says: /^quorate: nothing to set: /,
    },
    {
      desc: 'what the server refuses',
      args: ['user', 'disable', 'nobody'],
      exitCode: 1,
      says: /^quorate: there is no user nobody\n$/,
    },
    {
      desc: 'a setting that there is not',
      args: ['repo', 'create', 'x/y', '--set', 'receive.denyDelete=1'],
      exitCode: 1,
      says: /^quorate: settings\.receive\.denyDelete: .*did you mean receive\.denyDeletes\?\n$/,
    },
    {
      desc: 'a file that there is not',
      args: ['key', 'add', 'root', '/nonexistent/id.pub'],
      exitCode: 1,
      says: /^quorate: cannot read \/nonexistent\/id\.pub: there is no such file\n$/,
    },
    {
      desc: 'deleting without being asked',
      args: ['repo', 'delete', 'moved/app'],
      exitCode: 1,
      says: /^quorate: not deleting moved\/app without being sure: add --yes\n$/,
    },
  ];
  for (const { desc, args, exitCode, says } of cases) {
    test(desc, async () => {
      const outcome = await quorate(args);
      assert.match(outcome.stderr, says);
      assert.equal(outcome.exitCode, exitCode);
      assert.equal(outcome.stdout, '');
    });
  }

  test('help and version are no mistakes', async () => {
    assert.match(await ok('--version'), /^\d+\.\d+\.\d+\n$/);
    assert.match(await ok('repo', 'set', '--help'), /receive\.denyDeletes .*\(false\)/);
    assert.match(await ok('token', 'create', '--help'), /--json/);
    assert.match(await ok('help', 'token', 'create'), /^Usage: quorate token create /);
    assert.equal((await quorate([])).exitCode, 2);
  });
});

describe('pipes, signals and terminals', () => {
  test('a reader that has seen enough ends it quietly', async () => {
    for (let index = 0; index < 2000; index += 1) {
      await scene.backend.repositories.create({
        // More than a pipe takes without its reader.
        name: `many/${'x'.repeat(400)}-${index}`,
        defaultBranch: 'main',
        objectFormat: 'sha1',
        settings: {},
        access: { public: false, grants: {} },
      });
    }
    const [program = '', ...args] = quorateCommand;
    const child = spawn(program, [...args, 'repo', 'list'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdout.once('data', () => child.stdout.destroy());
    await once(child, 'close');
    assert.equal(child.exitCode, 0);
    assert.equal(stderr, '');
  });

  test('Ctrl-C ends an import on the server', async () => {
    let ended = false;
    const { importing } = scene.backend;
    const outcome = await quorate(['repo', 'import', 'stopped/app', 'https://example.org/x.git'], {
      started: (child) => {
        scene.backend.importing = async ({ signal, progress }) => {
          progress({ step: 'receiving', done: 0, total: 1 });
          child.kill('SIGINT');
          await new Promise<void>((resolve) => {
            signal.addEventListener('abort', () => resolve());
          });
          ended = true;
          throw new QuorateError('cancelled', 'gone');
        };
      },
    });
    scene.backend.importing = importing;
    assert.equal(outcome.exitCode, 130);
    assert.match(outcome.stderr, /quorate: interrupted; the server has been told to stop\n$/);
    await until('it ends', () => ended);
  });

  test('a failure in the stream is the one sentence', async () => {
    const { importing } = scene.backend;
    scene.backend.importing = async ({ progress }) => {
      progress({ step: 'receiving', done: 0, total: 1 });
      throw new QuorateError('storage-failure', 'the disk is full');
    };
    const outcome = await quorate(['repo', 'import', 'failed/app', 'https://example.org/x.git']);
    scene.backend.importing = importing;
    assert.equal(outcome.exitCode, 1);
    assert.equal(outcome.stderr, 'receiving: 0 of 1\nquorate: the disk is full\n');
  });

  test('on a terminal there is a bar', async () => {
    const screen = await onTerminal(['repo', 'import', 'bar/app', 'https://example.org/x.git'], '');
    assert.match(screen, /receiving +.*█+.* 100% \| 2\/2/s);
    assert.match(screen, /imported 3 refs into bar\/app/);
  });

  test('on a terminal, deleting asks', async () => {
    const no = await onTerminal(['repo', 'delete', 'bar/app'], 'n\n');
    assert.match(no, /Delete bar\/app and all it holds\? \[y\/N\]/);
    assert.match(no, /quorate: bar\/app was not deleted/);
    assert.notEqual(await scene.backend.repositories.get('bar/app'), undefined);
    const yes = await onTerminal(['repo', 'delete', 'bar/app'], 'y\n');
    assert.match(yes, /deleted bar\/app/);
    assert.equal(await scene.backend.repositories.get('bar/app'), undefined);
  });
});

/** Runs a command under `script`, which gives it a terminal; answers all that came onto the screen. */
async function onTerminal(args: readonly string[], typed: string): Promise<string> {
  const words = [...quorateCommand, ...args].map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-q', '-e', '-c', words, '/dev/null'], {
    env: { ...env, PATH: process.env['PATH'] ?? '', TERM: 'xterm', SHELL: '/bin/sh' },
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

function field(text: string): Buffer {
  return Buffer.concat([Buffer.of(0, 0, 0, text.length), Buffer.from(text)]);
}
