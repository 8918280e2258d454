import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../contract/testing/until.js';
import { limitFiles, withFilesLeft } from '../testing/few-files.js';
import { silentLogger } from '../testing/indexer-fixture.js';
import { type Spawned, Spawner } from './spawner.js';

const path = process.env['PATH'] ?? '';
let spawner: Spawner;
let helper: number;
before(async () => {
  spawner = await Spawner.start({
    directory: mkdtempSync(join(tmpdir(), 'quorate-test-')),
    helpers: 1,
    runLock: undefined,
    path,
    logger: silentLogger,
    connectionMs: 500,
  });
  const child = await echo();
  helper = Number(
    /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))?.[1],
  );
  assert.equal(await outputOf(child), 'all\n');
});
after(() => spawner.close());

/** Says what it is told. */
function echo(by = spawner): Promise<Spawned> {
  const parts = { file: 'cat', args: [], cwd: '/', env: { PATH: path } };
  return by.spawn({ ...parts, stdin: true, leaveDescendants: false });
}

async function outputOf({ stdin, stdout, stderr, exited }: Spawned): Promise<string> {
  stdin?.end('all\n');
  stderr.resume();
  const chunks: Buffer[] = [];
  for await (const chunk of stdout) chunks.push(chunk);
  assert.deepEqual(await exited, { exitCode: 0, signal: null, lost: false });
  return Buffer.concat(chunks).toString();
}

const openFiles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** Without those of children that have ended just now, which are closed one by one. */
async function filesAtRest(pid: number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let look = 0; look < 50; look += 1) {
    least = Math.min(least, openFiles(pid));
    await sleep(10);
  }
  return least;
}

describe('spawner', () => {
  it('refuses when the server has no files for the streams, and goes on when it has', async () => {
    limitFiles(process.pid, 200);
    const atRest = await filesAtRest(process.pid);
    for (const left of [0, 1, 2]) {
      await until('the files are closed', () => openFiles(process.pid) <= atRest);
      await withFilesLeft(left, () => assert.rejects(echo(), { code: 'unavailable' }));
      assert.equal(await outputOf(await echo()), 'all\n');
    }
  });

  it('a helper without files loses none of those that it has', async () => {
    const atRest = await filesAtRest(helper);
    for (const left of [1, 2]) {
      limitFiles(helper, atRest + left);
      for (let time = 0; time < 4; time += 1) {
        await assert.rejects(echo(), { code: 'unavailable' });
      }
    }
    limitFiles(helper, 1_000);
    await until('the files are closed', () => openFiles(helper) === atRest);
    assert.equal(await outputOf(await echo()), 'all\n');
  });

  it('goes on when a helper cannot be started at first', async () => {
    let starts = 0;
    const refused = await Spawner.start({
      directory: mkdtempSync(join(tmpdir(), 'quorate-test-')),
      helpers: 1,
      runLock: undefined,
      // Thrown by Node, as is ENOMEM.
      get path() {
        return (starts += 1) < 3 ? '\0' : path;
      },
      logger: silentLogger,
    });
    try {
      assert.equal(await outputOf(await echo(refused)), 'all\n');
    } finally {
      await refused.close();
    }
  });
});
