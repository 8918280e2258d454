import type { PushContext } from '../backends/contract/pipeline.js';
import type { QuotaJudge } from './quota/quota-judge.js';
import {
  type HookCall,
  type HookDependencies,
  runHooks,
  type SetHook,
} from './custom/run-hooks.js';

/**
 * The push as a whole: its owner's and its repository's quota, then administrators' hooks. Returns why all of it is
 * refused, or undefined.
 */
export async function preReceive(
  dependencies: HookDependencies & { readonly quotas: Pick<QuotaJudge, 'judge'> },
  context: PushContext,
  { concerned, hooks }: PreReceiveGround,
): Promise<string | undefined> {
  const refusal = await dependencies.quotas.judge(context, await concerned);
  return refusal ?? runPreReceiveHooks(dependencies, context, await hooks);
}

/** As it was read with the push's locks held. */
export interface PreReceiveGround {
  /** Whether a quota concerns the repository. */
  readonly concerned: Promise<boolean>;
  readonly hooks: Promise<readonly SetHook[]>;
}

function runPreReceiveHooks(
  dependencies: HookDependencies,
  context: PushContext,
  hooks: readonly SetHook[],
): Promise<string | undefined> {
  const call: HookCall = {
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
  };
  return runHooks(dependencies, call, hooks);
}
