import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { PushPipeline } from '../contract/pipeline.js';
import { judging, type LocalFixture, startLocal, zeroOid } from '../local/testing/local-fixture.js';

const open: LocalFixture[] = [];
afterEach(async () => {
  for (const fixture of open.splice(0)) await fixture.remove();
});

test('what a push was judged by is settled when it is over, by its allowance or by its judges', async () => {
  const settled: string[] = [];
  let hasAllowance = false;
  let refusal: string | undefined;
  const settles = (by: string) => async (_pushId: string, committed: boolean) => {
    settled.push(`${by}: ${committed}`);
  };
  const pipeline: PushPipeline = {
    ...judging({ preReceive: async () => refusal, settle: settles('judges') }),
    allowance: async () =>
      hasAllowance
        ? {
            maxPackBytes: 1_000_000,
            refuse: () => 'too much',
            warning: undefined,
            settle: settles('allowance'),
          }
        : undefined,
  };
  const local = await startLocal({ pipeline });
  open.push(local);
  const repository = await local.create('team/app');
  const newOid = await local.commit('one');
  for (hasAllowance of [false, true]) {
    for (refusal of ['no', undefined]) {
      const ref = `refs/heads/allowance-${hasAllowance}`;
      await local.push(repository, [{ ref, oldOid: zeroOid, newOid }]);
    }
  }
  assert.deepEqual(settled, [
    'judges: false',
    'judges: true',
    'allowance: false',
    'allowance: true',
  ]);
});
