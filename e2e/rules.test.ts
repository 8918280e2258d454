import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { accepted, refused, RuleGround, transports } from './rule-ground.js';

// What branch rules say of refs, paths, files and messages, as real git meets it, over both transports.

let rules: RuleGround;
before(async () => {
  rules = await RuleGround.open();
});
after(() => rules.scene.close());

for (const transport of transports) {
  describe(`branch rules over ${transport}`, () => {
    test('who may push: users and groups; others push elsewhere', async () => {
      const at = await rules.ground();
      const group = `release-${transport}`;
      await rules.admin('group', 'add', group);
      await rules.admin('group', 'join', group, 'bob');
      await rules.set(at.name, 'release', '--refs', 'refs/heads/release/*', '--push', `@${group}`);
      const main = await rules.push(at, rules.ann, transport, ['main:release/1', 'main:other']);
      refused(main, new RegExp(`release/1\\t.*rule release: only @${group} may push`));
      assert.match(main.stdout, /\*\trefs\/heads\/main:refs\/heads\/other/);
      accepted(await rules.push(at, rules.bob, transport, ['main:release/1']));
      refused(await rules.push(at, rules.ann, transport, [':release/1']), /rule release: only/);
      await rules.admin('rule', 'remove', at.name, 'release');
      accepted(await rules.push(at, rules.ann, transport, [':release/1']));
    });

    test('no force push, and no deletion', async () => {
      const at = await rules.ground();
      await rules.set(
        at.name,
        'keep',
        '--refs',
        'refs/heads/main',
        '--no-force-push',
        '--no-deletion',
      );
      refused(
        await rules.push(at, rules.ann, transport, ['+main~1:main']),
        /rule keep: no force push/,
      );
      await rules.admin('repo', 'set', at.name, 'receive.denyDeleteCurrent=false');
      refused(
        await rules.push(at, rules.ann, transport, [':main']),
        /rule keep: this ref may not be deleted/,
      );
      await rules.commit(at.clone, 'forward');
      accepted(await rules.push(at, rules.ann, transport, ['main']));
    });

    test('a tag under "no force push" stays where it is', async () => {
      const at = await rules.ground();
      await rules.set(at.name, 'tags', '--refs', 'refs/tags/**', '--no-force-push');
      accepted(await rules.push(at, rules.ann, transport, ['main~1:refs/tags/v1']));
      refused(
        await rules.push(at, rules.ann, transport, ['+main:refs/tags/v1']),
        /rule tags: .*not be moved/,
      );
    });

    test('linear history: a merge is refused wherever it comes from', async () => {
      const at = await rules.ground();
      await rules.set(at.name, 'line', '--refs', 'refs/heads/main', '--linear');
      await rules.scene.git(['checkout', '-q', '-b', 'side', 'HEAD~1'], { cwd: at.clone });
      await rules.commit(at.clone, 'side');
      await rules.scene.git(['checkout', '-q', 'main'], { cwd: at.clone });
      await rules.scene.git(['merge', '-q', '--no-ff', '-m', 'merge', 'side'], { cwd: at.clone });
      // The commits are in the repository already when main is to get them.
      accepted(await rules.push(at, rules.ann, transport, ['main:elsewhere']));
      refused(
        await rules.push(at, rules.ann, transport, ['main']),
        /rule line: commit [0-9a-f]{10} is a merge/,
      );
      await rules.scene.git(['reset', '-q', '--hard', 'HEAD~1'], { cwd: at.clone });
      await rules.commit(at.clone, 'straight');
      accepted(await rules.push(at, rules.ann, transport, ['main']));
    });

    test('largest file: judged by what each commit brings, also when a later one takes it away', async () => {
      const at = await rules.ground();
      await rules.set(at.name, 'small', '--refs', '**', '--max-file-size', '1k');
      await rules.scene.commit(at.clone, 'fits', 'x'.repeat(1024));
      accepted(await rules.push(at, rules.ann, transport, ['main']));
      await rules.scene.commit(at.clone, 'big.bin', 'x'.repeat(1025));
      await rules.scene.git(['rm', '-q', 'big.bin'], { cwd: at.clone });
      await rules.commit(at.clone, 'gone again');
      refused(
        await rules.push(at, rules.ann, transport, ['main:new']),
        /rule small: big\.bin in commit [0-9a-f]{10} has 1025 bytes; at most 1024/,
      );
    });

    test('forbidden paths, by name and by directory', async () => {
      const at = await rules.ground();
      await rules.set(
        at.name,
        'paths',
        '--refs',
        'refs/heads/**',
        '--forbid-path',
        '*.exe',
        '--forbid-path',
        'secrets/**',
      );
      await rules.scene.commit(at.clone, 'fine.txt', 'fine');
      accepted(await rules.push(at, rules.ann, transport, ['main']));
      for (const path of ['deep/down/tool.exe', 'secrets/key']) {
        await rules.scene.git(['checkout', '-q', '--detach', 'main'], { cwd: at.clone });
        const blob = await rules.scene.git(['hash-object', '-w', '--stdin'], {
          cwd: at.clone,
          stdin: 'content',
        });
        const entry = `100644,${blob.trim()},${path}`;
        await rules.scene.git(['update-index', '--add', '--cacheinfo', entry], { cwd: at.clone });
        await rules.commit(at.clone, 'forbidden');
        refused(
          await rules.push(at, rules.ann, transport, ['HEAD:refs/heads/main']),
          new RegExp(`rule paths: ${path} in commit [0-9a-f]{10} is forbidden`),
        );
      }
    });

    test('commit messages; an expression that runs away is ended', async () => {
      const at = await rules.ground();
      await rules.set(
        at.name,
        'ticket',
        '--refs',
        'refs/heads/main',
        '--message',
        '^[A-Z]+-[0-9]+: ',
      );
      await rules.commit(at.clone, 'no ticket');
      refused(
        await rules.push(at, rules.ann, transport, ['main']),
        /rule ticket: the message of commit [0-9a-f]{10} does not match/,
      );
      await rules.commit(at.clone, 'ABC-1: with a ticket', {});
      await rules.scene.git(['reset', '-q', '--soft', 'HEAD~2'], { cwd: at.clone });
      await rules.commit(at.clone, 'ABC-1: with a ticket');
      accepted(await rules.push(at, rules.ann, transport, ['main']));
      await rules.set(at.name, 'ticket', '--refs', 'refs/heads/main', '--message', '^(a+)+$');
      await rules.commit(at.clone, `${'a'.repeat(64)}!`);
      refused(
        await rules.push(at, rules.ann, transport, ['main']),
        /rule ticket: .*takes too long/,
      );
    });

    test('an exempt user, and a server-wide rule', async () => {
      const at = await rules.ground();
      const name = `server-${transport}`;
      await rules.set(
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
      refused(
        await rules.push(at, rules.ann, transport, [refspec]),
        /: nobody may push to this ref/,
      );
      accepted(await rules.push(at, rules.bob, transport, [refspec]));
      await rules.admin('rule', 'remove', '--server', name);
    });

    test('an atomic push with one refused ref changes nothing', async () => {
      const at = await rules.ground();
      await rules.set(at.name, 'closed', '--refs', 'refs/heads/closed', '--push', '');
      const result = await rules.push(at, rules.ann, transport, [
        '--atomic',
        'main:closed',
        'main:open',
      ]);
      refused(result, /closed\t.*rule closed: nobody/);
      assert.match(result.stdout, /open\t.*atomic push failure/);
    });
  });
}
