import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HeadFound, HeadVerdict } from '../backends/contract/recovery.js';
import { createClusterRecovery } from './cluster-recovery.js';

const { signal } = new AbortController();

/** What the disks hold of one repository against its head, and what became of it. */
function scene(verdicts: readonly HeadVerdict[], frozen?: string) {
  const found = verdicts.map((verdict, n): HeadFound => ({
    repositoryId: `r${n}`,
    name: `team/r${n}`,
    verdict,
    headGeneration: 1,
    generation: 2,
    copies: [],
  }));
  const raised: string[] = [];
  let accepted = 0;
  const recovery = createClusterRecovery({
    backend: {
      recovery: {
        compare: () => Promise.resolve({ compared: found.length, found }),
        raise: ({ repositoryId }) => {
          raised.push(repositoryId);
          return Promise.resolve();
        },
      },
    },
    identity: {
      frozen:
        frozen === undefined ? undefined : { reason: 'went-back', message: frozen, details: {} },
      accept: () => {
        accepted++;
        return Promise.resolve();
      },
    },
  });
  return { recovery, raised, accepted: () => accepted };
}

test('heads behind their disks are raised though no process noticed an older copy of the coordinator', async () => {
  // All of it was killed at once: what the members remember is older than the copy that was put back.
  const { recovery, raised, accepted } = scene(['behind']);
  const shown = await recovery.run({ apply: false, force: false, signal });
  assert.deepEqual([shown.frozen, shown.applied, raised], [undefined, false, []]);
  const { applied } = await recovery.run({ apply: true, force: false, signal });
  assert.deepEqual([applied, raised], [true, ['r0']]);
  assert.equal(accepted(), 0, 'there is no older copy to go on from');
});

test('where nothing is frozen and no head is behind, there is nothing to recover', async () => {
  for (const verdicts of [[], ['unreachable']] as const) {
    const { recovery, raised } = scene(verdicts);
    const run = recovery.run({ apply: true, force: true, signal });
    await assert.rejects(run, { code: 'failed-precondition', message: /nothing to recover/ });
    assert.deepEqual(raised, []);
  }
});

test('an older copy is gone on from once its heads are raised, and stuck ones given up', async () => {
  const { recovery, raised, accepted } = scene(['behind', 'split'], 'an older copy');
  const run = (force: boolean) => recovery.run({ apply: true, force, signal });
  await assert.rejects(run(false), { message: /^1 repository cannot be recovered .* team\/r1 / });
  assert.deepEqual([raised, accepted()], [[], 0]);
  assert.equal((await run(true)).applied, true);
  assert.deepEqual([raised, accepted()], [['r0'], 1]);
});
