/** What maintenance leaves whose git failed, or was killed: nothing that is in anybody's way, or takes room. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { GitResult, GitRunner } from './git-runner.js';
import { repackObjects } from './maintenance.js';
import { writeCommitGraph } from './run-maintenance-git.js';
import { createFixture, type Fixture } from './testing/indexer-fixture.js';

const { signal } = new AbortController();

let fixture: Fixture;
beforeEach(async () => {
  fixture = await createFixture();
});
afterEach(() => fixture.close());

const ended = (exitCode: number | null): GitResult => ({
  exitCode,
  signal: exitCode === null ? 'SIGKILL' : null,
  stdout: Buffer.alloc(0),
  stderr: '',
});

const context = (run: GitRunner['run']) => ({
  git: { ...fixture.git, run },
  gitDir: fixture.gitDir,
  signal,
  background: false,
});

test('what a repack had written of a pack when it ended takes no room, and what others write stays', async () => {
  const packs = join(fixture.objectsDir, 'pack');
  const temporary = (name: string): string => join(packs, `tmp_pack_${name}`);
  const [before, ours, others] = [temporary('before'), temporary('ours'), temporary('others')];
  writeFileSync(before, '');
  for (const exitCode of [128, null]) {
    const held = await open(others, 'w');
    try {
      const run: GitRunner['run'] = async () => {
        writeFileSync(ours, 'PACK');
        return ended(exitCode);
      };
      const repacking = repackObjects(context(run), 'full');
      await assert.rejects(repacking, { code: 'storage-failure' });
      assert.deepEqual(
        [before, ours, others].map((path) => existsSync(path)),
        [true, false, true],
      );
    } finally {
      await held.close();
    }
  }
});

test('a git that is killed while it writes the commit graph leaves no lock, and one that fails leaves those of others', async () => {
  const graphs = join(fixture.objectsDir, 'info', 'commit-graphs');
  mkdirSync(graphs, { recursive: true });
  const lock = join(graphs, 'commit-graph-chain.lock');
  for (const exitCode of [null, 128]) {
    const run: GitRunner['run'] = async () => {
      writeFileSync(lock, '');
      return ended(exitCode);
    };
    await assert.rejects(writeCommitGraph(context(run), 'added'), { code: 'storage-failure' });
    assert.equal(existsSync(lock), exitCode !== null);
  }
});
