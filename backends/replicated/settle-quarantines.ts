import type { Logger } from '../contract/environment.js';
import type { Coordinator, OperationResult } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { QuarantineKey, Replica } from '../contract/replica.js';
import { decodeHead, decodeLogEntry } from './records.js';

/** A store that can say what became of pushes it holds objects of. */
export interface QuarantineStore extends Pick<Replica, 'abort' | 'applied'> {
  readonly quarantines: readonly QuarantineKey[];
  /** Create revisions of the locks under which a quarantine was prepared; undefined when it never was. */
  lockRevisions(
    key: QuarantineKey,
  ): Promise<readonly { readonly key: string; readonly createRevision: number }[] | undefined>;
}

/**
 * Drops the quarantines of an earlier process whose pushes are known never to commit: never prepared, or one
 * transactional read shows their locks gone and no entry with their push id at a head that this store has applied.
 */
export async function settleQuarantines({
  coordinator,
  replica,
  logger,
}: {
  readonly coordinator: Coordinator;
  readonly replica: QuarantineStore;
  readonly logger: Logger;
}): Promise<void> {
  for (const key of replica.quarantines) {
    try {
      if (await isAbandoned(coordinator, replica, key)) await replica.abort(key);
    } catch (error) {
      logger.warn(
        { component: 'quarantine', repo: key.repositoryId, push_id: key.pushId, err: error },
        'a quarantine stays until its push is known to be over',
      );
    }
  }
}

async function isAbandoned(
  coordinator: Coordinator,
  replica: QuarantineStore,
  key: QuarantineKey,
): Promise<boolean> {
  const locks = await replica.lockRevisions(key);
  if (locks === undefined) return true;
  const { results } = await coordinator.transaction({
    compares: [],
    success: [
      { type: 'get', key: keys.head(key.repositoryId) },
      {
        type: 'get',
        key: keys.log(key.repositoryId),
        rangeEnd: prefixEnd(keys.log(key.repositoryId)),
      },
      ...locks.map(({ key: lock }) => ({ type: 'get' as const, key: lock })),
    ],
    failure: [],
  });
  const [heads = [], entries = [], ...lockEntries] = results.map(entriesOf);
  const held = lockEntries
    .flat()
    .some((kv) =>
      locks.some((lock) => lock.key === kv.key && lock.createRevision === kv.createRevision),
    );
  if (held || entries.some((kv) => decodeLogEntry(kv).pushId === key.pushId)) return false;
  const [head] = heads;
  // Without a head the repository is deleted; its quarantines go with its files.
  if (head === undefined) return true;
  return (await replica.applied(key.repositoryId)) >= decodeHead(head).generation;
}

function entriesOf(result: OperationResult): Extract<OperationResult, { type: 'get' }>['entries'] {
  return result.type === 'get' ? result.entries : [];
}
