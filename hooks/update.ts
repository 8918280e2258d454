import type { RefCommand } from '../backends/contract/objects.js';
import type { PushContext } from '../backends/contract/pipeline.js';
import { booleanSetting } from '../backends/contract/settings.js';
import { hasHooks, type HookDependencies, runHooks } from './custom/run-hooks.js';
import { judgeByRules, type RuleDependencies } from './rules/judge-rules.js';

/** Everything that refuses single refs: the repository's settings, the rules, then hooks. Returns ref -> reason. */
export async function judgeUpdates(
  dependencies: RuleDependencies & HookDependencies,
  context: PushContext,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map(await judgeBySettings(context));
  const left = context.commands.filter(({ ref }) => !refused.has(ref));
  for (const [ref, reason] of await judgeByRules(dependencies, context, left)) {
    refused.set(ref, reason);
  }
  for (const [ref, reason] of await judgeByHooks(dependencies, context, refused)) {
    refused.set(ref, reason);
  }
  return refused;
}

/** The longest that all runs of a push may take, in runs of the longest kind. */
const longestRuns = 30;

/** The update hook, once for each ref that is left. */
async function judgeByHooks(
  dependencies: HookDependencies,
  context: PushContext,
  refusedAlready: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map<string, string>();
  const left = context.commands.filter(({ ref }) => !refusedAlready.has(ref));
  if (!(await hasHooks(dependencies, context.repository.id, 'update'))) return refused;
  const { timeoutMs } = dependencies.hookOptions.limits;
  const deadlineMs = performance.now() + longestRuns * timeoutMs;
  for (const command of left) {
    const reason =
      performance.now() > deadlineMs
        ? 'hook declined: the hooks of this push take too long'
        : await runUpdateHooks(dependencies, context, command);
    if (reason !== undefined) refused.set(command.ref, reason);
  }
  return refused;
}

/** `update REF OLD NEW`, one run for each ref (githooks(5)). */
function runUpdateHooks(
  dependencies: HookDependencies,
  context: PushContext,
  command: RefCommand,
): Promise<string | undefined> {
  return runHooks(dependencies, {
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
  });
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
    } else if (
      ref === context.currentBranch &&
      booleanSetting(settings, 'receive.denyDeleteCurrent')
    ) {
      refused.set(ref, 'deletion of the current branch prohibited');
    }
  }
  if (booleanSetting(settings, 'receive.denyNonFastForwards')) {
    for (const ref of await context.nonFastForwards()) refused.set(ref, 'non-fast-forward');
  }
  return refused;
}
