import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import type { HookRun } from '../contract/hook.js';
import type { RefCommand } from '../contract/objects.js';
import type { Replica } from '../contract/replica.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { stubReplica } from '../node/testing/stub-replica.js';
import { judgeOnPrimary, type JudgingReplica } from './judge.js';
import type { RepositoryRecord } from './records.js';

const { signal } = new AbortController();
const key = { repositoryId: 'ab'.repeat(16), pushId: 'push', attempt: 1 };
const voters = ['0', '1', '2'].map((n) => ({ nodeId: n, storeId: n, joinedEpoch: 1 }));
const record: RepositoryRecord = {
  id: key.repositoryId,
  name: 'team/app',
  objectFormat: 'sha1',
  settings: {},
  state: 'active',
  epoch: 1,
  voters,
  learners: [],
  createdAtMs: 0,
  access: { public: false, grants: {} },
};

const run: HookRun = {
  program: { digest: 'ab'.repeat(32), content: () => Promise.resolve(new Uint8Array()) },
  args: [],
  stdin: new Uint8Array(),
  env: {},
  limits: { timeoutMs: 1_000, maxOutputBytes: 100, maxProcesses: 1 },
  output: () => undefined,
  signal,
};

const away = (what: string): Promise<never> =>
  Promise.reject(new QuorateError('unavailable', `${what} does not answer`));

/** Judges a push that three stores are prepared for; returns those that are left. */
async function judged(
  judge: (replica: JudgingReplica) => Promise<readonly RefCommand[]>,
  calls: (storeId: string) => Partial<Replica> = () => ({}),
): Promise<readonly string[]> {
  const members = voters.map(({ storeId }) => ({
    storeId,
    replica: stubReplica(calls(storeId), storeId),
  }));
  const prepared = { storeId: '0', refused: new Map<string, string>(), currentBranch: undefined };
  const { members: left } = await judgeOnPrimary(
    {
      key,
      record,
      ready: { members, prepared },
      consistency: 'quorum',
      replicas: { nodes: () => [] },
      clock: systemClock,
      logger: silentLogger,
    },
    judge,
  );
  return left.map(({ storeId }) => storeId);
}

/** Of the first store: the others can do it. */
const failing =
  (runHook: Replica['runHook']) =>
  (storeId: string): Partial<Replica> => ({
    runHook: storeId === '0' ? runHook : () => Promise.resolve({ how: 'exited', exitCode: 0 }),
  });

test('a coordinator that does not say what the rules are is no reason to leave a store out', async () => {
  let times = 0;
  const judging = judged(() => {
    times += 1;
    return away('the coordinator');
  });
  await assert.rejects(judging, { code: 'unavailable', message: /^the coordinator/ });
  assert.equal(times, 1);
});

test('nor is one that does not give the program of a hook', async () => {
  const program = { ...run.program, content: () => away('the coordinator') };
  const asked: string[] = [];
  const judging = judged(
    async (replica) => {
      await replica.runHook(key, { ...run, program });
      return [];
    },
    (storeId) => ({
      runHook: async (_key, { program: wanted }) => {
        asked.push(storeId);
        await wanted.content();
        return { how: 'exited', exitCode: 0 };
      },
    }),
  );
  await assert.rejects(judging, { code: 'unavailable', message: /^the coordinator/ });
  assert.deepEqual(asked, ['0']);
});

test('a store that cannot run a hook is left out, whoever hands on what it said', async () => {
  const left = await judged(
    async (replica) => {
      await replica.runHook(key, run).catch((cause: unknown) => {
        throw new QuorateError('unavailable', 'a hook could not be run', { cause });
      });
      return [];
    },
    failing(() => away('its disk')),
  );
  assert.deepEqual(left, ['1', '2']);
});
