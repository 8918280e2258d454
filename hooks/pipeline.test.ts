import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HookStage } from '../backends/contract/hook.js';
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
      concerns: async () => {
        asked.push('quotas');
        return false;
      },
    },
    webhooks: {
      ...noRules.webhooks,
      listening: async () => {
        asked.push('webhooks');
        return false;
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
    'webhooks',
  ]);
  assert.equal(await judges.talksAfterCommit(), false);
  assert.equal(await judges.nobodyToTell?.(), true);
  assert.deepEqual(asked.toSorted(), atOnce, 'nothing is asked for twice');
});

const committed = {
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
};

const someHook = (stage: HookStage) => {
  const about = { version: 1, digest: 'd', sizeBytes: 1, by: 'somebody', atMs: 0 };
  return { stage, ...about, history: [] };
};

test('nobody is to be told only without webhooks, and without hooks that could take long', async () => {
  for (const there of ['webhook', 'pre-receive', 'update', 'post-receive'] as const) {
    const judges = createPushPipeline({
      ...noRules,
      logger,
      repositoryName: async () => 'r',
      hookOptions: { ...noRules.hookOptions, enabled: true },
      hooks: {
        ...noRules.hooks,
        get: async (scope, stage) =>
          scope !== 'server' && stage === there ? someHook(stage) : undefined,
      },
      webhooks: { ...noRules.webhooks, listening: async () => there === 'webhook' },
    }).judges(repository);
    assert.equal(await judges.nobodyToTell?.(), false, there);
  }
});

test('who is to be told after a commit is not asked again when it is known that nobody is', async () => {
  const asked: string[] = [];
  const pipeline = createPushPipeline({
    ...noRules,
    logger,
    repositoryName: async () => 'r',
    hookOptions: { ...noRules.hookOptions, enabled: true },
    hooks: {
      ...noRules.hooks,
      get: async (_scope, stage) => {
        asked.push(stage);
        return undefined;
      },
    },
    webhooks: {
      ...noRules.webhooks,
      committed: async () => {
        asked.push('webhooks');
      },
    },
  });
  await pipeline.postReceive({ ...committed, nobodyToTell: true });
  assert.deepEqual(asked, []);
  await pipeline.postReceive({ ...committed, nobodyToTell: false });
  assert.deepEqual(asked, ['post-receive', 'post-receive', 'webhooks']);
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
        return someHook(stage);
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
  const done = pipeline.postReceive(committed);
  const asked = ['r post-receive', 'server post-receive', 'webhooks'];
  assert.deepEqual(steps.toSorted(), asked);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(steps.toSorted(), asked);
  queued?.();
  await done;
  assert.equal(steps.at(-1), 'hook is run');
});
