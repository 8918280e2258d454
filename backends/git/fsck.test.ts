import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { findBroken } from './fsck.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, TestRepository } from './testing/repository.js';

const { signal } = new AbortController();

test('a repository is not called broken while too many gits wait for their turn', async () => {
  const limits = { runs: 1, queued: 0 };
  const git = await createGitRunner({ logger: quietLogger, meter: noMeter, helpers: 1, limits });
  const repository = new TestRepository();
  const busy = new AbortController();
  try {
    const endless = new Readable({ read: () => undefined });
    const args = ['cat-file', '--batch-check'];
    const env = { GIT_DIR: repository.gitDir };
    const running = git.run({ args, env, stdin: endless, signal: busy.signal });
    running.catch(() => undefined);
    const looked = { git, gitDir: repository.gitDir, signal };
    const found = findBroken({ ...looked, still: (look) => look(signal) });
    await assert.rejects(found, { code: 'resource-exhausted' });
    busy.abort();
    await assert.rejects(running, { code: 'cancelled' });
    assert.deepEqual(await findBroken({ ...looked, still: (look) => look(signal) }), []);
  } finally {
    busy.abort();
    await git.close();
    repository.remove();
  }
});

/** Where the names begin in the index of a pack (gitformat-pack(5), version 2). */
const namesAt = 8 + 256 * 4;

test('an object that has another hash than its name is broken, whatever the checksums of its pack and index', async () => {
  const git = await createGitRunner({ logger: quietLogger, meter: noMeter, helpers: 1 });
  const repository = new TestRepository();
  try {
    const blob = repository.git(['hash-object', '-w', '--stdin'], 'x');
    const pack = `${repository.objectsDir}/pack/pack`;
    const name = repository.git(['pack-objects', '-q', pack], `${blob}\n`);
    repository.git(['prune-packed']);
    const path = `${pack}-${name}.idx`;
    const index = readFileSync(path);
    const last = namesAt + 19;
    index[last] = (index[last] ?? 0) ^ 1;
    const end = index.length - 20;
    createHash('sha1').update(index.subarray(0, end)).digest().copy(index, end);
    rmSync(path);
    writeFileSync(path, index);
    const looked = { git, gitDir: repository.gitDir, signal };
    const broken = await findBroken({ ...looked, still: (look) => look(signal) });
    assert.notDeepEqual(broken, []);
  } finally {
    await git.close();
    repository.remove();
  }
});
