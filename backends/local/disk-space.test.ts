import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { diskProblem, fullness } from './disk-space.js';

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

const block = 4096;
const mebibytes = (count: number): number => (count * 1024 * 1024) / block;
for (const { desc, bavail, files, ffree, says } of [
  { desc: 'room', bavail: mebibytes(64), files: 10_000, ffree: 1_000, says: undefined },
  { desc: 'no bound on files', bavail: mebibytes(64), files: 0, ffree: 0, says: undefined },
  { desc: 'too little room', bavail: mebibytes(63), files: 0, ffree: 0, says: /full: .* 64 MiB/ },
  {
    desc: 'too few inodes',
    bavail: mebibytes(1_000),
    files: 10_000,
    ffree: 999,
    says: /^the disk of \/data takes hardly any more files: less than 1000 inodes .* remove files/,
  },
] as const) {
  test(`what a disk has too little of is told with what to do (${desc})`, () => {
    const problem = fullness('/data', { bavail, bsize: block, files, ffree });
    if (says === undefined) assert.equal(problem, undefined);
    else assert.match(problem ?? '', says);
  });
}
