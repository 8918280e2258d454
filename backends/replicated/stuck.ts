import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Member, ReplicaDirectory } from './voters.js';

/** Nodes find out within seconds that their disk hangs, and say so. */
const lookEveryMs = 5_000;
/**
 * They say so at each look for half a minute: what a large push, or a fill, writes and syncs can by itself keep a disk busy
 * for ten seconds, and those of all stores at once.
 */
const hangingLooks = 6;

/** Until when answers of stores are waited for. */
export interface Patient {
  readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
  readonly clock: Clock;
  /** For all of them, whatever they say; Infinity: there is no other one to go to. */
  readonly limitMs: number;
  /** Of five seconds each, in which they have to say so; half a minute where this is not given. */
  readonly looks?: number;
}

/**
 * Resolves when no answer is to be expected: for half a minute (`looks`) each store in `open` has said of itself that its disk
 * hangs, or the limit is over. Also soon after the signal aborts: nobody waits any more.
 */
export async function nothingToWaitFor(
  open: () => readonly Pick<Member, 'storeId'>[],
  { replicas, clock, limitMs, looks: wanted = hangingLooks }: Patient,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = clock.monotonicMs() + limitMs;
  let looks = 0;
  do {
    await clock.sleep(lookEveryMs, signal);
    const hanging = hangingStores(replicas);
    looks = open().every(({ storeId }) => hanging.has(storeId)) ? looks + 1 : 0;
    if (looks >= wanted) return;
  } while (!signal.aborted && clock.monotonicMs() < untilMs);
}

/** Those whose disk hangs, by their own word. */
export function hangingStores(replicas: Pick<ReplicaDirectory, 'nodes'>): ReadonlySet<string> {
  return new Set(
    replicas.nodes().flatMap(({ storeId, hangs }) => (hangs === true ? [storeId] : [])),
  );
}

/** Why a store that did not answer is not waited for: words for who pushes, and for those who look after it. */
export function noAnswer(replicas: Pick<ReplicaDirectory, 'nodes'>, storeId: string): QuorateError {
  const hangs = hangingStores(replicas).has(storeId);
  return new QuorateError('unavailable', hangs ? 'its disk hangs' : 'it did not answer in time');
}
