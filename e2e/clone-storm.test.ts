/** Many clones of a large repository at once: they queue, and all finish, within a bound of memory. */
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { test, type TestContext } from 'node:test';
import { createScene, type Scene, type ServerProcess } from './harness.js';
import { watchShare } from './memory-share.js';

const MIB = 1024 ** 2;
const clones = 200;

/**
 * Size of the repository. 100 MiB take some minutes and 20 GiB of reading and writing, so an ordinary run has less:
 * what is bounded is the number of gits at once, not their share of it.
 */
const repositoryMib = Number(process.env['QUORATE_TEST_CLONE_MIB'] ?? '10');
const maxServerBytes = 1024 * MIB;

/**
 * A fetch is two gits. One user has three quarters of 256 MiB, and each fetch of so few objects counts 6: 32 at once on
 * each transport. The rest is for gits that serve the repository as such. Unbounded, there would be hundreds.
 */
const maxGits = { http: 2 * 32 + 16, 'http and ssh': 4 * 32 + 16 };

interface Storm {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly tip: string;
}

/** A server with a repository of so many files of 1 MiB that no compression makes smaller, in one commit per ten. */
async function prepare(t: TestContext): Promise<Storm> {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const files: Record<string, Uint8Array> = {};
  for (let n = 0; n < repositoryMib; n += 1) files[`blob-${n}`] = randomFillSync(Buffer.alloc(MIB));
  const source = await scene.makeRepository({ commits: 10, files });
  await scene.git(['push', '-q', server.httpUrl('big'), 'main'], {
    cwd: source,
    timeoutMs: 120_000,
  });
  const tip = (await scene.git(['rev-parse', 'HEAD'], { cwd: source })).trim();
  return { scene, server, tip };
}

/** Not to measure the clients' disk: nothing here is to outlive the test. */
const clientSettings = ['-c', 'core.fsync=none', '-c', 'pack.threads=1'];

/** Leaves nothing out, and has each clone ask for something else: equal ones would share one git. */
function unlikeOthers(n: number): string {
  return `--filter=blob:limit=${n + 1}g`;
}

/** Clones at once by real git, each removed when it has been looked at. Returns the ids of their tips. */
async function storm(
  { scene }: Storm,
  urlOf: (clone: number) => { readonly url: string; readonly env: Record<string, string> },
): Promise<readonly string[]> {
  return Promise.all(
    Array.from({ length: clones }, async (_, n) => {
      const { url, env } = urlOf(n);
      const target = scene.path('work', `clone-${n}`);
      const clone = [...clientSettings, 'clone', '-q', '--bare', unlikeOthers(n), url, target];
      // Hundreds of processes are not to starve the server, nor the tests that run beside this one.
      const cloned = await scene.run('nice', ['-n', '10', 'git', ...clone], {
        env,
        timeoutMs: 900_000,
      });
      assert.equal(cloned.exitCode, 0, `clone ${n}: ${cloned.stderr}`);
      const tip = await scene.git(['rev-parse', 'main'], { cwd: target });
      await rm(target, { recursive: true });
      return tip.trim();
    }),
  );
}

for (const mix of ['http', 'http and ssh'] as const) {
  test(`${clones} clones at once over ${mix} all finish, in less than 1 GB of memory`, async (t) => {
    const ground = await prepare(t);
    const { scene, server, tip } = ground;
    const key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    const sshEnv = await key.environment(server);
    const watch = watchShare(server.pid);
    // Also when a clone fails: it would keep this process.
    t.after(() => watch.stop());
    const startedMs = performance.now();
    const tips = await storm(ground, (n) =>
      mix === 'http' || n % 2 === 0
        ? { url: server.httpUrl('big'), env: {} }
        : { url: server.sshUrl('big'), env: { ...sshEnv } },
    );
    const peak = await watch.stop();
    t.diagnostic(
      `${clones} clones of ${repositoryMib} MiB over ${mix}: ` +
        `${Math.round(peak.pssBytes / MIB)} MiB at most (${peak.samples} samples), ` +
        `${peak.gits} gits at most, ${Math.round((performance.now() - startedMs) / 1000)} s`,
    );
    assert.deepEqual(new Set(tips), new Set([tip]));
    assert.ok(peak.gits <= maxGits[mix], `${peak.gits} gits`);
    assert.ok(peak.pssBytes < maxServerBytes, `${Math.round(peak.pssBytes / MIB)} MiB`);
  });
}

test('clones of a repository in several packs take more memory each, so fewer run at once', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer({ flags: ['--set', 'maintenance.enabled=false'] });
  const source = await scene.makeRepository();
  for (let n = 0; n < 4; n += 1) {
    await scene.commit(source, `noise-${n}`, randomFillSync(Buffer.alloc(MIB)).toString('latin1'));
    await scene.git(['push', '-q', server.httpUrl('packs'), 'main'], { cwd: source });
  }
  const watch = watchShare(server.pid);
  await Promise.all(
    Array.from({ length: 24 }, (_, n) =>
      scene.git(
        [
          'clone',
          '-q',
          '--bare',
          unlikeOthers(n),
          server.httpUrl('packs'),
          scene.path('work', `clone-${n}`),
        ],
        { timeoutMs: 300_000 },
      ),
    ),
  );
  const peak = await watch.stop();
  t.diagnostic(`${Math.round(peak.pssBytes / MIB)} MiB and ${peak.gits} gits at most`);
  // One user has 192 MiB, and each counts 54: three fetches of two gits, and those that serve the repository as such.
  assert.ok(peak.gits <= 3 * 2 + 8, `${peak.gits} gits`);
});
