import type { PushContext } from '../backends/contract/pipeline.js';
import { type HookDependencies, runHooks } from './custom/run-hooks.js';

/** The push as a whole: administrators' hooks. Returns why all of it is refused, or undefined. */
export function preReceive(
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
