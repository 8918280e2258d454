import type { PushPipeline } from '../backends/contract/pipeline.js';
import type { Logger } from '../backends/contract/environment.js';
import { hasHooks, type HookDependencies } from './custom/run-hooks.js';
import { postReceive } from './post-receive.js';
import { preReceive } from './pre-receive.js';
import type { QuotaJudge } from './quota/quota-judge.js';
import type { RuleDependencies } from './rules/judge-rules.js';
import { judgeUpdates } from './update.js';
import type { Webhooks } from './webhooks/webhooks.js';

export interface PipelineDependencies extends RuleDependencies, HookDependencies {
  readonly logger: Logger;
  /** Name of a repository, or undefined when it is gone. */
  readonly repositoryName: (id: string) => Promise<string | undefined>;
  readonly quotas: QuotaJudge;
  readonly webhooks: Pick<Webhooks, 'committed' | 'repositoryChanged'>;
}

/** The stages of a push, in git's order. Each stage has a file of its own name. */
export function createPushPipeline(dependencies: PipelineDependencies): PushPipeline {
  return {
    allowance: (repository) => dependencies.quotas.allowance(repository),
    preReceive: (context) => preReceive(dependencies, context),
    update: (context) => judgeUpdates(dependencies, context),
    talksAfterCommit: (repositoryId) => hasHooks(dependencies, repositoryId, 'post-receive'),
    postReceive: (push) => postReceive(dependencies, push),
    repositoryChanged: (event) => dependencies.webhooks.repositoryChanged(event),
  };
}
