import { QuorateError } from '../contract/errors.js';
import { type StoredSettings, wordSetting } from '../contract/settings.js';
import type { Voter } from './records.js';

/**
 * How many stores must hold a push before it is acknowledged: `eventual` one, `quorum` a majority of the configured
 * voters, `strong` every voter that no change of configuration declared down or stale, and never fewer than a
 * majority. That a node does not answer makes nothing smaller.
 */
export const consistencies = ['eventual', 'quorum', 'strong'] as const;
export type Consistency = (typeof consistencies)[number];

export function isConsistency(word: string): word is Consistency {
  return consistencies.some((consistency) => consistency === word);
}

export function majorityOf(voters: readonly unknown[]): number {
  return Math.floor(voters.length / 2) + 1;
}

/** Counts only configured voters, each once, and none that is stale: never a learner or a store of earlier times. */
export function suffices(
  consistency: Consistency,
  voters: readonly Voter[],
  stores: ReadonlySet<string>,
): boolean {
  const counted = voters.filter(({ storeId, state }) => stores.has(storeId) && state !== 'stale');
  switch (consistency) {
    case 'eventual':
      return counted.length >= 1;
    case 'quorum':
      return counted.length >= majorityOf(voters);
    case 'strong':
      return (
        counted.length >= majorityOf(voters) &&
        voters.every(({ storeId, state }) => state !== undefined || stores.has(storeId))
      );
  }
}

/**
 * Too few `stores` take part. Those that are missing are named, with the trouble that each told of, if it did:
 * administrators go there.
 */
export function quorumMissing(
  consistency: Consistency,
  voters: readonly Voter[],
  stores: ReadonlySet<string>,
  troubles: ReadonlyMap<string, QuorateError> = new Map(),
): QuorateError {
  const missing = voters.flatMap(({ nodeId, storeId }) => {
    if (stores.has(storeId)) return [];
    // What follows a semicolon is of that store alone.
    const [trouble] = troubles.get(storeId)?.message.split(';') ?? [];
    return [trouble === undefined ? nodeId : `${nodeId} (${trouble})`];
  });
  const without = missing.length === 0 ? '' : `, without ${missing.join(', ')}`;
  return new QuorateError(
    'unavailable',
    `not accepted: ${stores.size} of ${voters.length} storage nodes can take it, too few for ${consistency}${without}; nothing changed, it is safe to push again`,
    { details: { consistency, voters: voters.length, stores: [...stores] } },
  );
}

/** What a repository's settings ask for; undefined: nothing. */
export function configuredConsistency(settings: StoredSettings): Consistency | undefined {
  const word = wordSetting(settings, 'replication.consistency');
  return isConsistency(word) ? word : undefined;
}
