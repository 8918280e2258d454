import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { emptyDirectory } from '../index-pack.js';
import { createPackIndexer } from '../indexer.js';
import { buildPack, copyDelta, objectId } from '../testing/build-pack.js';
import {
  createFixture,
  idleMeter,
  silentLogger,
  type Fixture,
} from '../testing/indexer-fixture.js';
import { limitFiles, withFilesLeft } from '../testing/few-files.js';
import { startLibgit2Pool, type Libgit2Pool } from './worker-pool.js';
import { until } from '../../contract/testing/until.js';

let fixture: Fixture;
before(async () => {
  fixture = await createFixture();
});
after(() => fixture.close());

const MIB = 1024 ** 2;
const small = buildPack([{ type: 'blob', content: Buffer.from('hello') }]);
/** Takes libgit2 a second or more. */
const slow = buildPack(
  Array.from({ length: 12 }, (_, i) => ({ type: 'blob', content: Buffer.alloc(60 * MIB, i) })),
);

async function startPool(
  workers = 1,
  memoryLimitBytes = 1024 * MIB,
  logger = silentLogger,
): Promise<Libgit2Pool> {
  const pool = await startLibgit2Pool({
    workers,
    configuration: { memoryLimitBytes },
    jobTimeoutMs: 60_000,
    logger,
  });
  return pool ?? assert.fail('libgit2 is not installed');
}

function job(pack: Uint8Array) {
  return {
    pack,
    quarantinePackDir: fixture.packDir,
    objectsDir: fixture.objectsDir,
    maxObjectBytes: 0,
    fsck: true,
  };
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('a worker killed in the middle makes its pack undecided, and is replaced', async () => {
  const pool = await startPool();
  const [pid = 0] = pool.pids;
  const running = pool.index(job(slow));
  const waiting = pool.index(job(small));
  await until('it indexes', () => readdirSync(fixture.packDir).length > 0);
  process.kill(pid, 'SIGKILL');
  assert.equal((await running).kind, 'undecided');
  assert.equal((await waiting).kind, 'undecided');
  await until('there is another', () => pool.pids.length === 1);
  assert.notEqual(pool.pids[0], pid);
  await emptyQuarantine();
  const verdict = await pool.index(job(small));
  assert.equal(verdict.kind, 'indexed');
  const pids = pool.pids;
  await pool.close();
  await pool.close();
  assert.ok(pids.every((pid) => !isAlive(pid)));
  assert.equal((await pool.index(job(small))).kind, 'undecided');
  await emptyQuarantine();
});

test('a worker for which there are no files is tried again later, and takes nothing with it', async () => {
  const warnings: string[] = [];
  const warn = (_: object, message: string) => void warnings.push(message);
  const pool = await startPool(1, 1024 * MIB, { ...silentLogger, warn });
  limitFiles(process.pid, 200);
  await withFilesLeft(0, async () => {
    process.kill(pool.pids[0] ?? 0, 'SIGKILL');
    await until('another is tried', () => warnings.length === 2);
  });
  assert.deepEqual(warnings, ['a libgit2 worker ended', 'a libgit2 worker did not start']);
  assert.equal((await pool.index(job(small))).kind, 'undecided');
  await until('there is another', () => pool.pids.length === 1);
  assert.equal((await pool.index(job(small))).kind, 'indexed');
  await pool.close();
  await emptyQuarantine();
});

test('a worker stays when a signal to stop reaches all processes of the server', async () => {
  const pool = await startPool();
  const [pid = 0] = pool.pids;
  const running = pool.index(job(slow));
  await until('it indexes', () => readdirSync(fixture.packDir).length > 0);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
  assert.equal((await running).kind, 'indexed');
  assert.deepEqual(pool.pids, [pid]);
  await pool.close();
  await emptyQuarantine();
});

test('a worker out of memory makes its pack undecided', async () => {
  const base = Buffer.alloc(60 * MIB);
  const delta = copyDelta({
    baseBytes: base.length,
    resultBytes: base.length / 2,
    copyBytes: 10 * MIB,
    times: 3,
  });
  const pack = buildPack([
    { type: 'blob', content: base },
    { type: 'ref-delta', base: objectId('blob', base), delta },
  ]);
  for (const [limitBytes, expected] of [
    [1024 * MIB, 'indexed'],
    [70 * MIB, 'undecided'],
  ] as const) {
    const pool = await startPool(1, limitBytes);
    const verdict = await pool.index(job(pack));
    await pool.close();
    await emptyQuarantine();
    assert.equal(verdict.kind, expected);
  }
});

test('close ends jobs that run and wait', async () => {
  const pool = await startPool(2);
  await until('both run', () => pool.pids.length === 2);
  const { pids } = pool;
  const jobs = [pool.index(job(slow)), pool.index(job(small)), pool.index(job(small))];
  await pool.close();
  for (const verdict of await Promise.all(jobs)) {
    assert.ok(verdict.kind === 'undecided' || verdict.kind === 'indexed');
  }
  assert.ok(pids.every((pid) => !isAlive(pid)));
  await emptyQuarantine();
});

test('a pack that takes libgit2 too long is given to git', async () => {
  const indexer = await createPackIndexer({
    git: fixture.git,
    logger: silentLogger,
    meter: idleMeter,
    workers: 1,
    workerTimeoutMs: 1,
  });
  const { result, message } = await fixture.index(indexer, slow);
  assert.equal(result?.engine, 'git', message);
  assert.equal(result?.objectCount, 12);
  await indexer.close();
});

test('many packs at once, on two workers', async () => {
  const indexer = await createPackIndexer({
    git: fixture.git,
    logger: silentLogger,
    meter: idleMeter,
    workers: 2,
  });
  const fixtures = await Promise.all(Array.from({ length: 8 }, () => createFixture()));
  try {
    const endings = await Promise.all(
      fixtures.map((one, i) =>
        one.index(indexer, buildPack([{ type: 'blob', content: Buffer.from(`blob ${i}`) }])),
      ),
    );
    for (const { result, message } of endings) assert.equal(result?.objectCount, 1, message);
    assert.equal(indexer.queued, 0);
  } finally {
    await indexer.close();
    await Promise.all(fixtures.map((one) => one.close()));
  }
});

async function emptyQuarantine(): Promise<void> {
  await emptyDirectory(fixture.packDir);
}
