import type { PushJudges, PushPipeline, RenamedIds } from '../backends/contract/pipeline.js';
import type { Logger } from '../backends/contract/environment.js';
import type { Repository } from '../backends/contract/repository.js';
import { type HookDependencies, hooksOf } from './custom/run-hooks.js';
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
  /** Removes all that was set for a repository that is gone. Idempotent. */
  readonly forget: (repository: Pick<Repository, 'id' | 'name'>) => Promise<void>;
  /** Has rules and quota hold for another id, too. Idempotent. */
  readonly copy: (ids: RenamedIds) => Promise<void>;
  /** Gives what was set for an id and was not copied to another one. Idempotent. */
  readonly move: (ids: RenamedIds) => Promise<void>;
  readonly webhooks: Pick<Webhooks, 'committed' | 'listening' | 'repositoryChanged'>;
}

/** The stages of a push, in git's order. Each stage has a file of its own name. */
export function createPushPipeline(dependencies: PipelineDependencies): PushPipeline {
  return {
    allowance: (repository) => dependencies.quotas.allowance(repository),
    foreseeAllowance: (about) => foreseeAllowance(dependencies.quotas, about),
    judges: (repository) => judgesOf(dependencies, repository),
    postReceive: (push) => postReceive(dependencies, push),
    repositoryChanged: (event) => dependencies.webhooks.repositoryChanged(event),
    repositoryGone: (repository) => dependencies.forget(repository),
    repositoryRenaming: (ids) => dependencies.copy(ids),
    repositoryRenamed: (ids) => dependencies.move(ids),
  };
}

/** Nearly always no quota concerns the repository; where one does, it is looked at once the pusher is known. */
function foreseeAllowance(
  quotas: QuotaJudge,
  about: Pick<Repository, 'id' | 'name'>,
): PushPipeline['allowance'] {
  const concerned = quotas.concerns(about);
  concerned.catch(() => undefined);
  return async (repository) => ((await concerned) ? quotas.allowance(repository) : undefined);
}

/** Everything is asked for in one turn of the main loop: one request to the coordinator. */
function judgesOf(dependencies: PipelineDependencies, repository: Repository): PushJudges {
  const { id } = repository;
  const concerned = dependencies.quotas.concerns(repository);
  const rules = dependencies.rules.inForce(id);
  const early = hooksOf(dependencies, id, 'pre-receive');
  const each = hooksOf(dependencies, id, 'update');
  const late = hooksOf(dependencies, id, 'post-receive');
  const listening = dependencies.webhooks.listening(id);
  // Whoever judges is told; a push that is refused before that needs none of it.
  for (const read of [concerned, rules, early, each, late, listening]) read.catch(() => undefined);
  return {
    preReceive: (context) => preReceive(dependencies, context, { concerned, hooks: early }),
    update: (context) => judgeUpdates(dependencies, context, { rules, hooks: each }),
    settle: (pushId, committed) => dependencies.quotas.settle(pushId, committed),
    talksAfterCommit: async () => (await late).length > 0,
    nobodyToTell: async () => {
      // A hook may take long, and somebody may want to be told in the meantime.
      const hooks = await Promise.all([early, each, late]);
      return !(await listening) && hooks.every(({ length }) => length === 0);
    },
  };
}
