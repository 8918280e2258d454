import type { RefCommand } from '../backends/contract/objects.js';
import type { PushContext } from '../backends/contract/pipeline.js';
import { booleanSetting, denialSetting } from '../backends/contract/settings.js';
import {
  type HookCall,
  type HookDependencies,
  runHooks,
  type SetHook,
} from './custom/run-hooks.js';
import { judgeByRules, type RuleDependencies } from './rules/judge-rules.js';
import type { Rule } from './rules/rule.js';

/** Everything that refuses single refs: the repository's settings, the rules, then hooks. Returns ref -> reason. */
export async function judgeUpdates(
  dependencies: RuleDependencies & HookDependencies,
  context: PushContext,
  ground: UpdateGround,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map(await judgeBySettings(context));
  const commands = context.commands.filter(({ ref }) => !refused.has(ref));
  const rules = await ground.rules;
  for (const [ref, reason] of await judgeByRules(dependencies, context, { commands, rules })) {
    refused.set(ref, reason);
  }
  const left = context.commands.filter(({ ref }) => !refused.has(ref));
  const hooks = await ground.hooks;
  for (const [ref, reason] of await judgeByHooks(dependencies, context, { left, hooks })) {
    refused.set(ref, reason);
  }
  return refused;
}

/** As it was read with the push's locks held. */
export interface UpdateGround {
  readonly rules: Promise<readonly Rule[]>;
  readonly hooks: Promise<readonly SetHook[]>;
}

/** The longest that all runs of a push may take, in runs of the longest kind. */
const longestRuns = 30;

/** The update hook, once for each ref that is left. */
async function judgeByHooks(
  dependencies: HookDependencies,
  context: PushContext,
  { left, hooks }: { readonly left: readonly RefCommand[]; readonly hooks: readonly SetHook[] },
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map<string, string>();
  if (hooks.length === 0) return refused;
  const { timeoutMs } = dependencies.hookOptions.limits;
  const deadlineMs = performance.now() + longestRuns * timeoutMs;
  for (const command of left) {
    const reason =
      performance.now() > deadlineMs
        ? 'hook declined: the hooks of this push take too long'
        : await runHooks(dependencies, updateCall(context, command), hooks);
    if (reason !== undefined) refused.set(command.ref, reason);
  }
  return refused;
}

/** `update REF OLD NEW`, one run for each ref (githooks(5)). */
function updateCall(context: PushContext, command: RefCommand): HookCall {
  return {
    stage: 'update',
    repositoryId: context.repository.id,
    repositoryName: context.repository.name,
    pushId: context.pushId,
    user: context.pusher.name,
    pushOptions: context.pushOptions,
    args: [command.ref, command.oldOid, command.newOid],
    updates: [command],
    runHook: context.runHook,
    output: context.progress,
    signal: context.signal,
  };
}

/**
 * The repository's own settings, ref by ref: deletions, the current branch, fast-forwards. Returns ref -> reason, in
 * the words of git's receive-pack.
 */
async function judgeBySettings(context: PushContext): Promise<ReadonlyMap<string, string>> {
  const { settings } = context.repository;
  const refused = new Map<string, string>();
  for (const { ref, newOid } of context.commands) {
    if (!/^0+$/.test(newOid)) continue;
    if (booleanSetting(settings, 'receive.denyDeletes')) {
      refused.set(ref, 'deletion prohibited');
      continue;
    }
    if (ref !== context.currentBranch) continue;
    const denial = denialSetting(settings, 'receive.denyDeleteCurrent');
    if (denial === 'refuse') refused.set(ref, 'deletion of the current branch prohibited');
    if (denial === 'warn') {
      context.progress(Buffer.from('warning: deleting the current branch\n'));
    }
  }
  if (booleanSetting(settings, 'receive.denyNonFastForwards')) {
    for (const ref of await context.nonFastForwards()) refused.set(ref, 'non-fast-forward');
  }
  return refused;
}
