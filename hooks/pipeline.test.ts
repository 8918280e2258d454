import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Repository } from '../backends/contract/repository.js';
import { createPushPipeline } from './pipeline.js';
import { noRules } from './testing/no-rules.js';

const quiet = (): void => undefined;
const logger = { debug: quiet, info: quiet, warn: quiet, error: quiet, child: () => logger };
const repository: Repository = {
  id: 'r',
  name: 'team/app',
  objectFormat: 'sha1',
  settings: {},
  access: { public: false, grants: {} },
  epoch: 1,
  createdAtMs: 0,
};

test('what a push is judged by is asked for at once, when its locks are held', async () => {
  const asked: string[] = [];
  const pipeline = createPushPipeline({
    ...noRules,
    logger,
    repositoryName: async () => undefined,
    hookOptions: { ...noRules.hookOptions, enabled: true },
    rules: {
      ...noRules.rules,
      inForce: async () => {
        asked.push('rules');
        return [];
      },
    },
    hooks: {
      ...noRules.hooks,
      get: async (scope, stage) => {
        asked.push(`${scope === 'server' ? scope : scope.repositoryId} ${stage}`);
        return undefined;
      },
    },
    quotas: {
      ...noRules.quotas,
      account: async () => {
        asked.push('quotas');
        return undefined;
      },
    },
  });
  const judges = pipeline.judges(repository);
  const atOnce = asked.toSorted();
  assert.deepEqual(atOnce, [
    'quotas',
    'r post-receive',
    'r pre-receive',
    'r update',
    'rules',
    'server post-receive',
    'server pre-receive',
    'server update',
  ]);
  assert.equal(await judges.talksAfterCommit(), false);
  assert.deepEqual(asked.toSorted(), atOnce, 'nothing is asked for twice');
});

test('what is done after a commit is asked for at once, the webhooks queued before a hook runs', async () => {
  const steps: string[] = [];
  let queued: (() => void) | undefined;
  const pipeline = createPushPipeline({
    ...noRules,
    logger,
    repositoryName: async () => {
      steps.push('hook is run');
      return undefined;
    },
    hookOptions: { ...noRules.hookOptions, enabled: true },
    hooks: {
      ...noRules.hooks,
      get: async (scope, stage) => {
        steps.push(`${scope === 'server' ? scope : scope.repositoryId} ${stage}`);
        const about = { version: 1, digest: 'd', sizeBytes: 1, by: 'somebody', atMs: 0 };
        return { stage, ...about, history: [] };
      },
    },
    webhooks: {
      ...noRules.webhooks,
      committed: () => {
        steps.push('webhooks');
        return new Promise((resolve) => (queued = resolve));
      },
    },
  });
  const done = pipeline.postReceive({
    repositoryId: 'r',
    entry: {
      generation: 1,
      pushId: 'p',
      updates: [{ ref: 'refs/heads/main', oldOid: '0'.repeat(40), newOid: '1'.repeat(40) }],
      prepared: [],
      digest: '',
      actor: 'somebody',
      atMs: 0,
    },
    runHook: () => Promise.reject(new Error('the repository is gone')),
    progress: quiet,
    signal: new AbortController().signal,
  });
  const asked = ['r post-receive', 'server post-receive', 'webhooks'];
  assert.deepEqual(steps.toSorted(), asked);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(steps.toSorted(), asked);
  queued?.();
  await done;
  assert.equal(steps.at(-1), 'hook is run');
});
