import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';

/** How many files a process may have open (RLIMIT_NOFILE, its soft limit). */
export function limitFiles(pid: number, most: number): void {
  execFileSync('prlimit', ['--pid', String(pid), `--nofile=${most}:`]);
}

/** Takes all files that this process may have but so many, while `use` runs. Limit them before. */
export async function withFilesLeft(left: number, use: () => Promise<void>): Promise<void> {
  const taken: number[] = [];
  const takeAll = (): void => {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  };
  try {
    assert.throws(takeAll, { code: 'EMFILE' });
    for (const file of taken.splice(0, left)) closeSync(file);
    await use();
  } finally {
    for (const file of taken) closeSync(file);
  }
}
