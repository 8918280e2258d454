import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, statfs, writeFile, rm } from 'node:fs/promises';
import { Agent } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { Observer } from './checker/observer.js';
import { createScene, waitFor } from './harness.js';
import type { Scene } from './harness.js';

const mebibyte = 1024 * 1024;

/** A disk of its own for the server. */
async function smallDisk(scene: Scene, sizeMebibytes: number): Promise<string> {
  assert.equal(process.getuid?.(), 0, 'this test mounts a file system: it has to run as root');
  const directory = scene.path('disk');
  await mkdir(directory);
  const size = `size=${sizeMebibytes}m`;
  const mounted = await scene.run('mount', ['-t', 'tmpfs', '-o', size, 'quorate-test', directory]);
  assert.equal(mounted.exitCode, 0, mounted.stderr);
  return directory;
}

/** Leaves so many bytes of the disk. */
async function fillBut(directory: string, leftBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const fillBytes = bavail * bsize - leftBytes;
  if (fillBytes <= 0) return;
  await writeFile(path.join(directory, 'ballast'), Buffer.alloc(fillBytes)).catch(
    (error: unknown) => {
      // What the server wrote meanwhile: then the disk is as full as it gets.
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    },
  );
}

test('a full disk refuses pushes, keeps what is there, and reads go on', async (t) => {
  const scene = await createScene();
  const disk = await smallDisk(scene, 96);
  const dataDirectory = path.join(disk, 'data');
  const server = await scene.startServer({ dataDirectory });
  const agent = new Agent();
  try {
    const observer = new Observer({ scene, server, agent });
    const source = await scene.makeRepository({ commits: 3 });
    const url = server.httpUrl('team/app');
    const small = async (): Promise<void> => {
      await scene.commit(source, 'small', randomBytes(8).toString('hex'));
    };
    const push = () => scene.tryGit(['push', '--porcelain', url, 'HEAD:main'], { cwd: source });
    const head = async (): Promise<string> =>
      (await scene.git(['ls-remote', url, 'refs/heads/main'])).slice(0, 40);
    const local = async (): Promise<string> =>
      (await scene.git(['rev-parse', 'HEAD'], { cwd: source })).trim();

    await scene.git(['push', '-q', url, 'main'], { cwd: source });
    let acknowledged = await local();

    // A pack that does not fit, then small ones with less and less room.
    await writeFile(path.join(source, 'large'), randomBytes(120 * mebibyte));
    await scene.git(['add', 'large'], { cwd: source });
    await scene.git(['commit', '-q', '-m', 'Large'], { cwd: source });
    const refused = await push();
    assert.equal(refused.exitCode, 1, refused.stderr);
    assert.match(refused.stdout, /^!\t.*\[remote rejected\]/m, refused.stderr);
    await scene.git(['reset', '-q', '--hard', 'HEAD~1'], { cwd: source });
    assert.equal(await head(), acknowledged);

    let refusals = 0;
    for (const left of [40_960, 33_000, 32_700, 1024, 64, 16, 4, 0]) {
      await rm(path.join(disk, 'ballast'), { force: true });
      await fillBut(disk, left * 1024);
      for (let n = 0; n < 3; n += 1) {
        await small();
        const result = await push();
        if (result.exitCode === 0) acknowledged = await local();
        else {
          refusals += 1;
          assert.match(result.stdout, /^!\t.*\[remote rejected\]|^$/m, result.stderr);
        }
        assert.equal(await head(), acknowledged, `with ${left} KiB left: ${result.stdout}`);
      }
      const clone = scene.path('work', `clone-${left}`);
      await scene.git(['clone', '-q', '--bare', url, clone]);
    }
    assert.ok(refusals > 3, 'the disk was never full');
    t.diagnostic(`${refusals} small pushes refused`);

    await rm(path.join(disk, 'ballast'));
    await small();
    await waitFor('pushes to work again', async () => (await push()).exitCode === 0);
    assert.equal(await head(), await local());
    const found = await observer.refs(['team/app']);
    assert.equal(found.get('team/app')?.get('refs/heads/main'), await local());
    await server.stop();
    await server.relaunch().ready();
    assert.equal(await head(), await local());
  } finally {
    agent.destroy();
    // The server first, then its disk, then the place where the disk is mounted.
    await server.kill('SIGTERM');
    const unmounted = await scene.run('umount', ['--lazy', disk]);
    assert.equal(unmounted.exitCode, 0, unmounted.stderr);
    await scene.close();
  }
});
