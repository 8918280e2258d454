import type { HeldLocks, Locks } from '../coordination/locks.js';
import type { Compare, Operation } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { Basis } from './basis.js';
import type { Announced } from './presence.js';

/** What a change insists on when it is committed: its locks, or, without them, that nothing is in its way. */
export type Hold = Omit<HeldLocks, 'scope' | 'reads'>;

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
  const { id, createRevision, lease } = presence;
  const key = keys.frontEnd(id);
  return {
    exactHead: { headRevision, headValue },
    hold: {
      locks: [{ key, createRevision }],
      compares: [
        { key, target: 'createRevision', op: '=', operand: createRevision },
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
