import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { createScene } from './harness.js';
import type { Finished, GitOptions, Scene, ServerProcess } from './harness.js';

// Every branch rule, as real git meets it, over both transports.

let scene: Scene;
let server: ServerProcess;
const transports = ['http', 'ssh'] as const;

interface Pusher {
  readonly urls: Readonly<Record<(typeof transports)[number], (name: string) => string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly privateKeyFile: string;
}
let ann: Pusher;
let bob: Pusher;

before(async () => {
  scene = await createScene();
  server = await scene.startServer();
  ann = await makeUser('ann');
  bob = await makeUser('bob');
});
after(() => scene.close());

async function makeUser(name: string): Promise<Pusher> {
  await scene.admin(server, 'user', 'add', name);
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', name, key.publicKeyFile);
  const token = (await scene.admin(server, 'token', 'create', name)).trim();
  return {
    env: await key.environment(server),
    privateKeyFile: key.privateKeyFile,
    urls: {
      http: (repository) => `${server.url.replace('http://', `http://x:${token}@`)}/${repository}`,
      ssh: (repository) => `ssh://git@${server.sshHost}:${server.sshPort}/${repository}`,
    },
  };
}

let count = 0;

/** A repository on the server that ann and bob may write, with `main` in it, and a clone. */
async function ground(): Promise<{ readonly name: string; readonly clone: string }> {
  count += 1;
  const name = `rules/r${count}`;
  await scene.admin(server, 'repo', 'create', name);
  for (const user of ['ann', 'bob'])
    await scene.admin(server, 'repo', 'grant', name, user, 'write');
  const clone = await scene.makeRepository({ commits: 2 });
  await scene.git(['push', '-q', ann.urls.http(name), 'main'], { cwd: clone });
  return { name, clone };
}

async function push(
  { name, clone }: { readonly name: string; readonly clone: string },
  pusher: Pusher,
  transport: (typeof transports)[number],
  refspecs: readonly string[],
): Promise<Finished> {
  return scene.tryGit(['push', '--porcelain', pusher.urls[transport](name), ...refspecs], {
    cwd: clone,
    env: pusher.env,
  });
}

/** The push is refused, on the ref's own line, by the rule and for this reason. */
function refused(result: Finished, reason: RegExp): void {
  assert.equal(result.exitCode, 1, result.stderr + result.stdout);
  assert.match(result.stdout, /\[remote rejected\] \(rule /);
  assert.match(result.stdout, reason);
}

function accepted(result: Finished): void {
  assert.equal(result.exitCode, 0, result.stderr + result.stdout);
}

async function commit(clone: string, message: string, options: GitOptions = {}): Promise<void> {
  await scene.git(['commit', '-q', '--allow-empty', '-m', message], { cwd: clone, ...options });
}

for (const transport of transports) {
  describe(`branch rules over ${transport}`, () => {
    test('who may push: users and groups; others push elsewhere', async () => {
      const at = await ground();
      const group = `release-${transport}`;
      await scene.admin(server, 'group', 'add', group);
      await scene.admin(server, 'group', 'join', group, 'bob');
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'release',
        '--refs',
        'refs/heads/release/*',
        '--push',
        `@${group}`,
      );
      const main = await push(at, ann, transport, ['main:release/1', 'main:other']);
      refused(main, new RegExp(`release/1\\t.*rule release: only @${group} may push`));
      assert.match(main.stdout, /\*\trefs\/heads\/main:refs\/heads\/other/);
      accepted(await push(at, bob, transport, ['main:release/1']));
      refused(await push(at, ann, transport, [':release/1']), /rule release: only/);
      await scene.admin(server, 'rule', 'remove', at.name, 'release');
      accepted(await push(at, ann, transport, [':release/1']));
    });

    test('no force push, and no deletion', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'keep',
        '--refs',
        'refs/heads/main',
        '--no-force-push',
        '--no-deletion',
      );
      refused(await push(at, ann, transport, ['+main~1:main']), /rule keep: no force push/);
      await scene.admin(server, 'repo', 'set', at.name, 'receive.denyDeleteCurrent=false');
      refused(await push(at, ann, transport, [':main']), /rule keep: this ref may not be deleted/);
      await commit(at.clone, 'forward');
      accepted(await push(at, ann, transport, ['main']));
    });

    test('a tag under "no force push" stays where it is', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'tags',
        '--refs',
        'refs/tags/**',
        '--no-force-push',
      );
      accepted(await push(at, ann, transport, ['main~1:refs/tags/v1']));
      refused(await push(at, ann, transport, ['+main:refs/tags/v1']), /rule tags: .*not be moved/);
    });

    test('linear history: a merge is refused wherever it comes from', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'line',
        '--refs',
        'refs/heads/main',
        '--linear',
      );
      await scene.git(['checkout', '-q', '-b', 'side', 'HEAD~1'], { cwd: at.clone });
      await commit(at.clone, 'side');
      await scene.git(['checkout', '-q', 'main'], { cwd: at.clone });
      await scene.git(['merge', '-q', '--no-ff', '-m', 'merge', 'side'], { cwd: at.clone });
      // The commits are in the repository already when main is to get them.
      accepted(await push(at, ann, transport, ['main:elsewhere']));
      refused(
        await push(at, ann, transport, ['main']),
        /rule line: commit [0-9a-f]{10} is a merge/,
      );
      await scene.git(['reset', '-q', '--hard', 'HEAD~1'], { cwd: at.clone });
      await commit(at.clone, 'straight');
      accepted(await push(at, ann, transport, ['main']));
    });

    test('largest file: judged by what each commit brings, also when a later one takes it away', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'small',
        '--refs',
        '**',
        '--max-file-size',
        '1k',
      );
      await scene.commit(at.clone, 'fits', 'x'.repeat(1024));
      accepted(await push(at, ann, transport, ['main']));
      await scene.commit(at.clone, 'big.bin', 'x'.repeat(1025));
      await scene.git(['rm', '-q', 'big.bin'], { cwd: at.clone });
      await commit(at.clone, 'gone again');
      refused(
        await push(at, ann, transport, ['main:new']),
        /rule small: big\.bin in commit [0-9a-f]{10} has 1025 bytes; at most 1024/,
      );
    });

    test('forbidden paths, by name and by directory', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'paths',
        '--refs',
        'refs/heads/**',
        '--forbid-path',
        '*.exe',
        '--forbid-path',
        'secrets/**',
      );
      await scene.commit(at.clone, 'fine.txt', 'fine');
      accepted(await push(at, ann, transport, ['main']));
      for (const path of ['deep/down/tool.exe', 'secrets/key']) {
        await scene.git(['checkout', '-q', '--detach', 'main'], { cwd: at.clone });
        const blob = await scene.git(['hash-object', '-w', '--stdin'], {
          cwd: at.clone,
          stdin: 'content',
        });
        const entry = `100644,${blob.trim()},${path}`;
        await scene.git(['update-index', '--add', '--cacheinfo', entry], { cwd: at.clone });
        await commit(at.clone, 'forbidden');
        refused(
          await push(at, ann, transport, ['HEAD:refs/heads/main']),
          new RegExp(`rule paths: ${path} in commit [0-9a-f]{10} is forbidden`),
        );
      }
    });

    test('commit messages; an expression that runs away is ended', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'ticket',
        '--refs',
        'refs/heads/main',
        '--message',
        '^[A-Z]+-[0-9]+: ',
      );
      await commit(at.clone, 'no ticket');
      refused(
        await push(at, ann, transport, ['main']),
        /rule ticket: the message of commit [0-9a-f]{10} does not match/,
      );
      await commit(at.clone, 'ABC-1: with a ticket', {});
      await scene.git(['reset', '-q', '--soft', 'HEAD~2'], { cwd: at.clone });
      await commit(at.clone, 'ABC-1: with a ticket');
      accepted(await push(at, ann, transport, ['main']));
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'ticket',
        '--refs',
        'refs/heads/main',
        '--message',
        '^(a+)+$',
      );
      await commit(at.clone, `${'a'.repeat(64)}!`);
      refused(await push(at, ann, transport, ['main']), /rule ticket: .*takes too long/);
    });

    test('signed commits: SSH keys of users count, others and none do not', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'signed',
        '--refs',
        'refs/heads/main',
        '--signed',
      );
      await commit(at.clone, 'unsigned');
      refused(await push(at, ann, transport, ['main']), /rule signed: commit .* is not signed\)/);
      await scene.git(['reset', '-q', '--soft', 'HEAD~1'], { cwd: at.clone });
      const stranger = await scene.sshKey();
      const signWith = async (file: string): Promise<void> => {
        await scene.git(
          [
            '-c',
            'gpg.format=ssh',
            '-c',
            `user.signingKey=${file}`,
            'commit',
            '-q',
            '-S',
            '--allow-empty',
            '-m',
            'signed',
          ],
          { cwd: at.clone },
        );
      };
      await signWith(stranger.privateKeyFile);
      refused(
        await push(at, ann, transport, ['main']),
        /rule signed: commit .* is not signed by a key that is registered here/,
      );
      await scene.git(['reset', '-q', '--soft', 'HEAD~1'], { cwd: at.clone });
      await signWith(bob.privateKeyFile);
      await signWith(ann.privateKeyFile);
      accepted(await push(at, ann, transport, ['main']));
      await signWith(bob.privateKeyFile);
      await scene.admin(server, 'user', 'disable', 'bob');
      refused(await push(at, ann, transport, ['main']), /not signed by a key that is registered/);
      await scene.admin(server, 'user', 'enable', 'bob');
      accepted(await push(at, ann, transport, ['main']));
      // A signature that was moved to another commit is none.
      const forged = (await scene.git(['cat-file', 'commit', 'HEAD'], { cwd: at.clone })).replace(
        /\nsigned\n/,
        '\nforged\n',
      );
      const oid = await scene.git(['hash-object', '-w', '-t', 'commit', '--stdin'], {
        cwd: at.clone,
        stdin: forged,
      });
      refused(
        await push(at, ann, transport, [`+${oid.trim()}:refs/heads/main`]),
        /rule signed: commit/,
      );
    });

    test('an exempt user, and a server-wide rule', async () => {
      const at = await ground();
      const name = `server-${transport}`;
      await scene.admin(
        server,
        'rule',
        'set',
        '--server',
        name,
        '--refs',
        `refs/heads/frozen-${transport}`,
        '--push',
        '',
        '--exempt',
        'bob',
      );
      const refspec = `main:frozen-${transport}`;
      refused(await push(at, ann, transport, [refspec]), /: nobody may push to this ref/);
      accepted(await push(at, bob, transport, [refspec]));
      await scene.admin(server, 'rule', 'remove', '--server', name);
    });

    test('an atomic push with one refused ref changes nothing', async () => {
      const at = await ground();
      await scene.admin(
        server,
        'rule',
        'set',
        at.name,
        'closed',
        '--refs',
        'refs/heads/closed',
        '--push',
        '',
      );
      const result = await push(at, ann, transport, ['--atomic', 'main:closed', 'main:open']);
      refused(result, /closed\t.*rule closed: nobody/);
      assert.match(result.stdout, /open\t.*atomic push failure/);
    });
  });
}

test('signed commits: registered OpenPGP keys count', async (t) => {
  if ((await scene.run('gpg', ['--version'])).exitCode !== 0) {
    t.skip('no gpg on this machine');
    return;
  }
  const at = await ground();
  const home = scene.path('tmp', 'gnupg');
  const env = { GNUPGHOME: home };
  await mkdir(home, { mode: 0o700 });
  t.after(async () => {
    await scene.run('gpgconf', ['--kill', 'all'], { env });
    await rm(home, { recursive: true, force: true });
  });
  const made = await scene.run(
    'gpg',
    [
      '--batch',
      '--quiet',
      '--passphrase',
      '',
      '--quick-generate-key',
      'Test <test@example.org>',
      'ed25519',
      'sign',
      'never',
    ],
    { env },
  );
  assert.equal(made.exitCode, 0, made.stderr);
  const exported = await scene.run('gpg', ['--export', '--armor'], { env });
  const keyFile = scene.path('keys', 'openpgp.asc');
  await writeFile(keyFile, exported.stdout);
  await scene.admin(
    server,
    'rule',
    'set',
    at.name,
    'signed',
    '--refs',
    'refs/heads/main',
    '--signed',
  );
  await scene.git(
    ['-c', 'gpg.format=openpgp', 'commit', '-q', '-S', '--allow-empty', '-m', 'signed'],
    { cwd: at.clone, env },
  );
  refused(await push(at, ann, 'http', ['main']), /not signed by a key that is registered/);
  await scene.admin(server, 'signing-key', 'add', 'ann', keyFile);
  accepted(await push(at, ann, 'http', ['main']));
});

test('a rule that does not parse is refused when it is set, naming the field', async () => {
  const at = await ground();
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--refs', 'heads/main', '--linear'], /refs: begins with refs\//],
    [['--refs', 'refs/heads/[', '--linear'], /refs: is no pattern/],
    [['--refs', '**'], /refs: the rule demands nothing/],
    [['--refs', '**', '--message', '('], /commitMessage: is no regular expression/],
    [['--refs', '**', '--push', 'Ann Smith'], /push\.0: wants names of users/],
    [['--refs', '**', '--forbid-path', '/abs'], /forbiddenPaths\.0: has an empty part/],
  ];
  for (const [options, words] of cases) {
    const result = await scene.quorate(server, ['rule', 'set', at.name, 'r', ...options]);
    assert.equal(result.exitCode, 1);
    assert.match(result.stderr, words);
  }
  assert.equal(await scene.admin(server, 'rule', 'list', at.name), '');
});

test('rules survive a restart, are listed, and are in the audit log', async (t) => {
  const own = await createScene(t);
  const first = await own.startServer();
  await own.admin(first, 'repo', 'create', 'app');
  await own.admin(
    first,
    'rule',
    'set',
    'app',
    'main',
    '--refs',
    'refs/heads/main',
    '--no-deletion',
    '--signed',
  );
  await first.stop();
  const second = await own.startServer({ dataDirectory: first.dataDirectory });
  assert.match(
    await own.admin(second, 'rule', 'list', 'app'),
    /main +refs\/heads\/main +no deletion; signed commits/,
  );
  const clone = await own.makeRepository();
  const url = second.url.replace('http://', `http://x:${second.adminToken}@`);
  const result = await own.tryGit(['push', `${url}/app`, 'main'], { cwd: clone });
  assert.match(result.stderr, /rule main: commit [0-9a-f]{10} is not signed/);
  const log = await readFile(`${second.dataDirectory}/audit.jsonl`, 'utf8');
  assert.match(log, /"action":"rule.set"/);
  assert.match(log, /rule main: commit [0-9a-f]{10} is not signed/);
});

test('the directory backend keeps the rules that need no objects, and takes no others', async (t) => {
  const own = await createScene(t);
  const directory = await own.startServer({ backend: 'directory' });
  await own.admin(directory, 'repo', 'create', 'app');
  await own.admin(
    directory,
    'rule',
    'set',
    'app',
    'main',
    '--refs',
    'refs/heads/main',
    '--push',
    '',
  );
  const linear = await own.quorate(directory, 'rule set app line --refs ** --linear'.split(' '));
  assert.match(linear.stderr, /linearHistory: cannot be judged by the directory backend/);
  const clone = await own.makeRepository();
  const url = directory.url.replace('http://', `http://x:${directory.adminToken}@`);
  const result = await own.tryGit(['push', '--porcelain', `${url}/app`, 'main', 'main:other'], {
    cwd: clone,
  });
  assert.match(result.stdout, /rule main: nobody may push/);
  assert.match(result.stdout, /\*\trefs\/heads\/main:refs\/heads\/other/);
  await own.admin(directory, 'repo', 'rename', 'app', 'renamed');
  const renamed = await own.tryGit(['push', '--porcelain', `${url}/renamed`, 'main'], {
    cwd: clone,
  });
  assert.match(renamed.stdout, /rule main: nobody may push/);
});
