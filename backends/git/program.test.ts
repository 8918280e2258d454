import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { HookEnd } from '../contract/hook.js';
import type { GitRunner } from './git-runner.js';
import type { ProgramCommand } from './program.js';
import { createGitRunner } from './runner.js';
import { noMeter, processesWith, quietLogger } from './testing/repository.js';
import { until } from '../contract/testing/until.js';

let git: GitRunner;
let directory: string;
before(async () => {
  git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  directory = mkdtempSync(join(tmpdir(), 'quorate-program-'));
});
after(async () => {
  await git.close();
  rmSync(directory, { recursive: true, force: true });
});

interface Ran {
  readonly end: HookEnd;
  readonly output: string;
  /** In the environment of everything that it started. */
  readonly mark: string;
}

async function run(lines: string, changes: Partial<ProgramCommand> = {}): Promise<Ran> {
  const mark = randomUUID();
  const file = join(directory, mark);
  writeFileSync(file, `#!/bin/sh\n${lines}\n`, { mode: 0o700 });
  let output = '';
  const end = await git.program({
    file,
    args: [],
    cwd: directory,
    env: { MARK: mark },
    marker: 'MARK',
    stdin: Buffer.from('input\n'),
    limits: { timeoutMs: 60_000, maxOutputBytes: 4096, maxProcesses: 20 },
    output: (bytes) => {
      output += Buffer.from(bytes).toString();
    },
    signal: new AbortController().signal,
    ...changes,
  });
  return { end, output, mark };
}

const gone = (mark: string): Promise<void> =>
  until('nothing of it is left', () => processesWith(`MARK=${mark}`).length === 0);

describe('a program', () => {
  it('gets its arguments, stdin and environment, and nothing of the server', async () => {
    process.env['QUORATE_TEST_SECRET'] = 'secret';
    const { end, output } = await run('cat; echo "$1"; env; exit 3', { args: ['an argument'] });
    assert.deepEqual(end, { how: 'exited', exitCode: 3 });
    assert.match(output, /^input\nan argument\n/);
    assert.doesNotMatch(output, /secret/);
  });

  it('that ignores a large stdin is not waited for', async () => {
    const { end } = await run('exit 0', { stdin: Buffer.alloc(8 * 1024 * 1024) });
    assert.deepEqual(end, { how: 'exited', exitCode: 0 });
  });

  it('leaves nothing behind, not even in a session of its own', async () => {
    // It ends only when the other has left its group.
    const { end, mark } = await run(
      'sleep 1000 & setsid sh -c "touch left-$MARK; exec sleep 1000" & ' +
        'until [ -e left-$MARK ]; do sleep 0.01; done; exit 0',
    );
    assert.deepEqual(end, { how: 'exited', exitCode: 0 });
    await gone(mark);
  });

  it('is ended when its time is up, when it floods, and when the caller gives up', async () => {
    const limits = { timeoutMs: 60_000, maxOutputBytes: 4096, maxProcesses: 20 };
    const late = await run('sleep 1000', { limits: { ...limits, timeoutMs: 100 } });
    assert.deepEqual(late.end, { how: 'too-long' });
    const flood = await run('yes');
    assert.deepEqual(flood.end, { how: 'too-much-output' });
    assert.ok(flood.output.length <= 4096);
    const leaving = new AbortController();
    const given = await run('echo begun; sleep 1000', {
      signal: leaving.signal,
      output: () => leaving.abort(),
    });
    assert.deepEqual(given.end, { how: 'cancelled' });
    for (const { mark } of [late, flood, given]) await gone(mark);
  });

  it('is ended when it starts too many processes', async () => {
    const { end, mark } = await run('for i in 1 2 3 4 5; do sleep 1000 & done; wait', {
      limits: { timeoutMs: 60_000, maxOutputBytes: 4096, maxProcesses: 3 },
    });
    assert.deepEqual(end, { how: 'too-many-processes' });
    await gone(mark);
  });

  it('that was killed says by what', async () => {
    const { end } = await run('kill -SEGV $$');
    assert.deepEqual(end, { how: 'killed', signal: 'SIGSEGV' });
  });
});
