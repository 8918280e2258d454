import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HeadFound, HeadVerdict } from '../contract/recovery.js';
import { createClusterRecovery } from './cluster-recovery.js';

const { signal } = new AbortController();

/** What the disks hold of one repository against its head, and what became of it. */
function scene(
  verdicts: readonly HeadVerdict[],
  frozen?: string,
  {
    members = {},
    unheard = [],
  }: {
    readonly members?: Readonly<Record<string, number>>;
    readonly unheard?: readonly string[];
  } = {},
) {
  const found = verdicts.map((verdict, n): HeadFound => ({
    repositoryId: `r${n}`,
    name: `team/r${n}`,
    verdict,
    headGeneration: 1,
    generation: 2,
    copies: [],
  }));
  const nodes = unheard.map((nodeId) => {
    return { nodeId, copies: undefined, trouble: 'it took too long' };
  });
  const raised: string[] = [];
  const kept: string[] = [];
  let accepted = 0;
  let recoveredAs: number | undefined;
  const recovery = createClusterRecovery({
    backend: {
      recovery: {
        compare: () =>
          Promise.resolve({ compared: found.length, found, nodes, unheard, unrecorded: [] }),
        raise: ({ repositoryId }) => {
          raised.push(repositoryId);
          return Promise.resolve();
        },
        keepCopies: (stuck) => {
          kept.push(...stuck.map(({ repositoryId }) => repositoryId));
          return Promise.resolve();
        },
      },
    },
    identity: {
      frozen:
        frozen === undefined ? undefined : { reason: 'went-back', message: frozen, details: {} },
      get recoveredAs() {
        return recoveredAs;
      },
      incarnation: 1,
      check: () => Promise.resolve(),
      accept: () => {
        accepted++;
        recoveredAs = 2;
        return Promise.resolve();
      },
    },
    membersBehind: (incarnation) =>
      Promise.resolve(Object.keys(members).filter((name) => (members[name] ?? 0) < incarnation)),
  });
  return { recovery, raised, kept, accepted: () => accepted };
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
    assert.equal((await recovery.run({ apply: false, force: false, signal })).restart, undefined);
    const run = recovery.run({ apply: true, force: true, signal });
    await assert.rejects(run, { code: 'failed-precondition', message: /nothing to recover/ });
    assert.deepEqual(raised, []);
  }
});

test('an older copy is gone on from once its heads are raised, and stuck ones given up', async () => {
  const verdicts = ['behind', 'split', 'moved', 'unfinished'] as const;
  const { recovery, raised, kept, accepted } = scene(verdicts, 'an older copy');
  const run = (force: boolean) => recovery.run({ apply: true, force, signal });
  await assert.rejects(run(false), { message: /^1 repository cannot be recovered .* team\/r1 / });
  assert.deepEqual([raised, accepted()], [[], 0]);
  assert.equal((await run(true)).applied, true);
  assert.deepEqual([raised, kept, accepted()], [['r0', 'r2', 'r3'], ['r1'], 1]);
});

test('while a node does not say what it holds, an older copy is gone on from by force only', async () => {
  const { recovery, raised, accepted } = scene(['behind'], 'an older copy', { unheard: ['four'] });
  const run = (force: boolean) => recovery.run({ apply: true, force, signal });
  await assert.rejects(run(false), {
    code: 'failed-precondition',
    message: /might be the latest, from four \(of four: it took too long\): start .* --force$/,
  });
  assert.deepEqual([raised, accepted()], [[], 0]);
  await run(true);
  assert.deepEqual([raised, accepted()], [['r0'], 1]);
});

test('between the decision and the last restart, those are named that are left', async () => {
  const members: Record<string, number> = { 'front-end-1': 1, 'storage-1': 1 };
  const { recovery, accepted } = scene([], 'an older copy', { members });
  const run = (apply: boolean) => recovery.run({ apply, force: false, signal });
  assert.equal((await run(false)).restart, undefined, 'nothing is decided yet');
  const { applied, restart } = await run(true);
  assert.deepEqual([applied, restart], [true, { members: ['front-end-1', 'storage-1'] }]);
  members['storage-1'] = 2;
  const shown = await run(false);
  assert.deepEqual([shown.applied, shown.restart], [false, { members: ['front-end-1'] }]);
  await assert.rejects(run(true), {
    code: 'failed-precondition',
    message: /^the recovery was applied already; what is left is to restart front-end-1$/,
  });
  assert.equal(accepted(), 1);
});

test('a server that stands alone is the one to be restarted', async () => {
  const { recovery } = scene([], 'an older copy');
  await recovery.run({ apply: true, force: false, signal });
  const again = await recovery.run({ apply: false, force: false, signal });
  assert.deepEqual(again.restart, { members: [] });
  await assert.rejects(recovery.run({ apply: true, force: false, signal }), {
    message: /what is left is to restart this server$/,
  });
});
