import type { Logger } from '../contract/environment.js';
import type { Coordinator, KeyValue, OperationResult } from '../contract/coordinator.js';
import { asQuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PrepareRequest, QuarantineKey, Replica } from '../contract/replica.js';
import { copiesOf, decodeHead, decodeLogEntry, decodeRepository } from './records.js';
import { closingOff } from './without-locks.js';

/** What a quarantine was prepared under; undefined when it never was. */
type Prepared = Pick<PrepareRequest, 'lockRevisions' | 'headRevision'> | undefined;

/** A store that holds objects of pushes. */
export interface QuarantineStore extends Pick<Replica, 'applied' | 'storeId'> {
  /** Drops one of which `isOver`, asked when it is its turn, says that nobody needs it, unless its push goes on from now on. */
  dropIfOver(
    key: QuarantineKey,
    isOver: (prepared: Prepared) => Promise<boolean>,
    turn?: Promise<void>,
  ): Promise<void>;
}

/**
 * Drops quarantines that nobody needs any more. One transactional read tells: either the
 * entry of the push is in the log and this store has applied it (and was killed before it removed the quarantine), or
 * there is none, the locks are gone, and the store has applied the head. A push that was never prepared has no locks. For
 * a push without locks their part is played by its front-end's key, and, when it has lain idle, by the head: until then
 * it may go on under locks.
 *
 * A store without a copy applies nothing. While the repository's record names it, its copy is to be filled anew, and may
 * need what was prepared here. Once the record is there and names it no more, a majority of the others had the head when
 * it left, and nobody asks it for anything: then it is enough that there is no entry (all who count have applied it, or
 * it never was), and no word left by which what it has is to be put aside.
 */
export async function settleQuarantines({
  coordinator,
  replica,
  quarantines,
  idle = false,
  logger,
}: {
  readonly coordinator: Coordinator;
  readonly replica: QuarantineStore;
  /** At a start those that an earlier process left, later the ones that lie idle. */
  readonly quarantines: readonly QuarantineKey[];
  /**
   * They have lain idle for longer than a push takes: should one without locks still be on its way, it is shut out,
   * which costs it no more than to be judged again.
   */
  readonly idle?: boolean;
  readonly logger: Logger;
}): Promise<void> {
  let turn = Promise.resolve();
  // Each is held on to now: a push that goes on while it waits for its turn is not over, mark or no mark.
  const settled = quarantines.map((key) => {
    const isOver = (prepared: Prepared): Promise<boolean> =>
      isPushOver(coordinator, replica, { key, prepared, idle });
    turn = replica.dropIfOver(key, isOver, turn).catch((error: unknown) => {
      logger.warn(
        { component: 'quarantine', repo: key.repositoryId, push_id: key.pushId, err: error },
        'a quarantine stays until its push is known to be over',
      );
    });
    return turn;
  });
  await Promise.all(settled);
}

async function isPushOver(
  coordinator: Coordinator,
  replica: QuarantineStore,
  {
    key,
    prepared,
    idle,
  }: { readonly key: QuarantineKey; readonly prepared: Prepared; readonly idle: boolean },
): Promise<boolean> {
  const { lockRevisions: locks = [], headRevision } = prepared ?? {};
  const { results } = await coordinator.transaction({
    // It reads only; what it says is the word by which objects go.
    binding: true,
    compares: [],
    success: [
      { type: 'get', key: keys.head(key.repositoryId) },
      {
        type: 'get',
        key: keys.log(key.repositoryId),
        rangeEnd: prefixEnd(keys.log(key.repositoryId)),
      },
      { type: 'get', key: keys.repo(key.repositoryId) },
      { type: 'get', key: keys.eviction(replica.storeId, key.repositoryId) },
      ...locks.map(({ key: lock }) => ({ type: 'get' as const, key: lock })),
    ],
    failure: [],
  });
  const [[head] = [], entries = [], [record] = [], [word] = [], ...lockEntries] =
    results.map(entriesOf);
  // Without a head the repository is deleted; its quarantines go with its files.
  if (head === undefined) return true;
  const applied = await appliedHere(replica, key.repositoryId);
  // What nobody counts on is of no use to another copy.
  if (applied === undefined && prepared === undefined) return true;
  const entry = entries.map(decodeLogEntry).find(({ pushId }) => pushId === key.pushId);
  if (applied === undefined) {
    if (entry !== undefined || word !== undefined) return false;
    if (!isWithout(record, replica.storeId)) return false;
  } else {
    if (entry !== undefined) return applied >= entry.generation;
    if (applied < decodeHead(head).generation) return false;
  }
  const held = lockEntries
    .flat()
    .some((kv) =>
      locks.some((lock) => lock.key === kv.key && lock.createRevision === kv.createRevision),
    );
  if (!held) return true;
  if (headRevision === undefined) return false;
  // It may go on under locks, and its front-end lives: its objects are not sent again.
  if (!idle) return false;
  return headRevision !== head.modRevision || shutOut(coordinator, key.repositoryId, head);
}

/** A record that is absent says nothing. */
function isWithout(record: KeyValue | undefined, storeId: string): boolean {
  if (record === undefined) return false;
  return !copiesOf(decodeRepository(record)).some((copy) => copy.storeId === storeId);
}

/** Puts the head under a new revision, unless it has moved since it was read. */
async function shutOut(
  coordinator: Coordinator,
  repositoryId: string,
  { modRevision, value }: KeyValue,
): Promise<boolean> {
  const exactHead = { headRevision: modRevision, headValue: value };
  const shut = closingOff(repositoryId, exactHead);
  const { succeeded } = await coordinator.transaction({ ...shut, failure: [], binding: true });
  return succeeded;
}

/** Undefined: there is no copy here. */
async function appliedHere(
  replica: Pick<QuarantineStore, 'applied'>,
  repositoryId: string,
): Promise<number | undefined> {
  try {
    return await replica.applied(repositoryId);
  } catch (error) {
    if (asQuorateError(error).code !== 'not-found') throw error;
    return undefined;
  }
}

function entriesOf(result: OperationResult): Extract<OperationResult, { type: 'get' }>['entries'] {
  return result.type === 'get' ? result.entries : [];
}
