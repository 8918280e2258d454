import type { HeldLocks } from '../coordination/locks.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { asQuorateError, type ErrorCode, QuorateError } from '../contract/errors.js';
import type { Prepared, PrepareRequest } from '../contract/replica.js';
import type { Patience } from './patience.js';
import type { Consistency } from './quorum.js';
import { quorumMissing, suffices } from './quorum.js';
import type { Voter } from './records.js';
import { isOwnTrouble, isPackProblem, type SmallPack } from './small-packs.js';
import { noAnswer, nothingToWaitFor } from './stuck.js';
import type { Member, ReplicaDirectory } from './voters.js';

/** A push as the stores of its quorum judged it. */
export interface PreparedSet {
  /** Those that answered *prepared*, best first: the first runs hooks and applies first. */
  readonly members: readonly Member[];
  /** What any of them refuses is refused. `currentBranch` is the same everywhere, since the basis is. */
  readonly prepared: Prepared;
}

export interface PrepareEverywhere {
  readonly members: readonly Member[];
  /** What the stores say of themselves. */
  readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
  readonly voters: readonly Voter[];
  readonly consistency: Consistency;
  readonly request: Omit<PrepareRequest, 'signal' | 'pack'>;
  /** Goes out with the request to whoever does not have it. */
  readonly pack?: SmallPack | undefined;
  readonly signal: AbortSignal;
  readonly held: Pick<HeldLocks, 'lost'>;
  /** Told of each store that answered *prepared*, and whether it took the pack with that. */
  readonly answered?: (storeId: string, tookPack: boolean) => void;
  readonly patience: Patience;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
}

/**
 * So long whoever leaves, or lost his locks, waits for stores to stop what they do for him: one whose disk hangs does not,
 * and is not to keep the locks.
 */
const leavingPatienceMs = 1_000;

/**
 * So long a push waits, with its locks, for enough stores to judge it: as long as a call to a node may take. A lone
 * store has as long as the pusher: there is no other.
 */
const judgeLimitMs = 15 * 60_000;

/** A reason: without one, `abort` makes an error with its stack each time. */
const over = 'over';

/** Errors of the push itself: every store would say the same. Others are the store's own trouble. */
const pushFaults: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'failed-precondition',
  'aborted',
  'cancelled',
]);

/**
 * Asks every store to judge and to promise. One in trouble is left out while the others satisfy the consistency level;
 * a store that comes late is left out as well, and gets the push from a peer. Undefined when the locks went meanwhile:
 * not the client's doing, so it is judged again under new ones.
 */
export async function prepareEverywhere(ask: PrepareEverywhere): Promise<PreparedSet | undefined> {
  // Not `AbortSignal.any`: the lease outlives this push, and would remember it for ever.
  const ended = new AbortController();
  const end = (): void => ended.abort(over);
  const signals = [ask.signal, ask.held.lost];
  for (const signal of signals) {
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  }
  try {
    return await collect(ask, ended);
  } catch (error) {
    if (ask.held.lost.aborted && !ask.signal.aborted) return undefined;
    throw error;
  } finally {
    for (const signal of signals) signal.removeEventListener('abort', end);
  }
}

async function collect(ask: PrepareEverywhere, ended: AbortController): Promise<PreparedSet> {
  const { voters, consistency, clock, meter, patience } = ask;
  const startedMs = clock.monotonicMs();
  const answers = new Map<string, Prepared>();
  const errors = new Map<string, QuorateError>();
  const judge = async (member: Member): Promise<void> => {
    try {
      answers.set(member.storeId, await prepareAt(ask, member, ended.signal));
      patience.answered(member.storeId);
    } catch (error) {
      const known = asQuorateError(error);
      errors.set(member.storeId, known);
      if (ask.members.length === 1 || ended.signal.aborted || isPackProblem(known)) return;
      leftOut(ask, member.storeId, error);
    }
  };
  let open = ask.members.map((member) => ({ settled: judge(member), member }));
  const suffice = (stores: Iterable<string>): boolean =>
    suffices(consistency, voters, new Set(stores));
  const enough = (): boolean => suffice(answers.keys());
  // What one of several stores says of its own disk needs its name.
  const isOfPack = (error: QuorateError): boolean =>
    isPackProblem(error) && (voters.length === 1 || !isOwnTrouble(error));
  const grace = new AbortController();
  const givenUp = afterAbort(ended.signal).then(async () => {
    await clock.sleep(leavingPatienceMs, grace.signal);
    return 'given up' as const;
  });
  const limitMs = voters.length === 1 ? Infinity : judgeLimitMs;
  const unanswered = (): readonly Member[] => open.map(({ member }) => member);
  const stuck = nothingToWaitFor(unanswered, { ...ask, limitMs }, grace.signal).then(
    () => 'stuck' as const,
  );
  let late: Promise<'late'> | undefined;
  let isStuck = false;
  while (open.length > 0) {
    if (enough()) {
      // The others get as much again as those took that are prepared, at least.
      const waited = patience.graceMs(open.map(({ member }) => member.storeId));
      const graceMs = Math.max(waited, clock.monotonicMs() - startedMs);
      late ??= clock.sleep(graceMs, grace.signal).then(() => 'late' as const);
    }
    const next = Promise.race(
      open.map(async (one) => {
        await one.settled;
        return one;
      }),
    );
    const done = await Promise.race([next, givenUp, stuck, ...(late === undefined ? [] : [late])]);
    if (done === 'given up') break;
    if (done === 'stuck') {
      isStuck = true;
      for (const { storeId } of unanswered()) errors.set(storeId, noAnswer(ask.replicas, storeId));
      break;
    }
    if (done === 'late') {
      for (const { member } of open) patience.late(member.storeId);
      break;
    }
    open = open.filter((one) => one !== done);
    if (faultOf(errors.values()) !== undefined) break;
    const hoped = [...answers.keys(), ...open.map(({ member }) => member.storeId)];
    if (!suffice(hoped) && [...errors.values()].some(isOfPack)) break;
  }
  grace.abort(over);
  if (open.length > 0 && ended.signal.aborted) {
    throw new QuorateError('cancelled', 'the push was given up');
  }
  if (open.length > 0) ended.abort(over);
  const fault = faultOf(errors.values());
  if (fault !== undefined) throw fault;
  if (!enough()) {
    const [only] = errors.values();
    // What is said of a store that says nothing itself needs its name.
    if (only !== undefined && voters.length === 1 && !isStuck) throw only;
    const ofPack = [...errors.values()].find(isOfPack);
    if (ofPack !== undefined) throw ofPack;
    meter.count('quorum_failures', { consistency });
    throw quorumMissing(consistency, voters, new Set(answers.keys()), errors);
  }
  // Until now it might have been the pack.
  for (const [store, error] of errors) if (isPackProblem(error)) leftOut(ask, store, error);
  return union(ask.members, answers);
}

function afterAbort(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
}

/** The error of the push itself, if there is one. What one store says of a pack may be that store's trouble. */
function faultOf(errors: Iterable<QuorateError>): QuorateError | undefined {
  return [...errors].find((error) => pushFaults.has(error.code) && !isPackProblem(error));
}

async function prepareAt(
  { request, pack, answered }: PrepareEverywhere,
  { storeId, replica }: Member,
  signal: AbortSignal,
): Promise<Prepared> {
  if (pack === undefined || pack.takenBy.has(storeId)) {
    try {
      const uploaded = pack === undefined ? {} : { uploaded: true as const };
      const prepared = await replica.prepare({ ...request, ...uploaded, signal });
      answered?.(storeId, false);
      return prepared;
    } catch (error) {
      if (pack === undefined || !('gone' in asQuorateError(error).details)) throw error;
      pack.takenBy.delete(storeId);
    }
  }
  const prepared = await replica.prepare({ ...request, pack: pack.bytes, signal });
  pack.takenBy.set(storeId, prepared.packBytes ?? 0);
  answered?.(storeId, true);
  return prepared;
}

function leftOut(
  { request: { key }, logger }: PrepareEverywhere,
  store: string,
  err: unknown,
): void {
  logger.warn(
    { component: 'push', repo: key.repositoryId, push_id: key.pushId, store, err },
    'a storage node could not prepare a push',
  );
}

function union(members: readonly Member[], answers: ReadonlyMap<string, Prepared>): PreparedSet {
  const prepared = members.filter(({ storeId }) => answers.has(storeId));
  const [first] = prepared;
  const primary = first === undefined ? undefined : answers.get(first.storeId);
  if (primary === undefined) throw new QuorateError('internal', 'a push that nobody prepared');
  const refused = new Map([...answers.values()].flatMap((answer) => [...answer.refused]));
  return { members: prepared, prepared: { ...primary, refused } };
}
