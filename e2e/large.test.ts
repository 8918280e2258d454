import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { rm, statfs } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { createScene } from './harness.js';
import type { Scene } from './harness.js';
import { watchMemory } from './memory.js';

const mib = 1024 ** 2;
/** The whole size by default: it crosses 2 GiB, where 31 bits end. 85 s and 7 GB of disk on two cores. */
const sizeMib = Number(process.env['QUORATE_TEST_LARGE_MB'] ?? 2048);
/** The bar, whatever the size. */
const maxNodeBytes = 500 * mib;
const blobMib = 50;
const gitTimeoutMs = 10 * 60_000;

test(`a push and clones of ${sizeMib} MB pass with less than 500 MB in all Node processes`, async (t) => {
  const scene = await createScene(t);
  // Source, server's copy, one clone at a time, and the server's background repack.
  const neededBytes = (sizeMib * 3.5 + 256) * mib;
  const { bavail, bsize } = await statfs(scene.directory);
  assert.ok(
    bavail * bsize > neededBytes,
    `this test needs ${neededBytes} bytes of free disk below TMPDIR; QUORATE_TEST_LARGE_MB makes it smaller`,
  );
  const source = await makeLargeRepository(scene, sizeMib);
  const server = await scene.startServer();
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const tips = await scene.git(['rev-parse', 'main'], { cwd: source });

  const measured = async (what: string, run: () => Promise<unknown>): Promise<void> => {
    const watch = watchMemory(server.pid);
    const startedMs = performance.now();
    let peak;
    try {
      await run();
    } finally {
      peak = await watch.stop();
    }
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    const told = `${what}: ${seconds} s, Node ${Math.round(peak.nodeBytes / mib)} MB, git ${Math.round(peak.otherBytes / mib)} MB at most`;
    t.diagnostic(told);
    assert.ok(peak.nodeBytes < maxNodeBytes, told);
    assert.ok(peak.nodeBytes > mib && peak.samples > 1, `nothing was measured: ${told}`);
  };
  const clone = async (url: string, env: Readonly<Record<string, string>>): Promise<void> => {
    const target = scene.path('work', 'clone');
    await scene.git(['clone', '-q', '--bare', url, target], { env, timeoutMs: gitTimeoutMs });
    assert.equal(await scene.git(['rev-parse', 'main'], { cwd: target }), tips);
    await rm(target, { recursive: true });
  };

  await measured('push over HTTP', () =>
    scene.git(['push', '-q', server.httpUrl('large.git'), 'main'], {
      cwd: source,
      timeoutMs: gitTimeoutMs,
    }),
  );
  await measured('clone over HTTP', () => clone(server.httpUrl('large.git'), {}));
  const ssh = await key.environment(server);
  await measured('clone over SSH', () => clone(server.sshUrl('large.git'), ssh));
});

/** Incompressible blobs in one pack, made as fast as the disk takes them. */
async function makeLargeRepository(scene: Scene, totalMib: number): Promise<string> {
  const repository = scene.path('work', 'large.git');
  await scene.git(['init', '-q', '--bare', '-b', 'main', repository]);
  for (const [name, value] of [
    ['core.compression', '0'],
    ['pack.compression', '0'],
    // Stored and sent as they are: nobody looks for deltas between random bytes.
    ['core.bigFileThreshold', '1m'],
  ] as const) {
    await scene.git(['config', name, value], { cwd: repository });
  }
  const child = spawn('git', ['fast-import', '--quiet'], {
    cwd: repository,
    env: { ...scene.env },
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const exited = new Promise((resolve) => child.once('close', resolve));
  await pipeline(Readable.from(importStream(totalMib)), child.stdin);
  assert.equal(await exited, 0, 'git fast-import failed');
  return repository;
}

function* importStream(totalMib: number): Generator<Buffer> {
  // Seeded: a stream cipher's output is as incompressible as noise, and the same every time.
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, 'large'), Buffer.alloc(16));
  const zeros = Buffer.alloc(mib);
  const count = Math.max(1, Math.round(totalMib / blobMib));
  yield Buffer.from(
    'commit refs/heads/main\ncommitter T <t@example.org> 1700000000 +0000\ndata 0\n',
  );
  for (let n = 0; n < count; n += 1) {
    yield Buffer.from(`M 100644 inline blob-${n}.bin\ndata ${blobMib * mib}\n`);
    for (let part = 0; part < blobMib; part += 1) yield noise.update(zeros);
    yield Buffer.from('\n');
  }
}
