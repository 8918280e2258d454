import type { PushContext } from '../backends/contract/pipeline.js';
import type { QuotaJudge } from './quota/quota-judge.js';
import { type HookDependencies, runHooks } from './custom/run-hooks.js';

/**
 * The push as a whole: its owner's and its repository's quota, then administrators' hooks. Returns why all of it is
 * refused, or undefined.
 */
export async function preReceive(
  dependencies: HookDependencies & { readonly quotas: Pick<QuotaJudge, 'judge'> },
  context: PushContext,
): Promise<string | undefined> {
  const refusal = await dependencies.quotas.judge(context);
  return refusal ?? runPreReceiveHooks(dependencies, context);
}

function runPreReceiveHooks(
  dependencies: HookDependencies,
  context: PushContext,
): Promise<string | undefined> {
  return runHooks(dependencies, {
    stage: 'pre-receive',
    repositoryId: context.repository.id,
    repositoryName: context.repository.name,
    pushId: context.pushId,
    user: context.pusher.name,
    pushOptions: context.pushOptions,
    args: [],
    updates: context.commands,
    runHook: context.runHook,
    output: context.progress,
    signal: context.signal,
  });
}
