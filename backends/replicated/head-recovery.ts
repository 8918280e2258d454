import type { Coordinator, KeyValue, Operation } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type {
  CopyFound,
  HeadFound,
  HeadRecovery,
  HeadsCompared,
  HeadVerdict,
} from '../contract/recovery.js';
import type { ReplicaState } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import { incarnationName } from '../coordination/cluster-record.js';
import { takeBackEvictions } from './evictions.js';
import { goneForGood } from './gone-stores.js';
import { eachOf, type Holder, listCopies, Questions } from './held-copies.js';
import { nameFree } from './names.js';
import { type NodeMark, readNodeMarks } from './node-marks.js';
import { majorityOf } from './quorum.js';
import { isCopy, isElsewhere, raisedRecord, type StoreAnswer } from './raised-set.js';
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  encodeRecord,
  encodeRepository,
  type RepositoryRecord,
  scan,
} from './records.js';
import { finished, judgeUnfinished, mostCommitted, oneByName } from './unfinished.js';
import type { ReplicaDirectory } from './voters.js';

export interface Judged extends HeadFound {
  readonly head: HeadRecord | undefined;
  /** Of the highest generation. */
  readonly digest: string;
  readonly answers: readonly StoreAnswer[];
  /** Stores hold more than the coordinator says was ever committed. */
  readonly isPushed: boolean;
}

export interface HeadRecoveryDependencies {
  /** One that refuses nothing while commits are frozen. */
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly replicationFactor: number;
}

/** Who is asked of a repository besides those that its record names. */
interface Ground {
  readonly strays: readonly Holder[];
  readonly marks: ReadonlyMap<string, NodeMark>;
  readonly questions: Questions;
  /** Nothing is committed, nor made, by anybody. */
  readonly frozen: boolean;
  /** The cluster's, if nothing is frozen. */
  readonly incarnation: string | undefined;
}

/** Repositories that are looked at at the same time: 10,000 of them, on three stores each, are some ten seconds. */
const maxJudged = 16;

/** Heads against disks; see `HeadRecovery`. */
export function createHeadRecovery(dependencies: HeadRecoveryDependencies): HeadRecovery {
  const { coordinator, replicas, clock, logger } = dependencies;
  return {
    async compare(signal, { frozen }): Promise<HeadsCompared> {
      const judgements: Judged[] = [];
      let compared = 0;
      const recorded = new Set<string>();
      const questions = new Questions(clock);
      const { holders, nodes } = await listCopies(dependencies, signal, questions);
      const marks = await readNodeMarks(coordinator);
      const cluster = frozen ? undefined : await coordinator.get(keys.cluster);
      const incarnation = incarnationName(cluster);
      await eachOf(scan(coordinator, keys.repos), maxJudged, async (entry) => {
        refuseCancelled(signal);
        const { id } = decodeRepository(entry);
        recorded.add(id);
        const strays = holders.get(id) ?? [];
        const ground = { strays, marks, questions, frozen, incarnation };
        const { record, judged } = await judgeAsItIs(dependencies, entry, ground);
        if (record === undefined) return;
        if (record.state === 'active' || judged !== undefined) compared += 1;
        if (judged !== undefined) judgements.push(judged);
      });
      const inOrder = oneByName(
        judgements.toSorted((a, b) => (a.repositoryId < b.repositoryId ? -1 : 1)),
      ).map(shown);
      const unnamed = [...holders.keys()].filter((id) => !recorded.has(id)).sort();
      // What was being deleted was on the disks when they were asked, and is in no record now.
      const later =
        unnamed.length === 0 ? undefined : await listCopies(dependencies, signal, questions);
      const isLeft = (id: string): boolean =>
        later?.holders.has(id) === true ||
        later?.nodes.some(({ copies }) => copies === undefined) === true;
      const unrecorded = unnamed.filter(isLeft);
      const unheard = nodes.flatMap(({ nodeId, copies }) => (copies === undefined ? [nodeId] : []));
      return { compared, found: inOrder, nodes, unheard, unrecorded };
    },

    async raise({ repositoryId, verdict, generation, copies }): Promise<void> {
      const entry = await coordinator.get(keys.repo(repositoryId));
      if (entry === undefined) throw changed();
      const record = decodeRepository(entry);
      const strays = copies.filter(({ named }) => !named);
      const marks = await readNodeMarks(coordinator);
      const questions = new Questions(clock);
      const ground = { strays, marks, questions, frozen: true, incarnation: undefined };
      const now = await judge(dependencies, record, ground);
      // Deleted meanwhile, for one: what was found to be behind would be taken for unfinished.
      if (now?.verdict !== verdict || !isRaisable(now)) throw changed();
      if (now.generation !== generation) throw changed();
      const next = await raiseJudged(dependencies, entry, now);
      if (next === undefined) return;
      const voters = next.record.voters.map(({ nodeId }) => nodeId);
      logger.warn(
        { component: 'recovery', repo: repositoryId, generation, voters },
        'a repository goes on with other voters than its record named',
      );
    },

    async keepCopies(stuck): Promise<void> {
      const isKept = (storeId: string, id: string): boolean =>
        stuck.some(
          ({ repositoryId, copies }) =>
            repositoryId === id && copies.some((copy) => copy.storeId === storeId),
        );
      await takeBackEvictions(coordinator, {
        isKept,
        answers: (storeId) => replicas.find(storeId) !== undefined,
      });
    },
  };
}

/**
 * Puts the head to what was found, in one transaction that compares record and head, and has who holds it vote. Answers
 * the record with other voters; undefined when it stays as it is. `aborted` when either has changed.
 */
export async function raiseJudged(
  { coordinator, replicationFactor }: HeadRecoveryDependencies,
  entry: KeyValue,
  { repositoryId, verdict, generation, digest, head, answers }: Judged,
): Promise<ReturnType<typeof raisedRecord>> {
  const record = decodeRepository(entry);
  const headKey = keys.head(repositoryId);
  const isUnfinished = verdict === 'unfinished';
  const base = isUnfinished ? finished(record) : record;
  const isLost = verdict === 'majority-lost';
  const next = raisedRecord(base, answers, { generation, digest, replicationFactor, isLost });
  const { succeeded } = await coordinator.transaction({
    binding: true,
    compares: [
      { key: entry.key, target: 'modRevision', op: '=', operand: entry.modRevision },
      head === undefined
        ? { key: headKey, target: 'createRevision', op: '=', operand: 0 }
        : { key: headKey, target: 'value', op: '=', operand: encodeRecord(head) },
      ...(isUnfinished ? nameFree(base.name) : []),
    ],
    success: [
      { type: 'put', key: headKey, value: encodeRecord({ generation, digest }) },
      // Under a new revision: pushes that were judged by the head that was behind, and hold locks on refs which have
      // moved since, are judged again.
      { type: 'put', key: entry.key, value: encodeRepository(next?.record ?? base) },
      ...(isUnfinished ? [nameOf(base)] : []),
      ...(next?.words ?? []),
    ],
    failure: [],
  });
  if (!succeeded) throw changed();
  return next;
}

/** One repository as it is found now, with its record. */
export interface OneJudged {
  readonly entry: KeyValue;
  /** Undefined when there is nothing to tell. */
  readonly judged: Judged | undefined;
  /** Node ids of those that do not say what they hold, and might have the latest of it. */
  readonly unheard: readonly string[];
}

/** As `compare`, of one repository; `gone`: nodes that somebody says are gone for good. `aborted` when it changes meanwhile. */
export async function judgeOne(
  dependencies: HeadRecoveryDependencies,
  id: string,
  { gone, signal }: { readonly gone: readonly string[]; readonly signal: AbortSignal },
): Promise<OneJudged> {
  const { coordinator, clock } = dependencies;
  const questions = new Questions(clock);
  const { holders, nodes } = await listCopies(dependencies, signal, questions);
  const marks = new Map(await readNodeMarks(coordinator));
  for (const nodeId of gone) marks.set(nodeId, 'removed');
  const entry = await coordinator.get(keys.repo(id));
  if (entry === undefined) throw changed();
  const strays = holders.get(id) ?? [];
  const ground = { strays, marks, questions, frozen: false, incarnation: undefined };
  const judged = await judge(dependencies, decodeRepository(entry), ground);
  const unheard = nodes.filter(
    ({ nodeId, copies }) => copies === undefined && !gone.includes(nodeId),
  );
  return { entry, judged, unheard: unheard.map(({ nodeId }) => nodeId) };
}

/**
 * Whether a store that the record does not name has more of a repository than was ever committed, by the coordinator.
 * Of a store that does not answer nothing is said.
 */
export async function isAheadElsewhere(
  dependencies: HeadRecoveryDependencies,
  { record, head }: { readonly record: RepositoryRecord; readonly head: HeadRecord },
  signal: AbortSignal,
): Promise<boolean> {
  const { replicas, clock } = dependencies;
  const questions = new Questions(clock);
  const { holders } = await listCopies(dependencies, signal, questions);
  const named = new Set(copiesOf(record).map(({ storeId }) => storeId));
  const strays = (holders.get(record.id) ?? []).filter(({ storeId }) => !named.has(storeId));
  const ahead = strays.map(async ({ storeId }): Promise<boolean> => {
    const ask = (): Promise<ReplicaState | undefined> | undefined =>
      replicas.find(storeId)?.state(record.id, { unread: true });
    const state = await questions.ask(storeId, async () => ask()).catch(() => undefined);
    return state !== undefined && state.generation > head.generation;
  });
  return (await Promise.all(ahead)).includes(true);
}

function isRaisable({ verdict }: HeadFound): boolean {
  return verdict === 'behind' || verdict === 'moved' || verdict === 'unfinished';
}

function nameOf({ id, name }: RepositoryRecord): Operation {
  return { type: 'put', key: keys.name(name), value: encodeRecord({ id }) };
}

function shown(judged: Judged): HeadFound {
  const { head: _head, digest: _digest, answers: _answers, isPushed: _pushed, ...found } = judged;
  return found;
}

function changed(): QuorateError {
  return new QuorateError('aborted', 'a repository changed while it was recovered: try again');
}

/** So often what was found is not believed, since the record has changed by then: somebody moves it, or deletes it. */
const maxChanges = 5;

/** By the record that is there once the stores have answered: the one of the scan may be old. Undefined: it is gone. */
async function judgeAsItIs(
  dependencies: HeadRecoveryDependencies,
  entry: KeyValue,
  ground: Ground,
): Promise<{ readonly record: RepositoryRecord | undefined; readonly judged: Judged | undefined }> {
  for (let current = entry, changes = 0; ; changes++) {
    const record = decodeRepository(current);
    const judged = await judge(dependencies, record, ground);
    if (judged === undefined || changes === maxChanges) return { record, judged };
    const now = await dependencies.coordinator.get(entry.key);
    if (now === undefined) return { record: undefined, judged: undefined };
    if (now.modRevision === current.modRevision) return { record, judged };
    current = now;
  }
}

/** Undefined when the disks hold what the head says, or less, which the log makes good, and where the record says. */
async function judge(
  dependencies: HeadRecoveryDependencies,
  record: RepositoryRecord,
  { strays, marks, questions, frozen, incarnation }: Ground,
): Promise<Judged | undefined> {
  // Learners and readers hold nothing but what was committed, and so do those that are not named: whoever has the most
  // tells how far that was.
  const members = copiesOf(record).map((copy) => ({ ...copy, named: true }));
  const isNamed = ({ storeId }: Holder): boolean =>
    members.some((member) => member.storeId === storeId);
  const others = strays
    .filter((stray) => !isNamed(stray))
    .toSorted((a, b) => a.nodeId.localeCompare(b.nodeId));
  const asked = [...members, ...others.map((other) => ({ ...other, named: false }))];
  const answers = await Promise.all(
    asked.map(async ({ nodeId, storeId, named }): Promise<StoreAnswer> => {
      const answer = await ask(dependencies, record.id, { nodeId, storeId, marks, questions });
      return { nodeId, storeId, named, ...answer };
    }),
  );
  // Once they have answered: what is pushed meanwhile is in it, whichever of them has applied that already.
  const entry = await dependencies.coordinator.get(keys.head(record.id));
  const head = entry === undefined ? undefined : decodeHead(entry);
  const states = answers.flatMap(({ answer }) => (typeof answer === 'string' ? [] : [answer]));
  const headGeneration = head?.generation ?? 0;
  const generation = Math.max(0, ...states.map((state) => state.generation));
  const digest = states.find((state) => state.generation === generation)?.digest ?? '';
  // Nobody could be filled from what only copies hold that cannot be read, and less than that is not gone on from.
  const isEnough = suffices(record, answers, generation);
  const canBeRead = states.some((state) => state.generation === generation && isCopy(state));
  const isLatestUnread = ({ answer }: StoreAnswer): boolean =>
    typeof answer === 'object' && answer.generation === generation && !canBeRead;
  const isLate = (one: StoreAnswer): boolean =>
    one.answer === 'silent' || (generation > headGeneration && isLatestUnread(one));
  const isMissed = ({ named, answer }: StoreAnswer): boolean =>
    named && answer === 'gone' && !isEnough;
  const isComplete = !answers.some((one) => isLate(one) || isMissed(one));
  const isLost = !isComplete && !answers.some(isLate) && canBeRead;
  const isSilent = (one: StoreAnswer): boolean => isLate(one) || (isMissed(one) && !isLost);
  const latest = { generation, digest };
  const split = isSplit(head, states);
  const unfinished = { head, answers, latest, isComplete, isSplit: split, frozen, incarnation };
  const heads = {
    isComplete,
    isLost,
    isSplit: split,
    states,
    isNamedHeld: answers.some(({ named, answer }) => named && typeof answer === 'object'),
    isElsewhere: isElsewhere(record, answers, latest),
    head,
    generation,
  };
  const verdict =
    record.state === 'active'
      ? verdictOf(heads)
      : await judgeUnfinished(dependencies.coordinator, record, unfinished);
  if (verdict === undefined) return undefined;
  const copies = answers.map((one): CopyFound => {
    const { nodeId, storeId, named, answer, trouble } = one;
    const known = typeof answer === 'object' ? answer.generation : undefined;
    return { nodeId, storeId, generation: known, silent: isSilent(one), named, trouble };
  });
  const { id: repositoryId, name } = record;
  const isPushed = generation > mostCommitted(record, head);
  const found = { repositoryId, name, verdict, headGeneration, generation, copies };
  return { ...found, head, digest, answers, isPushed };
}

async function ask(
  { replicas }: HeadRecoveryDependencies,
  id: string,
  { nodeId, storeId, marks, questions }: Holder & Pick<Ground, 'marks' | 'questions'>,
): Promise<Pick<StoreAnswer, 'answer' | 'trouble'>> {
  const replica = replicas.find(storeId);
  if (replica === undefined) {
    const store = { nodeId, storeId };
    const isGone = goneForGood(store, replicas.nodes(), marks) !== undefined;
    return { answer: isGone ? 'gone' : 'silent', trouble: 'it is not there' };
  }
  try {
    const asked = await questions.ask(storeId, () => replica.state(id, { unread: true }));
    return { answer: asked ?? 'nothing', trouble: asked?.unread };
  } catch (error) {
    return { answer: 'silent', trouble: asQuorateError(error).message };
  }
}

/**
 * Whether what is on stores that are gone for good need not be known. What was acknowledged is on a majority of the
 * voters: where so many answer, one of them has it. Where so many stores that the record does not name have the highest
 * generation, the voters were others by then.
 */
function suffices(
  { voters }: RepositoryRecord,
  answers: readonly StoreAnswer[],
  generation: number,
): boolean {
  const holding = answers.flatMap(({ storeId, named, answer }) =>
    typeof answer === 'object' ? [{ storeId, named, generation: answer.generation }] : [],
  );
  const voting = holding.filter(({ storeId }) => voters.some((voter) => voter.storeId === storeId));
  const later = holding.filter((one) => !one.named && one.generation === generation);
  const majority = majorityOf(voters);
  return voting.length >= majority || later.length >= majority;
}

/** Whether there are two digests at one generation. */
function isSplit(head: HeadRecord | undefined, states: readonly ReplicaState[]): boolean {
  const digests = new Map<number, string>();
  if (head !== undefined) digests.set(head.generation, head.digest);
  for (const state of states) {
    const known = digests.get(state.generation);
    if (known !== undefined && known !== state.digest) return true;
    digests.set(state.generation, state.digest);
  }
  return false;
}

function verdictOf({
  isComplete,
  isLost,
  isSplit: isContradicted,
  states,
  isNamedHeld,
  isElsewhere: isMoved,
  head,
  generation,
}: {
  /** Nobody is silent who might hold more. */
  readonly isComplete: boolean;
  /** Whoever might is gone for good, and something is left. */
  readonly isLost: boolean;
  readonly isSplit: boolean;
  readonly states: readonly ReplicaState[];
  /** A store that the record names holds something. */
  readonly isNamedHeld: boolean;
  /** The highest generation is not on the voters, and will not be. */
  readonly isElsewhere: boolean;
  readonly head: HeadRecord | undefined;
  readonly generation: number;
}): HeadVerdict | undefined {
  if (isContradicted) return 'split';
  if (isLost) return 'majority-lost';
  if (!isComplete) return 'unreachable';
  const headGeneration = head?.generation ?? 0;
  if (states.length > 0 && generation > headGeneration) return 'behind';
  if (isMoved && generation === headGeneration) return 'moved';
  return isNamedHeld ? undefined : 'missing';
}
