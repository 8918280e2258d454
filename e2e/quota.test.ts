/** Quotas: what goes over one is refused before it is committed, in words that say which, over both transports. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { createScene, type Finished, type Scene, type ServerProcess } from './harness.js';

const MIB = 1024 ** 2;

for (const backend of ['local', 'directory'] as const) {
  describe(`quotas of the ${backend} backend`, () => {
    let scene: Scene;
    let server: ServerProcess;
    let source: string;
    let sshEnv: Readonly<Record<string, string>>;

    before(async () => {
      scene = await createScene();
      // The disk of whoever runs this may be small.
      const flags = ['quota.overcommit=1000', 'maintenance.enabled=false'];
      server = await scene.startServer({
        backend,
        flags: flags.flatMap((flag) => ['--set', flag]),
      });
      source = await scene.makeRepository();
      const key = await scene.sshKey();
      await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
      sshEnv = await key.environment(server);
    });
    after(() => scene.close());

    /** Adds a commit with so many bytes that do not compress to a new branch. Returns the branch. */
    async function branchOf(bytes: number): Promise<string> {
      const branch = `b-${randomBytes(4).toString('hex')}`;
      await scene.git(['checkout', '-q', '-B', branch, 'main'], { cwd: source });
      await scene.git(['hash-object', '-w', '--stdin'], {
        cwd: source,
        stdin: randomBytes(bytes),
      });
      const blob = await scene.git(['hash-object', '-w', '--stdin'], {
        cwd: source,
        stdin: randomBytes(bytes),
      });
      await scene.git(['update-index', '--add', '--cacheinfo', `100644,${blob.trim()},noise`], {
        cwd: source,
      });
      await scene.git(['commit', '-q', '-m', 'noise'], { cwd: source });
      return branch;
    }

    function push(transport: 'http' | 'ssh', repository: string, refs: string): Promise<Finished> {
      const url = transport === 'http' ? server.httpUrl(repository) : server.sshUrl(repository);
      const env = transport === 'http' ? {} : sshEnv;
      return scene.tryGit(['push', url, refs], { cwd: source, env });
    }

    async function usedBytes(...scope: readonly string[]): Promise<number> {
      const shown: unknown = JSON.parse(
        await scene.admin(server, 'quota', 'show', '--json', ...scope),
      );
      assert.ok(typeof shown === 'object' && shown !== null && 'usedBytes' in shown);
      return Number(shown.usedBytes);
    }

    for (const transport of ['http', 'ssh'] as const) {
      test(`a repository's quota over ${transport}: warned, refused, raised`, async () => {
        const name = `by-${transport}/app`;
        assert.equal((await push(transport, name, 'main')).exitCode, 0);
        await scene.admin(server, 'quota', 'set', name, '4m');
        const near = await push(transport, name, await branchOf(3.5 * MIB));
        assert.equal(near.exitCode, 0, near.stderr);
        if (backend === 'local') {
          assert.match(
            near.stderr,
            new RegExp(
              `remote: warning: repository ${name} uses 8\\d % of its quota: 3.5 MiB of 4.0 MiB`,
            ),
          );
        }
        const stored = await usedBytes(name);
        assert.ok(stored > 3.5 * MIB, `${stored} bytes`);
        const branch = await branchOf(2 * MIB);
        const refused = await push(transport, name, branch);
        assert.notEqual(refused.exitCode, 0);
        assert.match(
          refused.stderr,
          new RegExp(`quota exceeded: repository ${name} has 3.5 MiB of 4.0 MiB`),
        );
        assert.equal(await usedBytes(name), stored, 'nothing is left of it');
        // What adds nothing goes on: another branch on a known commit, and deletions.
        assert.equal((await push(transport, name, 'main:refs/heads/again')).exitCode, 0);
        assert.equal((await push(transport, name, ':refs/heads/again')).exitCode, 0);
        await scene.admin(server, 'quota', 'set', name, '8m');
        assert.equal((await push(transport, name, branch)).exitCode, 0);
        await scene.admin(server, 'quota', 'remove', name);
        assert.equal((await push(transport, name, await branchOf(4 * MIB))).exitCode, 0);
      });
    }

    test("an owner's quota is for all repositories of the owner together", async () => {
      for (const name of ['team/one', 'team/two', 'other/one']) {
        assert.equal((await push('http', name, 'main')).exitCode, 0);
      }
      await scene.admin(server, 'quota', 'set', '--owner', 'team', '5m');
      assert.equal((await push('http', 'team/one', await branchOf(3 * MIB))).exitCode, 0);
      // What other tools wrote, or this server before, is counted when it matters.
      const refused = await push('ssh', 'team/two', await branchOf(3 * MIB));
      assert.notEqual(refused.exitCode, 0);
      assert.match(refused.stderr, /quota exceeded: owner team has 3\.\d MiB of 5\.0 MiB/);
      assert.equal((await push('http', 'other/one', await branchOf(6 * MIB))).exitCode, 0);
      const listed = await scene.admin(server, 'quota', 'list');
      assert.match(listed, /owner +team +5\.0 MiB +3\.\d MiB +ok/);
      // One that does not fit is not moved there.
      assert.equal((await push('http', 'big/app', await branchOf(4 * MIB))).exitCode, 0);
      // The directory backend counts packs, and loose objects by samples.
      await scene.admin(server, 'repo', 'maintain', 'big/app');
      const full = await scene.quorate(server, ['repo', 'rename', 'big/app', 'team/big']);
      assert.equal(full.exitCode, 1);
      assert.match(
        full.stderr,
        /quota exceeded: owner team has 3\.\d MiB of 5\.0 MiB, and big\/app has 4\.\d MiB/,
      );
      assert.match(await scene.admin(server, 'repo', 'show', 'big/app'), /big\/app/);
      // A repository that leaves takes its bytes along.
      await scene.admin(server, 'repo', 'rename', 'team/one', 'other/moved');
      assert.equal((await push('http', 'team/two', await branchOf(3 * MIB))).exitCode, 0);
      await scene.admin(server, 'repo', 'delete', 'team/two', '--yes');
      assert.ok((await usedBytes('--owner', 'team')) < MIB);
      const metrics = await (await fetch(`${server.opsUrl}/metrics`)).text();
      assert.match(metrics, /quorate_quota_pushes_total\{outcome="refused"\} [1-9]/);
      if (backend === 'local') {
        assert.match(metrics, /quorate_quota_pushes_total\{outcome="ok"\} [1-9]/);
        assert.match(metrics, /quorate_quota_pushes_total\{outcome="warned"\} [1-9]/);
      }
    });
  });
}

test('of pushes that fit one by one, and not together, only so many are let in', async (t) => {
  const scene = await createScene(t);
  const flags = ['--set', 'quota.overcommit=1000', '--set', 'maintenance.enabled=false'];
  const server = await scene.startServer({ flags });
  const source = await scene.makeRepository();
  const url = server.httpUrl('team/app');
  await scene.git(['push', '-q', url, 'main'], { cwd: source });
  const branches: string[] = [];
  for (let n = 0; n < 6; n += 1) {
    const branch = `b${n}`;
    await scene.git(['checkout', '-q', '-B', branch, 'main'], { cwd: source });
    await scene.commit(source, 'noise', randomBytes(MIB).toString('latin1'));
    branches.push(branch);
  }
  const [first = ''] = branches;
  const packed = await scene.git(['count-objects', '-v'], { cwd: source });
  assert.match(packed, /count: \d+/);
  await scene.git(['push', '-q', url, first], { cwd: source });
  const shown: unknown = JSON.parse(
    await scene.admin(server, 'quota', 'show', '--json', 'team/app'),
  );
  assert.ok(typeof shown === 'object' && shown !== null && 'usedBytes' in shown);
  const each = Number(shown.usedBytes);
  // Room for three of the next five.
  await scene.admin(server, 'quota', 'set', 'team/app', String(Math.floor(each * 4.5)));
  const pushed = await Promise.all(
    branches.slice(1).map((branch) => scene.tryGit(['push', url, branch], { cwd: source })),
  );
  assert.equal(pushed.filter(({ exitCode }) => exitCode === 0).length, 3);
  for (const { exitCode, stderr } of pushed) {
    if (exitCode !== 0) assert.match(stderr, /quota exceeded: repository team\/app has/);
  }
  assert.match(await scene.admin(server, 'quota', 'list'), /repository +team\/app .* warning/);
});

test('quotas promise no more of the disk than may be overcommitted', async (t) => {
  const scene = await createScene(t);
  const flags = ['--set', 'quota.overcommit=150', '--set', 'quota.capacity=2g'];
  const server = await scene.startServer({ flags });
  await scene.admin(server, 'repo', 'create', 'team/app');
  await scene.admin(server, 'quota', 'set', '--owner', 'one', '1g');
  await scene.admin(server, 'quota', 'set', '--owner', 'two', '1g');
  const refused = await scene.quorate(server, ['quota', 'set', 'team/app', '2g']);
  assert.equal(refused.exitCode, 1);
  assert.match(
    refused.stderr,
    /quotas would promise .* may promise .*150 % of the disk \(quota\.overcommit\)/,
  );
  // All that may be promised.
  await scene.admin(server, 'quota', 'set', 'team/app', '1g');
  const full = await scene.quorate(server, ['quota', 'set', '--owner', 'three', '10m']);
  assert.equal(full.exitCode, 1);
  await scene.admin(server, 'quota', 'set', '--owner', 'two', '10m');
  await scene.admin(server, 'quota', 'set', '--owner', 'three', '10m');
  const audit = await scene.admin(server, 'audit');
  assert.match(audit, /quota\.set/);
});
