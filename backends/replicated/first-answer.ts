import type { Clock } from '../contract/environment.js';
import type { Replica } from '../contract/replica.js';
import type { Voter } from './records.js';
import { nobodyReachable, reachable, type ReplicaDirectory } from './voters.js';

/** A store that has not answered a small question after so long is not waited for alone: its disk hangs, perhaps. */
const patienceMs = 3_000;

/**
 * What the best store says. When that is in trouble, or late, the next one is asked as well, and the first answer
 * counts; fails when all have.
 */
export async function firstAnswer<T>(
  { replicas, clock }: { readonly replicas: ReplicaDirectory; readonly clock: Clock },
  voters: readonly Voter[],
  ask: (replica: Replica) => Promise<T>,
): Promise<T> {
  const asked: Promise<T>[] = [];
  const over = new AbortController();
  try {
    for (const { replica } of reachable(replicas, voters)) {
      asked.push(ask(replica));
      const answered = Promise.any(asked).then(
        (answer) => ({ answer }),
        () => undefined,
      );
      const late = clock.sleep(patienceMs, over.signal).then(() => undefined);
      const first = await Promise.race([answered, late]);
      if (first !== undefined) return first.answer;
    }
    if (asked.length === 0) throw nobodyReachable(replicas, voters);
    return await Promise.any(asked);
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  } finally {
    over.abort('over');
  }
}
