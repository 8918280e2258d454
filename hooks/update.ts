import type { PushContext } from '../backends/contract/pipeline.js';
import { booleanSetting } from '../backends/contract/settings.js';

/**
 * The repository's own settings, ref by ref: deletions, the current branch, fast-forwards. Returns ref -> reason, in
 * the words of git's receive-pack.
 */
export async function judgeUpdates(context: PushContext): Promise<ReadonlyMap<string, string>> {
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
