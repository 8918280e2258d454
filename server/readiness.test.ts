import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Clock } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import type { GitConversation } from '../backends/git/git-runner.js';
import { createGitCheck } from './readiness.js';

let nowMs = 0;
/** A probe never waits here for longer than a turn. */
const clock: Clock = {
  nowMs: () => nowMs,
  monotonicMs: () => nowMs,
  sleep: () => new Promise((resolve) => setImmediate(resolve)),
};

function ended(exitCode: number): GitConversation {
  const stdout = new PassThrough();
  stdout.end('git version 2.39.5\n');
  return {
    stdout,
    exited: Promise.resolve({ exitCode, signal: null, stderr: '' }),
    left: Promise.resolve(),
    kill: () => undefined,
    end: () => undefined,
    write: () => Promise.resolve(),
  };
}

test('readiness starts git once in a while, and says so when it does not start', async () => {
  let starts = 0;
  const sound = ended(0);
  let answer = async (): Promise<GitConversation> => Promise.resolve(sound);
  const check = createGitCheck({
    clock,
    git: {
      converse: () => {
        starts += 1;
        return answer();
      },
    },
  });
  await check();
  assert.equal(starts, 0, 'it ran a moment ago');
  nowMs += 5_000;
  await Promise.all([check(), check(), check()]);
  await check();
  assert.equal(starts, 1);

  answer = () => Promise.reject(new QuorateError('unavailable', 'git is not installed'));
  await check();
  nowMs += 5_000;
  await assert.rejects(check(), /git is not installed/);
  await assert.rejects(check(), /git is not installed/);
  assert.equal(starts, 2);
  answer = async () => Promise.resolve(ended(127));
  nowMs += 5_000;
  await assert.rejects(check(), /git does not run/);
  answer = () => Promise.reject(new QuorateError('resource-exhausted', 'too many'));
  nowMs += 5_000;
  await check();
});

test('a busy machine is ready, and one on which git does not start for long is not', async () => {
  let start: ((git: GitConversation) => void) | undefined;
  const check = createGitCheck({
    clock,
    git: { converse: () => new Promise((resolve) => (start = resolve)) },
  });
  nowMs += 5_000;
  await check();
  nowMs += 19_000;
  await check();
  nowMs += 2_000;
  await assert.rejects(check(), /has not started for 20 s/);
  assert.ok(start !== undefined);
  start(ended(0));
  await check();
});
