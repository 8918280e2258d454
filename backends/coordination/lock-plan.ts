import type { Compare } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { LockEntry, LockTarget } from './lock-record.js';

/** Leaves room in etcd's 128 for what a caller adds. */
const maxCompares = 100;
/** The longest key that a coordinator takes. */
const maxKeyBytes = 1_024;

/** Everything that the transactions of one acquisition are made of. */
export interface LockPlan {
  readonly target: LockTarget;
  /** Put by the transaction that takes the lock. */
  readonly lockKeys: readonly string[];
  /** Nothing in conflict is held. */
  readonly free: readonly Compare[];
  /** Nobody waits: what the fast path asks for besides. The global lock has no fast path. */
  readonly nobodyWaits: readonly Compare[] | undefined;
  readonly waiterKey: (waiter: string) => string;
  /** All waiters that this one queues with. */
  readonly waiters: string;
  /** Ranges that hold everything that can be in its way. */
  readonly ranges: readonly { readonly key: string; readonly rangeEnd: string }[];
  /** Number of refs of a repository lock that stands for too many of them. */
  readonly lockedRefs?: number;
}

const globalRange = { key: keys.globalLock, rangeEnd: prefixEnd(keys.globalWaiters) };

/** The plan for refs; for the whole repository when the refs need too many compares or too long a key. */
export function planRefs(repositoryId: string, refs: readonly string[]): LockPlan {
  const wanted = [...new Set(refs)];
  const lockKeys = wanted.map((ref) => keys.refLock(repositoryId, ref));
  const clear = new Set([...wanted, ...wanted.flatMap(ancestors)]);
  const repository = planRepository(repositoryId);
  const free = [
    ...[...clear].map((ref) => absent(keys.refLock(repositoryId, ref))),
    ...lockKeys.map((key) => emptyPrefix(`${key}/`)),
    absent(keys.exclusiveLock(repositoryId)),
    absent(keys.globalLock),
  ];
  const needed = free.length + (repository.nobodyWaits?.length ?? 0);
  const tooLong = lockKeys.some((key) => Buffer.byteLength(key) >= maxKeyBytes);
  if (needed > maxCompares || tooLong) return { ...repository, lockedRefs: wanted.length };
  return {
    ...repository,
    target: { scope: 'refs', repositoryId, refs: wanted },
    lockKeys,
    free,
  };
}

export function planRepository(repositoryId: string): LockPlan {
  return {
    target: { scope: 'repository', repositoryId },
    lockKeys: [keys.exclusiveLock(repositoryId)],
    free: [
      emptyPrefix(keys.refLocks(repositoryId)),
      absent(keys.exclusiveLock(repositoryId)),
      absent(keys.globalLock),
    ],
    nobodyWaits: [emptyPrefix(keys.lockWaiters(repositoryId)), emptyPrefix(keys.globalWaiters)],
    waiterKey: (waiter) => keys.lockWaiter(repositoryId, waiter),
    waiters: keys.lockWaiters(repositoryId),
    ranges: [
      { key: keys.locks(repositoryId), rangeEnd: prefixEnd(keys.locks(repositoryId)) },
      globalRange,
    ],
  };
}

export function planGlobal(): LockPlan {
  return {
    target: { scope: 'global' },
    lockKeys: [keys.globalLock],
    free: [absent(keys.globalLock)],
    nobodyWaits: undefined,
    waiterKey: (waiter) => keys.globalWaiter(waiter),
    waiters: keys.globalWaiters,
    ranges: [{ key: keys.allLocks, rangeEnd: prefixEnd(keys.allLocks) }],
  };
}

/**
 * What stands in the way of a waiter: every lock in conflict, and every waiter in conflict that came before it.
 * Those that come later give way to this one, so nothing can be added to this list but what is turned from a waiter
 * into a lock.
 */
export function blockers(
  plan: LockPlan,
  ownCreateRevision: number,
  entries: readonly LockEntry[],
): readonly LockEntry[] {
  const conflicts = conflictTest(plan.target);
  return entries.filter(
    (entry) =>
      (entry.state === 'held' || entry.createRevision < ownCreateRevision) &&
      conflicts(entry.target),
  );
}

/** Tests a target against many others. Two refs conflict when they are equal or one lies below the other. */
export function conflictTest(target: LockTarget): (other: LockTarget) => boolean {
  if (target.scope === 'global') return () => true;
  const own = new Set(target.scope === 'refs' ? target.refs : []);
  const above = new Set([...own].flatMap(ancestors));
  return (other) => {
    if (other.scope === 'global') return true;
    if (other.repositoryId !== target.repositoryId) return false;
    if (target.scope === 'repository' || other.scope === 'repository') return true;
    return other.refs.some(
      (ref) => own.has(ref) || above.has(ref) || ancestors(ref).some((name) => own.has(name)),
    );
  };
}

/** The names above a ref that can be refs themselves: with at least one slash (git check-ref-format). */
function ancestors(ref: string): readonly string[] {
  const names: string[] = [];
  for (let cut = ref.lastIndexOf('/'); cut > 0; cut = ref.lastIndexOf('/', cut - 1)) {
    const name = ref.slice(0, cut);
    if (name.includes('/')) names.push(name);
  }
  return names;
}

function absent(key: string): Compare {
  return { key, target: 'createRevision', op: '=', operand: 0 };
}

function emptyPrefix(prefix: string): Compare {
  return {
    ...absent(prefix),
    target: 'createRevision',
    operand: 0,
    op: '=',
    rangeEnd: prefixEnd(prefix),
  };
}
