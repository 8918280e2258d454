import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { Member } from './voters.js';

/** Stores let a quarantine lie idle for ten minutes: one of these may be lost, and some more. */
const keepEveryMs = 60_000;

interface Kept {
  readonly key: QuarantineKey;
  /** The stores that are prepared. */
  readonly members: readonly Member[];
  readonly clock: Pick<Clock, 'sleep'>;
  readonly logger: Logger;
}

/**
 * Judges a push. While that takes long (hooks), the stores that are prepared are told that it goes on: what lies idle
 * they take for left behind, and a push without locks has none by which they could tell.
 */
export async function whileKept<T>(kept: Kept, judging: () => Promise<T>): Promise<T> {
  const over = new AbortController();
  for (const member of kept.members) void keep(kept, member, over.signal);
  try {
    return await judging();
  } finally {
    over.abort('over');
  }
}

async function keep(
  { key, clock, logger }: Kept,
  { storeId, replica }: Member,
  over: AbortSignal,
): Promise<void> {
  for (;;) {
    await clock.sleep(keepEveryMs, over);
    if (over.aborted) return;
    try {
      await replica.keep(key);
    } catch (error) {
      const { code } = asQuorateError(error);
      logger.debug(
        { component: 'push', repo: key.repositoryId, push_id: key.pushId, store: storeId, code },
        'a store could not be told that a push goes on',
      );
    }
  }
}
