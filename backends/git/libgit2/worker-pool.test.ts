import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
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
import { makeEndlessPack } from '../testing/endless-pack.js';
import { limitFiles, withFilesLeft } from '../testing/few-files.js';
import { startLibgit2Pool, type Libgit2Pool } from './worker-pool.js';
import { standing } from '../../contract/testing/stopped.js';
import { awaited, until } from '../../contract/testing/until.js';

let fixture: Fixture;
before(async () => {
  fixture = await createFixture();
});
/** Also of tests that failed. */
const pools: Libgit2Pool[] = [];
after(async () => {
  for (const pool of pools) await pool.close();
  await fixture.close();
});

const MIB = 1024 ** 2;
const small = buildPack([{ type: 'blob', content: Buffer.from('hello') }]);
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
  assert.ok(pool !== undefined, 'libgit2 is not installed');
  pools.push(pool);
  return pool;
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

/** The processes that this one has started, and that live. */
function children(): readonly number[] {
  const pids = readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1');
  return pids.split(' ').filter(Boolean).map(Number);
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
  const endless = makeEndlessPack(fixture.objectsDir);
  const running = pool.index(job(endless.pack));
  const waiting = pool.index(job(small));
  await until('it indexes', () => readdirSync(fixture.packDir).length > 0);
  assert.equal(pool.queued, 1, 'the other waits for its end');
  process.kill(pid, 'SIGKILL');
  assert.equal((await awaited('its verdict', running)).kind, 'undecided');
  assert.equal((await awaited('the verdict on the other', waiting)).kind, 'undecided');
  endless.remove();
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
  const endless = makeEndlessPack(fixture.objectsDir);
  const running = pool.index(job(endless.pack));
  const waiting = pool.index(job(small));
  await until('it indexes', () => readdirSync(fixture.packDir).length > 0);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
  await endless.end();
  assert.equal((await awaited('its verdict', running)).kind, 'undecided', 'its base is broken');
  endless.remove();
  assert.equal((await awaited('the verdict on the other', waiting)).kind, 'indexed');
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
  const endless = makeEndlessPack(fixture.objectsDir);
  const jobs = Array.from({ length: 3 }, () => pool.index(job(endless.pack)));
  assert.equal(pool.queued, 1);
  await awaited('the pool to close', pool.close());
  for (const verdict of await Promise.all(jobs)) assert.equal(verdict.kind, 'undecided');
  assert.ok(pids.every((pid) => !isAlive(pid)));
  endless.remove();
  await emptyQuarantine();
});

test('a pack that takes libgit2 too long is given to git', async () => {
  const before = children();
  const indexer = await createPackIndexer({
    git: fixture.git,
    logger: silentLogger,
    meter: idleMeter,
    workers: 1,
    workerTimeoutMs: 1,
  });
  const [worker = 0, ...others] = children().filter((pid) => !before.includes(pid));
  assert.deepEqual(others, []);
  process.kill(worker, 'SIGSTOP');
  await standing(worker);
  const { result, message } = await awaited('git', fixture.index(indexer, small));
  assert.equal(result?.engine, 'git', message);
  assert.equal(result?.objectCount, 1);
  assert.ok(!isAlive(worker));
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
