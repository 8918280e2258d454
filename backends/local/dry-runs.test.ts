import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DryRun, RefFailure } from '../git/ref-dry-run.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { DryRuns } from './dry-runs.js';
import { RefsQueue } from './refs-queue.js';

const oid = 'a'.repeat(40);
const zero = '0'.repeat(40);

function runOf(...refs: readonly string[]): DryRun {
  return {
    gitDir: '/nowhere',
    objectDirectory: undefined,
    updates: refs.map((ref) => ({ ref, oldOid: zero, newOid: oid })),
  };
}

function never(): never {
  throw new Error('not part of this test');
}

function names(runs: readonly DryRun[]): string {
  return runs.map(({ updates }) => updates.map(({ ref }) => ref).join()).join(' + ');
}

/** Takes every ref but those named `bad`; tells what it was asked. */
function fakeRefs(asked: string[], together: () => Promise<boolean>): RefTransactions {
  return {
    passTogether: (runs) => {
      asked.push(`together ${names(runs)}`);
      return together();
    },
    dryRun: (run) => {
      asked.push(`alone ${names([run])}`);
      if (run.updates.some(({ ref }) => ref === 'refs/broken')) {
        return Promise.reject(new Error('git is gone'));
      }
      const bad = run.updates.filter(({ ref }) => ref.endsWith('bad'));
      return Promise.resolve(new Map(bad.map(({ ref }): [string, RefFailure] => [ref, 'stale'])));
    },
    commitEither: never,
    setHead: never,
    release: never,
    close: never,
  };
}

async function judgeAtOnce(
  runs: readonly DryRun[],
  together: () => Promise<boolean>,
): Promise<{ asked: readonly string[]; ends: readonly string[] }> {
  const asked: string[] = [];
  const queue = new RefsQueue();
  const dryRuns = new DryRuns(queue, { remove: never });
  const dependencies = { refs: fakeRefs(asked, together) };
  // Something runs already, so that all wait.
  const before = queue.run(() => new Promise<void>((resolve) => setImmediate(resolve)));
  const ends = await Promise.allSettled(runs.map((run) => dryRuns.judge(dependencies, run)));
  await before;
  return {
    asked,
    ends: ends.map((end) =>
      end.status === 'rejected' ? String(end.reason) : [...end.value].join() || 'passes',
    ),
  };
}

test('one that is alone is asked for alone', async () => {
  const { asked, ends } = await judgeAtOnce([runOf('refs/a')], () => Promise.resolve(true));
  assert.deepEqual(asked, ['alone refs/a']);
  assert.deepEqual(ends, ['passes']);
});

test('those that wait together are one transaction, if git takes it', async () => {
  const runs = [runOf('refs/a', 'refs/b'), runOf('refs/c'), runOf('refs/d')];
  const { asked, ends } = await judgeAtOnce(runs, () => Promise.resolve(true));
  assert.deepEqual(asked, ['together refs/a,refs/b + refs/c + refs/d']);
  assert.deepEqual(ends, ['passes', 'passes', 'passes']);
});

for (const { desc, together } of [
  { desc: 'does not take it', together: () => Promise.resolve(false) },
  { desc: 'fails', together: () => Promise.reject(new Error('git is gone')) },
]) {
  test(`when git ${desc}, each is judged by itself, and told alone`, async () => {
    const runs = [runOf('refs/a'), runOf('refs/bad'), runOf('refs/broken'), runOf('refs/d')];
    const { asked, ends } = await judgeAtOnce(runs, together);
    assert.deepEqual(asked.slice(1), [
      'alone refs/a',
      'alone refs/bad',
      'alone refs/broken',
      'alone refs/d',
    ]);
    assert.deepEqual(ends, ['passes', 'refs/bad,stale', 'Error: git is gone', 'passes']);
  });
}

test('the same ref in two of them is not one transaction', async () => {
  const runs = [runOf('refs/a'), runOf('refs/a'), runOf('refs/b')];
  const { asked } = await judgeAtOnce(runs, () => Promise.resolve(true));
  assert.deepEqual(asked, ['together refs/a + refs/b', 'alone refs/a']);
});
