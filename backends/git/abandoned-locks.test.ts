import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AbandonedLocks } from './abandoned-locks.js';

test('a lock that goes by itself while it is looked at is in nobody’s way', async () => {
  const gitDir = mkdtempSync(join(tmpdir(), 'quorate-locks-'));
  try {
    const lock = join(gitDir, 'HEAD.lock');
    writeFileSync(lock, '');
    let nowMs = 0;
    const locks = new AbandonedLocks({
      monotonicMs: () => {
        // Just when its age is asked for.
        if (nowMs > 0) rmSync(lock);
        return nowMs;
      },
    });
    assert.equal(await locks.remove(gitDir, []), 0);
    nowMs = 61_000;
    assert.equal(await locks.remove(gitDir, []), 0);
    assert.equal(await locks.areInTheWay(gitDir, []), false);
  } finally {
    rmSync(gitDir, { recursive: true });
  }
});
