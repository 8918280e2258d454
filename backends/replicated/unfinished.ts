import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { HeadVerdict } from '../contract/recovery.js';
import type { HeadRecord } from '../contract/repository.js';
import { nameFree } from './names.js';
import { majorityOf } from './quorum.js';
import { holds, type StoreAnswer } from './raised-set.js';
import type { RepositoryRecord } from './records.js';

/**
 * The highest generation that a store can have of a repository, if the coordinator is the latest there is. Without a
 * head it never came to be: making one gives it generation 0, making a fork 1. With one that is deleted nothing has been
 * committed since.
 */
export function mostCommitted({ pool }: RepositoryRecord, head: HeadRecord | undefined): number {
  return head?.generation ?? (pool === undefined ? 0 : 1);
}

export interface UnfinishedAnswers {
  readonly head: HeadRecord | undefined;
  readonly answers: readonly StoreAnswer[];
  /** The latest that a store says it holds. */
  readonly latest: HeadRecord;
  /** Nobody is silent who might hold more. */
  readonly isComplete: boolean;
  /** Two digests at one generation. */
  readonly isSplit: boolean;
  /** Nobody is making anything now. */
  readonly frozen: boolean;
  /** The cluster's; undefined while all is frozen, when what the coordinator says of it may be of an older copy. */
  readonly incarnation: string | undefined;
}

/**
 * Of a repository that is no active one by its record, which may be of the moment in which it was made: it came to be
 * if it was pushed to, or if as many stores have it as making it takes. Undefined when nothing says so: a clean-up
 * removes it.
 */
export async function judgeUnfinished(
  coordinator: Coordinator,
  record: RepositoryRecord,
  { head, answers, latest, isComplete, isSplit, frozen, incarnation }: UnfinishedAnswers,
): Promise<HeadVerdict | undefined> {
  // Somebody deleted it as it is, in this incarnation: a clean-up removes what a store that was away still has.
  if (record.deletedIn !== undefined && record.deletedIn === incarnation) return undefined;
  const isPushed = latest.generation > mostCommitted(record, head);
  // While all goes well somebody may be making it; and what is being removed may wait for a store that is away.
  if (!isPushed && (!frozen || record.state !== 'creating')) return undefined;
  if (isSplit) return 'split';
  if (!isComplete) return 'unreachable';
  const holding = answers.filter(({ answer }) => holds(answer, latest));
  if (!isPushed && holding.length < majorityOf(record.voters)) return undefined;
  if (await isFree(coordinator, record.name)) return 'unfinished';
  // One without pushes lost its name to another that was made at the same time.
  return isPushed ? 'name-taken' : undefined;
}

/** The record of one that was made. */
export function finished({
  creator: _done,
  deletedIn: _undone,
  ...record
}: RepositoryRecord): RepositoryRecord {
  return { ...record, state: 'active' };
}

/** Of several that want the same name, one gets it: one that was pushed to, if there is any. */
export function oneByName<
  T extends Pick<RepositoryRecord, 'name'> & {
    readonly verdict: HeadVerdict;
    readonly isPushed: boolean;
  },
>(found: readonly T[]): readonly T[] {
  const unfinished = found.filter(({ verdict }) => verdict === 'unfinished');
  const getsName = ({ name }: T): T | undefined =>
    unfinished.find((one) => one.name === name && one.isPushed) ??
    unfinished.find((one) => one.name === name);
  return found.flatMap((one) => {
    if (one.verdict !== 'unfinished' || getsName(one) === one) return [one];
    return one.isPushed ? [{ ...one, verdict: 'name-taken' as const }] : [];
  });
}

async function isFree(coordinator: Coordinator, name: string): Promise<boolean> {
  const { succeeded } = await coordinator.transaction({
    compares: nameFree(name),
    success: [{ type: 'get', key: keys.name(name) }],
    failure: [],
  });
  return succeeded;
}
