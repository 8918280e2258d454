import assert from 'node:assert/strict';
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
