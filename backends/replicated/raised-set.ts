import type { Operation } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { ReplicaState } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import { evicted } from './evictions.js';
import type { Holder } from './held-copies.js';
import { majorityOf } from './quorum.js';
import { copiesOf, type RepositoryRecord, type Voter } from './records.js';

/** What a store says that it holds of a repository, nothing, or none; or none for ever. */
export type Answer = ReplicaState | 'nothing' | 'silent' | 'gone';

export interface StoreAnswer extends Holder {
  readonly answer: Answer;
  /** The repository's record names it. */
  readonly named: boolean;
  /** Why it does not say, or why its copy cannot be read; undefined when neither is so. */
  readonly trouble: string | undefined;
}

/**
 * Whether the voters do not have a generation by a majority, and stores that are none of them do: these have to vote, or
 * nobody could fill the voters, and the next stores that are lost might be all that have it.
 */
export function needsOthers(
  { voters }: Pick<RepositoryRecord, 'voters'>,
  answers: readonly StoreAnswer[],
  head: HeadRecord,
): boolean {
  const holding = answers.filter(({ answer }) => holds(answer, head));
  const voting = holding.filter((one) => isAmong(voters, one));
  return voting.length < majorityOf(voters) && holding.length > voting.length;
}

/**
 * Whether that is so of the head as it is, and will stay so: voters that are behind get it by the log, or from one that
 * has it, where a majority of them has a copy at all.
 */
export function isElsewhere(
  record: Pick<RepositoryRecord, 'voters'>,
  answers: readonly StoreAnswer[],
  head: HeadRecord,
): boolean {
  const voting = answers.filter((one) => isAmong(record.voters, one));
  const copies = voting.filter(({ answer }) => isCopy(answer));
  const isOnNone = !voting.some(({ answer }) => holds(answer, head));
  const isAway = isOnNone || copies.length < majorityOf(record.voters);
  return isAway && needsOthers(record, answers, head);
}

/**
 * A record by which those vote that hold the head, and the words to stores that go with it; undefined when the voters
 * need nobody else. Who has less of it learns; who has nothing is named no more, and removes what may come to be there.
 * One that is gone for good is not either, and puts its copy aside should it come back.
 */
export function raisedRecord(
  record: RepositoryRecord,
  answers: readonly StoreAnswer[],
  {
    replicationFactor,
    isLost = false,
    ...head
  }: HeadRecord & {
    readonly replicationFactor: number;
    /** The voters' majority is gone for good, so that those do not wait for it that hold the head. */
    readonly isLost?: boolean;
  },
): { readonly record: RepositoryRecord; readonly words: readonly Operation[] } | undefined {
  if (!isLost && !needsOthers(record, answers, head)) return undefined;
  const { id, voters, learners, readers = [] } = record;
  const epoch = record.epoch + 1;
  const answerOf = ({ storeId }: Holder): Answer | undefined =>
    answers.find((one) => one.storeId === storeId)?.answer;
  const others: readonly Voter[] = answers
    .filter(({ named }) => !named)
    .map(({ nodeId, storeId }) => ({ nodeId, storeId, joinedEpoch: epoch }));
  // One that cannot be read as well: it is filled anew, by and by.
  const has = (member: Holder): boolean => typeof answerOf(member) === 'object';
  const holding = [...voters, ...learners, ...others, ...readers].filter((member) => {
    const answer = answerOf(member);
    return answer !== undefined && holds(answer, head);
  });
  const voting = holding.slice(0, Math.max(replicationFactor, voters.length));
  // What is held beyond that is as good as what a learner has: it takes the place of who leaves, or goes.
  const isLeft = (member: Holder): boolean => !isAmong(voting, member) && has(member);
  const learning = [...voters, ...learners, ...holding.filter((one) => isAmong(others, one))];
  const reading = readers.filter(isLeft);
  const { readers: _before, ...rest } = record;
  const next: RepositoryRecord = {
    ...rest,
    voters: voting.map(undeclared),
    learners: learning.filter(isLeft).map(undeclared),
    ...(reading.length === 0 ? {} : { readers: reading }),
    epoch,
  };
  const gone = copiesOf(record).filter((member) => answerOf(member) === 'gone');
  // A copy may be begun there, which is nothing yet, and be filled after this.
  const empty = copiesOf(record).filter((member) => answerOf(member) === 'nothing');
  return {
    record: next,
    words: [
      // Of long ago, for a copy that has come back since.
      ...copiesOf(next).map(({ storeId }): Operation => {
        return { type: 'delete', key: keys.eviction(storeId, id) };
      }),
      ...gone.map(({ storeId }) => evicted(id, storeId, { setAside: true })),
      ...empty.map(({ storeId }) => evicted(id, storeId)),
    ],
  };
}

/** This very head, in a copy that others can be filled from. */
export function holds(answer: Answer, { generation, digest }: HeadRecord): boolean {
  return isCopy(answer) && answer.generation === generation && answer.digest === digest;
}

/** One that can be read. */
export function isCopy(answer: Answer): answer is ReplicaState {
  return typeof answer === 'object' && answer.unread === undefined;
}

function isAmong(members: readonly Holder[], { storeId }: Holder): boolean {
  return members.some((member) => member.storeId === storeId);
}

/** What was declared of it was so when the coordinator's copy was made. */
function undeclared({ state: _declared, ...member }: Voter): Voter {
  return member;
}
