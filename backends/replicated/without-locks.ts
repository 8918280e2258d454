import type { HeldLocks, Locks } from '../coordination/locks.js';
import type { Compare, KeyValue, Operation } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { Basis } from './basis.js';
import type { Announced } from './presence.js';

/** What a change insists on when it is committed: its locks, or, without them, that nothing is in its way. */
export interface Hold extends Omit<HeldLocks, 'scope' | 'reads'> {
  /** Of a push without locks: once the key is not as it is here, the push can never be committed. */
  readonly fence?: {
    readonly key: string;
    readonly createRevision: number;
    /** To be called when it was deleted. */
    readonly gone: () => void;
  };
}

/** The head at which a push without locks was judged. Its commit has to find just this. */
export type ExactHead = Pick<Basis, 'headRevision' | 'headValue'>;

/** What a push without locks goes by. */
export interface Unlocked {
  readonly hold: Hold;
  readonly exactHead: ExactHead;
}

/**
 * A push that takes no lock. Its commit compares what taking the locks would have: nothing in conflict is locked, and
 * nobody waits. That its front-end's own key is as it was stands for its locks: a front-end that has lost its lease
 * cannot commit.
 */
export function withoutLocks(
  locks: Pick<Locks, 'nothingInTheWay'>,
  { record, headRevision, headValue }: Basis,
  { refs, presence }: { readonly refs: readonly string[]; readonly presence: Announced },
): Unlocked {
  const { id, createRevision, fenceRevision, lease } = presence;
  const key = keys.frontEnd(id);
  const fence = { key: keys.fence(id), createRevision: fenceRevision, gone: presence.unfenced };
  return {
    exactHead: { headRevision, headValue },
    hold: {
      locks: [{ key, createRevision }],
      fence,
      compares: [
        { key, target: 'createRevision', op: '=', operand: createRevision },
        { key: fence.key, target: 'createRevision', op: '=', operand: fenceRevision },
        // The commit compares its revision. After a restored backup of the coordinator that may be another's.
        { key: keys.head(record.id), target: 'value', op: '=', operand: headValue },
        ...locks.nothingInTheWay(record.id, refs),
      ],
      deletes: [],
      released: () => undefined,
      release: () => Promise.resolve(),
      lost: lease.lost,
    },
  };
}

/**
 * A transaction after which no push without locks of a front-end that is under way can be committed any more. It puts
 * nothing: a coordinator that is full takes it.
 */
export function fenceDown({ key, createRevision }: NonNullable<Hold['fence']>): {
  readonly compares: readonly Compare[];
  readonly success: readonly Operation[];
} {
  return {
    compares: [{ key, target: 'createRevision', op: '=', operand: createRevision }],
    success: [{ type: 'delete', key }],
  };
}

/** Whether the keys by which a change holds what it holds are among those that were read, as they were. */
export function stillHeld({ locks }: Pick<Hold, 'locks'>, read: readonly KeyValue[]): boolean {
  return locks.every((lock) => isThere(lock, read));
}

/**
 * Has another fence put when it is down, and only that: what takes one down may come late, after its answer was given
 * up, and nobody else says so. `read`: what `stillHeld` needs, and the fence.
 */
export function noticeFence(held: Pick<Hold, 'locks' | 'fence'>, read: readonly KeyValue[]): void {
  const { fence } = held;
  if (fence === undefined || isThere(fence, read)) return;
  // With the lease it is gone as well, and the next one brings its own.
  if (stillHeld(held, read)) fence.gone();
}

function isThere(
  { key, createRevision }: Pick<KeyValue, 'key' | 'createRevision'>,
  read: readonly KeyValue[],
): boolean {
  return read.some((entry) => entry.key === key && entry.createRevision === createRevision);
}

/**
 * A transaction that makes sure that a push which was judged at this head and takes no locks is never committed, unless
 * it is by now: the head is put as it is, under a new revision.
 */
export function closingOff(
  repositoryId: string,
  { headRevision, headValue }: ExactHead,
): { readonly compares: readonly Compare[]; readonly success: readonly Operation[] } {
  const key = keys.head(repositoryId);
  return {
    compares: [
      { key, target: 'modRevision', op: '=', operand: headRevision },
      { key, target: 'value', op: '=', operand: headValue },
    ],
    success: [{ type: 'put', key, value: headValue }],
  };
}
