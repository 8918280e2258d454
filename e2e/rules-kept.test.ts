import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createScene } from './harness.js';
import { RuleGround } from './rule-ground.js';

// How branch rules are set and kept.

let rules: RuleGround;
before(async () => {
  rules = await RuleGround.open();
});
after(() => rules.scene.close());

test('a rule that does not parse is refused when it is set, naming the field', async () => {
  const at = await rules.ground();
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--refs', 'heads/main', '--linear'], /refs: begins with refs\//],
    [['--refs', 'refs/heads/[', '--linear'], /refs: is no pattern/],
    [['--refs', '**'], /refs: the rule demands nothing/],
    [['--refs', '**', '--message', '('], /commitMessage: is no regular expression/],
    [['--refs', '**', '--push', 'Ann Smith'], /push\.0: wants names of users/],
    [['--refs', '**', '--forbid-path', '/abs'], /forbiddenPaths\.0: has an empty part/],
  ];
  for (const [options, words] of cases) {
    const result = await rules.scene.quorate(rules.server, [
      'rule',
      'set',
      at.name,
      'r',
      ...options,
    ]);
    assert.equal(result.exitCode, 1);
    assert.match(result.stderr, words);
  }
  assert.equal(await rules.admin('rule', 'list', at.name), '');
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
  // Asked for, and not read from the disk: events of pushes are gathered for a while.
  const log = await own.admin(second, 'audit', '--json');
  assert.match(log, /"action": *"rule.set"/);
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
