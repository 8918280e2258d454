import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Finished, ServerProcess } from './harness.js';
import { HookGround, transports } from './hook-ground.js';

// Hooks that administrators set, as real git meets them, over both transports.

let at: HookGround;
before(async () => {
  at = await HookGround.open();
});
after(() => at.scene.close());

for (const transport of transports) {
  describe(`hooks over ${transport}`, () => {
    test("pre-receive: git's stdin, environment and quarantine; it refuses the whole push", async () => {
      const repository = await at.make();
      await at.setHook(repository.name, 'pre-receive', [
        'while read old new ref; do',
        '  echo "line $old $new $ref"',
        '  git cat-file -t "$new" >/dev/null && echo "sees the new commit"',
        '  GIT_OBJECT_DIRECTORY= GIT_ALTERNATE_OBJECT_DIRECTORIES= \\',
        '    env -u GIT_OBJECT_DIRECTORY -u GIT_ALTERNATE_OBJECT_DIRECTORIES \\',
        '    git cat-file -e "$new" 2>/dev/null || echo "it is in quarantine only"',
        'done',
        'echo "options $GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1"',
        'echo "who $QUORATE_USER $QUORATE_REPOSITORY ${#QUORATE_PUSH_ID}" >&2',
        '[ "$GIT_QUARANTINE_PATH" = "$GIT_OBJECT_DIRECTORY" ] && echo "quarantine named"',
        '[ "$(git rev-parse --git-dir)" = "$GIT_DIR" ] && echo "in its repository"',
        'git update-ref refs/heads/behind HEAD 2>/dev/null || echo "no ref changes"',
        'env | cut -d= -f1 | sort | tr "\\n" " "; echo',
        'exit 1',
      ]);
      const [old, next] = [
        await at.remoteTip(repository, 'refs/heads/main'),
        await at.tip(repository, 'main'),
      ];
      const result = await at.push(
        transport,
        repository,
        ['main', 'main:other'],
        ['one', 'two words'],
      );
      assert.equal(result.exitCode, 1);
      assert.match(
        result.stdout,
        /main:refs\/heads\/main\t\[remote rejected\] \(pre-receive hook declined\)/,
      );
      assert.match(result.stdout, /other\t\[remote rejected\] \(pre-receive hook declined\)/);
      const told = result.stderr;
      for (const words of [
        `remote: line ${old} ${next} refs/heads/main`,
        `remote: line ${'0'.repeat(40)} ${next} refs/heads/other`,
        'remote: sees the new commit',
        'remote: it is in quarantine only',
        'remote: options 2 one two words',
        `remote: who admin ${repository.name} 32`,
        'remote: quarantine named',
        'remote: in its repository',
        'remote: no ref changes',
      ]) {
        assert.ok(told.includes(words), `${words}\n---\n${told}`);
      }
      const names = /remote: (.*\bGIT_DIR .*)/.exec(told)?.[1] ?? '';
      assert.doesNotMatch(names, /NODE|UV_|TOKEN|TMPDIR|SSH/, "the server's own environment");
      assert.equal(await at.remoteTip(repository, 'refs/heads/main'), old);
      await at.removeHook(repository.name, 'pre-receive');
      assert.equal((await at.push(transport, repository, ['main'])).exitCode, 0);
    });

    test('update: once for each ref, with its arguments; refuses that ref alone', async () => {
      const repository = await at.make();
      await at.setHook(repository.name, 'update', [
        'echo "update $1 $2 $3"',
        'case $1 in */bad) exit 3;; esac',
      ]);
      const next = await at.tip(repository, 'main');
      const result = await at.push(transport, repository, ['main:bad', 'main:good']);
      assert.match(result.stdout, /bad\t\[remote rejected\] \(hook declined\)/);
      assert.match(result.stdout, /\*\trefs\/heads\/main:refs\/heads\/good/);
      for (const ref of ['bad', 'good']) {
        assert.ok(
          result.stderr.includes(`remote: update refs/heads/${ref} ${'0'.repeat(40)} ${next}`),
          result.stderr,
        );
      }
      assert.equal(await at.remoteTip(repository, 'refs/heads/good'), next);
    });

    test('post-receive: after the commit, cannot fail it, and is still heard', async () => {
      const repository = await at.make();
      await at.setHook(repository.name, 'post-receive', [
        'read old new ref',
        'echo "after $ref $(git rev-parse "$ref") $GIT_PUSH_OPTION_0"',
        'git update-ref refs/heads/behind HEAD 2>/dev/null || echo "no ref changes"',
        'exit 9',
      ]);
      // Who pushes waits some seconds for its words: a busy machine may take longer to run it.
      await waitFor('a push that hears it', async () => {
        const next = await at.scene.commit(repository.clone, 'again', `${Math.random()}`);
        const result = await at.push(transport, repository, ['main'], ['opt']);
        assert.equal(result.exitCode, 0, result.stderr);
        assert.equal(await at.remoteTip(repository, 'refs/heads/main'), next);
        const told = result.stderr.includes(`remote: after refs/heads/main ${next} opt`);
        return told && result.stderr.includes('remote: no ref changes');
      });
    });

    test('a slow post-receive hook keeps nobody waiting, and runs to its end', async () => {
      const repository = await at.make();
      const mark = at.scene.path('work', `done-${transport}`);
      await at.setHook(repository.name, 'post-receive', [
        'sleep 2.5',
        `echo "$QUORATE_PUSH_ID" > ${mark}`,
      ]);
      assert.equal((await at.push(transport, repository, ['main'])).exitCode, 0);
      await waitFor('the hook', async () => (await readFile(mark, 'utf8').catch(() => '')) !== '');
    });

    test("the server's hook runs before the repository's", async () => {
      const repository = await at.make();
      await at.setHook('--server', 'pre-receive', ['echo first']);
      await at.setHook(repository.name, 'pre-receive', ['echo second']);
      try {
        const result = await at.push(transport, repository, ['main']);
        assert.match(result.stderr, /remote: first *\n(?:.*\n)*?remote: second/);
      } finally {
        await at.removeHook('--server', 'pre-receive');
      }
    });
  });
}

test('a hook whose interpreter is not on the server says so, and refuses', async () => {
  const repository = await at.make();
  const file = at.scene.path('work', 'no-interpreter');
  await writeFile(file, '#! /opt/no/such/program -u\n');
  await at.scene.admin(at.server, 'hook', 'set', repository.name, 'pre-receive', file);
  const { exitCode, stdout, stderr } = await at.push('http', repository, ['main']);
  assert.equal(exitCode, 1);
  assert.match(stdout, /\[remote rejected\] \(pre-receive hook declined\)/);
  assert.match(stderr, /remote: this hook cannot be started: .* \/opt\/no\/such\/program, /);
  assert.doesNotMatch(stderr, /prlimit|store\/hooks/, 'nothing of the machinery around it');
});

test('versions, large hooks, what is no program, and who may set one', async () => {
  const repository = await at.make();
  await at.setHook(repository.name, 'update', ['exit 0']);
  await at.setHook(repository.name, 'update', ['exit 0', `# ${'x'.repeat(1_000_000)}`]);
  const list = await at.scene.admin(at.server, 'hook', 'list', repository.name);
  assert.match(list, /update +2 +976\.\d KiB .* admin /);
  const shown = await at.scene.admin(at.server, 'hook', 'show', repository.name, 'update');
  assert.equal(shown.length, '#!/bin/sh\nexit 0\n# \n'.length + 1_000_000);
  assert.equal((await at.push('http', repository, ['main'])).exitCode, 0);

  const file = at.scene.path('work', 'no-program');
  const attempts: readonly (readonly [string, RegExp])[] = [
    ['echo no first line\n', /content: is no program/],
    ['#!/bin/sh\r\nexit 0\r\n', /content: has lines that end in CR/],
    [`#!/bin/sh\n${'#'.repeat(1024 * 1024)}`, /1 MiB/],
  ];
  for (const [text, words] of attempts) {
    await writeFile(file, text);
    const refused = await at.scene.quorate(at.server, [
      'hook',
      'set',
      repository.name,
      'update',
      file,
    ]);
    assert.match(refused.stderr, words);
  }
  await writeFile(file, '#!/bin/sh\n');
  const stage = await at.scene.quorate(at.server, [
    'hook',
    'set',
    repository.name,
    'pre-recieve',
    file,
  ]);
  assert.match(stage.stderr, /stage: has to be pre-receive, update or post-receive/);

  await at.scene.admin(at.server, 'user', 'add', 'owner');
  await at.scene.admin(at.server, 'repo', 'grant', repository.name, 'owner', 'admin');
  const token = await at.scene.admin(at.server, 'token', 'create', 'owner', '--scope', 'admin');
  const denied = await at.scene.quorate(
    at.server,
    ['hook', 'set', repository.name, 'update', file],
    {
      token: token.trim(),
    },
  );
  assert.match(denied.stderr, /server administrator/);
});

test('hooks survive a restart; hooks.enabled=false runs none', async (t) => {
  const own = await createScene(t);
  const first = await own.startServer();
  await own.admin(first, 'repo', 'create', 'app');
  const file = own.path('work', 'hook');
  await writeFile(file, '#!/bin/sh\nexit 1\n');
  await own.admin(first, 'hook', 'set', 'app', 'pre-receive', file);
  await first.stop();
  const clone = await own.makeRepository();
  const tryPush = (to: ServerProcess): Promise<Finished> => {
    const base = to.url.replace('http://', `http://x:${to.adminToken}@`);
    return own.tryGit(['push', `${base}/app`, 'main'], { cwd: clone });
  };
  const second = await own.startServer({ dataDirectory: first.dataDirectory });
  assert.match((await tryPush(second)).stderr, /pre-receive hook declined/);
  await second.stop();
  const third = await own.startServer({
    dataDirectory: first.dataDirectory,
    flags: ['--set', 'hooks.enabled=false'],
  });
  assert.equal((await tryPush(third)).exitCode, 0);
  const refused = await own.quorate(third, ['hook', 'set', 'app', 'update', file]);
  assert.match(refused.stderr, /hooks are off/);
});

test('a post-receive hook that a crash cut off runs after the next start', async (t) => {
  const own = await createScene(t);
  const first = await own.startServer();
  await own.admin(first, 'repo', 'create', 'app');
  const marks = own.path('work', 'marks');
  const file = own.path('work', 'hook');
  await own.run('mkdir', [marks]);
  await writeFile(
    file,
    `#!/bin/sh\ntouch ${marks}/started\n[ -e ${marks}/again ] || sleep 15\ncat > ${marks}/doing\nmv ${marks}/doing ${marks}/done\n`,
  );
  await own.admin(first, 'hook', 'set', 'app', 'post-receive', file);
  const clone = await own.makeRepository();
  const base = first.url.replace('http://', `http://x:${first.adminToken}@`);
  assert.equal((await own.tryGit(['push', `${base}/app`, 'main'], { cwd: clone })).exitCode, 0);
  await waitFor('the hook to start', async () => (await readdir(marks)).includes('started'));
  await first.kill('SIGKILL');
  await writeFile(`${marks}/again`, '');
  await own.startServer({ dataDirectory: first.dataDirectory });
  await waitFor('the hook to be done', async () => (await readdir(marks)).includes('done'));
  const commit = (await own.git(['rev-parse', 'main'], { cwd: clone })).trim();
  assert.equal(
    await readFile(`${marks}/done`, 'utf8'),
    `${'0'.repeat(40)} ${commit} refs/heads/main\n`,
  );
});

test('the directory backend runs the hooks of its repositories and takes no others', async (t) => {
  const own = await createScene(t);
  const directory = await own.startServer({ backend: 'directory' });
  await own.admin(directory, 'repo', 'create', 'app');
  const file = own.path('work', 'hook');
  await writeFile(file, '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const refused = await own.quorate(directory, ['hook', 'set', 'app', 'pre-receive', file]);
  assert.match(refused.stderr, /hooks are git's own/);
});
