import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import { storageFailure } from './disk-errors.js';
import { inTurn, type LiveQuarantines } from './live-quarantines.js';
import { markSteps, readPreparedMark, storeUpdates } from './quarantine.js';
import { type Store, unlessFull } from './store.js';

/**
 * Keeps the updates of an entry too large for the log in the quarantine of a prepared push, as `Replica.storeUpdates`.
 * One that brings no objects had none up to now, and no mark: without, a restart would take it for one that was never
 * prepared, and what is committed a moment later could be applied by nobody. `unavailable` when this store does not know
 * that it prepared the push: it was started again since, and what it has must not count. `storage-failure` when the disk
 * does not take them.
 */
export async function keepUpdates(
  store: Store,
  quarantines: LiveQuarantines,
  key: QuarantineKey,
  updates: readonly RefCommand[],
): Promise<string> {
  const known = quarantines.find(key.repositoryId, key.pushId)?.mark;
  try {
    if (known === undefined && (await readPreparedMark(store, key)) === undefined) {
      throw new QuorateError('unavailable', 'the push is not prepared in this store any more');
    }
    const directory = store.quarantineDirectory(key);
    const digest = await storeUpdates(directory, updates);
    // Whatever became of it meanwhile: what is on the disk now is known, and goes when its push is over.
    const live = quarantines.remember(key);
    if (known !== undefined) {
      await inTurn(live, known, () => store.take(markSteps(store, directory, known)));
    }
    return digest;
  } catch (error) {
    throw storageFailure(unlessFull(error));
  }
}
