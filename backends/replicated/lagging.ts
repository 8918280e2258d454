import type { Coordinator } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { keys, prefixEnd } from '../contract/keys.js';

/** An entry that is in the log for longer is not only on its way. */
const laggingAfterMs = 500;
const pageSize = 500;

interface LaggingDependencies {
  readonly coordinator: Coordinator;
  readonly clock: Pick<Clock, 'sleep'>;
}

/** How many repositories have an entry in their log that was there a moment ago, too. */
export async function countLagging(dependencies: LaggingDependencies): Promise<number> {
  return (await findLagging(dependencies)).length;
}

/** Their ids. */
export async function findLagging({
  coordinator,
  clock,
}: LaggingDependencies): Promise<readonly string[]> {
  const before = await oldestEntries(coordinator);
  if (before.size === 0) return [];
  await clock.sleep(laggingAfterMs);
  const now = await oldestEntries(coordinator);
  return [...now].flatMap(([id, key]) => (before.get(id) === key ? [id] : []));
}

/** The key of the oldest entry of each repository whose log is not empty. */
async function oldestEntries(coordinator: Coordinator): Promise<ReadonlyMap<string, string>> {
  const oldest = new Map<string, string>();
  const rangeEnd = prefixEnd(keys.allLogs);
  let from: string = keys.allLogs;
  for (;;) {
    const page = await coordinator.range(from, { rangeEnd, limit: pageSize, keysOnly: true });
    let last: string | undefined;
    for (const { key } of page.entries) {
      const [id = ''] = key.slice(keys.allLogs.length).split('/', 1);
      if (id !== last) oldest.set(id, oldest.get(id) ?? key);
      last = id;
    }
    if (!page.more || last === undefined) return oldest;
    // What else that one has is of no interest.
    from = prefixEnd(keys.log(last));
  }
}
