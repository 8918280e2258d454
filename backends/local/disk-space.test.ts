import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { diskProblem } from './disk-space.js';

// A full one: e2e/cluster/full-disk.test.ts.
test('a disk that takes nothing is told of with the place, the reason and what to do', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-space-'));
  try {
    assert.equal(await diskProblem(directory), undefined);
    const missing = join(directory, 'missing');
    const problem = (await diskProblem(missing)) ?? '';
    assert.ok(problem.startsWith(`${missing} cannot be written to (ENOENT): see whether`), problem);
  } finally {
    await rm(directory, { recursive: true });
  }
});
