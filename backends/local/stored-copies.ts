import type { Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { CopiesPage } from '../contract/replica.js';
import type { Store } from './store.js';

/** In one answer, or some more. */
const copiesAsked = 10_000;
/** Of them the log names so many. */
const maxNamed = 5;

/**
 * As `Replica.copies`. What is called as nothing of ours lies in the way of nothing, and is left alone. `storage-failure`
 * when something cannot be listed that may be copies.
 */
export async function storedCopies(
  store: Store,
  logger: Logger,
  after: string,
): Promise<CopiesPage> {
  const found = await store.repositories(after, copiesAsked).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new QuorateError('storage-failure', `its copies cannot be listed: ${why}`, { cause });
  });
  const { ids, more, strays } = found;
  if (strays.length > 0) {
    const entries = strays.slice(0, maxNamed).map((entry) => `repos/${entry}`);
    const about = { component: 'store', entries, count: strays.length };
    logger.warn(about, 'what lies among the repositories and is none is left alone: remove it');
  }
  return { ids, more };
}
