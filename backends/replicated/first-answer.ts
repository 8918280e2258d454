import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import type { Voter } from './records.js';
import { hangingStores, nothingToWaitFor } from './stuck.js';
import { nobodyReachable, reachable, type ReplicaDirectory } from './voters.js';

/** A store that has not answered a small question after so long is not waited for alone: its disk hangs, perhaps. */
const patienceMs = 3_000;
/** As long as a call to a node may take. */
const limitMs = 15 * 60_000;

/**
 * What the best store says. When that is in trouble, or late, the next one is asked as well, and the first answer
 * counts; fails when all have. `unavailable` when those that are missing say for half a minute that their disks hang.
 */
export async function firstAnswer<T>(
  { replicas, clock }: { readonly replicas: ReplicaDirectory; readonly clock: Clock },
  voters: readonly Voter[],
  ask: (replica: Replica) => Promise<T>,
): Promise<T> {
  const asked: Promise<T>[] = [];
  const open = new Set<string>();
  const over = new AbortController();
  try {
    for (const { storeId, replica } of reachable(replicas, voters)) {
      open.add(storeId);
      asked.push(ask(replica).finally(() => open.delete(storeId)));
      const answered = Promise.any(asked).then(
        (answer) => ({ answer }),
        () => undefined,
      );
      const late = clock.sleep(patienceMs, over.signal).then(() => undefined);
      const first = await Promise.race([answered, late]);
      if (first !== undefined) return first.answer;
    }
    if (asked.length === 0) throw nobodyReachable(replicas, voters);
    const missing = (): readonly Voter[] => voters.filter(({ storeId }) => open.has(storeId));
    const stuck = nothingToWaitFor(missing, { replicas, clock, limitMs }, over.signal).then(() => {
      throw noneAnswers(replicas, missing());
    });
    return await Promise.race([Promise.any(asked), stuck]);
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  } finally {
    over.abort('over');
  }
}

function noneAnswers(
  replicas: Pick<ReplicaDirectory, 'nodes'>,
  missing: readonly Voter[],
): QuorateError {
  const hanging = hangingStores(replicas);
  const names = missing.map(({ nodeId, storeId }) =>
    hanging.has(storeId) ? `${nodeId} (its disk hangs)` : nodeId,
  );
  return new QuorateError(
    'unavailable',
    `no storage node with this repository answers: ${names.join(', ')}; try again`,
  );
}
