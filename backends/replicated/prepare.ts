import type { HeldLocks } from '../coordination/locks.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, type ErrorCode, QuorateError } from '../contract/errors.js';
import type { Prepared, PrepareRequest } from '../contract/replica.js';
import type { Consistency } from './quorum.js';
import { quorumMissing, suffices } from './quorum.js';
import type { Voter } from './records.js';
import type { Member } from './voters.js';

/** A push as the stores of its quorum judged it. */
export interface PreparedSet {
  /** Those that answered *prepared*, best first: the first runs hooks and applies first. */
  readonly members: readonly Member[];
  /** What any of them refuses is refused. `currentBranch` is the same everywhere, since the basis is. */
  readonly prepared: Prepared;
}

export interface PrepareEverywhere {
  readonly members: readonly Member[];
  readonly voters: readonly Voter[];
  readonly consistency: Consistency;
  readonly request: Omit<PrepareRequest, 'signal'>;
  readonly signal: AbortSignal;
  readonly held: Pick<HeldLocks, 'lost'>;
  /** Told of each store that answered *prepared*. */
  readonly answered?: (storeId: string) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Once enough stores are prepared, the others get as much again as those took, and at least this, to be counted, too. */
const minGraceMs = 200;

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
  const { voters, consistency, clock, logger, request } = ask;
  const startedMs = clock.monotonicMs();
  const answers = new Map<string, Prepared>();
  const errors: QuorateError[] = [];
  const judge = async (member: Member): Promise<void> => {
    try {
      answers.set(
        member.storeId,
        await member.replica.prepare({ ...request, signal: ended.signal }),
      );
      ask.answered?.(member.storeId);
    } catch (error) {
      errors.push(asQuorateError(error));
      if (ask.members.length === 1 || ended.signal.aborted) return;
      const { pushId, repositoryId: repo } = request.key;
      logger.warn(
        { component: 'push', repo, push_id: pushId, store: member.storeId, err: error },
        'a storage node could not prepare a push',
      );
    }
  };
  let open = ask.members.map((member) => ({ settled: judge(member) }));
  const enough = (): boolean => suffices(consistency, voters, new Set(answers.keys()));
  const grace = new AbortController();
  let late: Promise<'late'> | undefined;
  while (open.length > 0) {
    if (enough()) {
      const graceMs = Math.max(minGraceMs, clock.monotonicMs() - startedMs);
      late ??= clock.sleep(graceMs, grace.signal).then(() => 'late' as const);
    }
    const next = Promise.race(
      open.map(async (one) => {
        await one.settled;
        return one;
      }),
    );
    const done = await Promise.race(late === undefined ? [next] : [next, late]);
    if (done === 'late') break;
    open = open.filter((one) => one !== done);
    const fault = errors.find(({ code }) => pushFaults.has(code));
    if (fault !== undefined) break;
  }
  grace.abort(over);
  ended.abort(over);
  const fault = errors.find(({ code }) => pushFaults.has(code));
  if (fault !== undefined) throw fault;
  if (!enough()) {
    const [only] = errors;
    if (only !== undefined && voters.length === 1) throw only;
    throw quorumMissing(consistency, voters, new Set(answers.keys()));
  }
  return union(ask.members, answers);
}

function union(members: readonly Member[], answers: ReadonlyMap<string, Prepared>): PreparedSet {
  const prepared = members.filter(({ storeId }) => answers.has(storeId));
  const [first] = prepared;
  const primary = first === undefined ? undefined : answers.get(first.storeId);
  if (primary === undefined) throw new QuorateError('internal', 'a push that nobody prepared');
  const refused = new Map([...answers.values()].flatMap((answer) => [...answer.refused]));
  return { members: prepared, prepared: { ...primary, refused } };
}
