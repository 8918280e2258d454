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
