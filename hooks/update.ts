import type { PushContext } from '../backends/contract/pipeline.js';
import { booleanSetting } from '../backends/contract/settings.js';
import { judgeByRules, type RuleDependencies } from './rules/judge-rules.js';

/** Everything that refuses single refs: the repository's settings, then the rules. Returns ref -> reason. */
export async function judgeUpdates(
  dependencies: RuleDependencies,
  context: PushContext,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map(await judgeBySettings(context));
  const left = context.commands.filter(({ ref }) => !refused.has(ref));
  for (const [ref, reason] of await judgeByRules(dependencies, context, left)) {
    refused.set(ref, reason);
  }
  return refused;
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
