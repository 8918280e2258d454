import type { LossCopy } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { Replica, ReplicaState } from '../contract/replica.js';
import { readDamagesOf } from './damage.js';
import { goneForGood } from './gone-stores.js';
import { inTime } from './held-copies.js';
import { readNodeMarks } from './node-marks.js';
import { majorityOf } from './quorum.js';
import type { Voter } from './records.js';
import type { SetGround } from './set-view.js';
import { noAnswer, nothingToWaitFor } from './stuck.js';
import type { ReplicaDirectory } from './voters.js';

export interface LossDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  /** For how long a store has been away, as far as this process saw. */
  readonly awayMs: (storeId: string) => number;
  /** A store away for so long is not waited for. */
  readonly repairAfterMs: number;
  readonly clock: Clock;
}

/** A copy from which something can go on. */
export interface Survivor {
  readonly member: Voter;
  readonly role: LossCopy['role'];
  readonly replica: Replica;
  readonly state: ReplicaState;
}

/** What there is of a replica set. */
export interface Loss {
  readonly copies: readonly LossCopy[];
  /** Best first: the highest generation; voters before learners, and these before readers. */
  readonly survivors: readonly Survivor[];
  readonly refusal: string | undefined;
  /** A copy is ahead of the coordinator, which is an older copy of itself: see `recoverAhead`. */
  readonly isAhead: boolean;
}

/** A store that has not said after so long how far it is does not answer: its disk hangs, perhaps. */
const answerMs = 30_000;

interface Asked {
  readonly member: Voter;
  readonly role: LossCopy['role'];
  readonly replica: Replica | undefined;
  readonly state: ReplicaState | undefined;
  /** Why it could not apply what is committed, though it lacks nothing for that; undefined where that is not so. */
  readonly stopped?: string | undefined;
  /** It answered, be it that it has nothing. */
  readonly answered: boolean;
}

/**
 * Asks every store of a set for what it has, after it applied what it can, and judges whether the majority is lost for
 * good. Changes nothing but what any push would.
 */
export async function surveyLoss(
  dependencies: LossDependencies,
  ground: SetGround,
  named: readonly string[],
): Promise<Loss> {
  const { coordinator, replicas } = dependencies;
  const { record } = ground;
  const marks = await readNodeMarks(coordinator);
  const asked = await Promise.all([
    ...record.voters.map((member) => ask(dependencies, ground, { member, role: 'voter' })),
    ...record.learners.map((member) => ask(dependencies, ground, { member, role: 'learner' })),
    ...(record.readers ?? []).map((member) =>
      ask(dependencies, ground, { member, role: 'reader' }),
    ),
  ]);
  const nodes = replicas.nodes();
  const copies = asked.map((one): LossCopy => {
    const { member, role, state } = one;
    const { nodeId, storeId } = member;
    const usable = isUsable(one, ground);
    return {
      nodeId,
      storeId,
      role,
      alive: one.answered,
      generation: state?.generation,
      digest: state?.digest,
      frozen: state?.frozen,
      usable,
      gone: usable
        ? undefined
        : (goneForGood(member, nodes, marks) ?? inferred(dependencies, one, named)),
    };
  });
  const survivors = asked
    .flatMap(({ member, role, replica, state }, index): Survivor[] =>
      replica !== undefined && state !== undefined && copies[index]?.usable === true
        ? [{ member, role, replica, state }]
        : [],
    )
    // Stable: whose copy counted stays before others.
    .sort((a, b) => b.state.generation - a.state.generation);
  const damaged = await readDamagesOf(coordinator, record.id);
  const stopped = asked.filter((one, index) => {
    const isSound = copies[index]?.usable === true && !damaged.has(one.member.storeId);
    return isSound && one.stopped !== undefined;
  });
  const isAhead = copies.some(({ generation = 0 }) => generation > ground.head.generation);
  return { copies, survivors, refusal: refusalOf(ground, copies, { named, stopped }), isAhead };
}

async function ask(
  dependencies: LossDependencies,
  { record: { id }, head }: SetGround,
  { member, role }: Pick<Asked, 'member' | 'role'>,
): Promise<Asked> {
  const { replicas, clock } = dependencies;
  const replica = replicas.find(member.storeId);
  if (replica === undefined) return { member, role, replica, state: undefined, answered: false };
  let stopped: string | undefined;
  const over = new AbortController();
  const stateOf = (): Promise<ReplicaState | undefined> =>
    inTime(replica.state(id), clock.sleep(answerMs, over.signal));
  try {
    const before = await stateOf();
    if (
      before !== undefined &&
      before.frozen === undefined &&
      before.generation < head.generation
    ) {
      // What is committed and can be had does not count as lost.
      const applying = replica.apply(id, head.generation);
      await unlessHanging(dependencies, member, applying).catch((error: unknown) => {
        stopped = whyStopped(error);
      });
    }
    return { member, role, replica, state: await stateOf(), stopped, answered: true };
  } catch {
    return { member, role, replica: undefined, state: undefined, answered: false };
  } finally {
    over.abort('over');
  }
}

/** What it lacks may take long to come; a store that says of itself that its disk hangs is not waited for. */
async function unlessHanging(
  { replicas, clock }: LossDependencies,
  member: Voter,
  applying: Promise<void>,
): Promise<void> {
  const over = new AbortController();
  const patient = { replicas, clock, limitMs: Infinity };
  const stuck = nothingToWaitFor(() => [member], patient, over.signal).then(() => {
    throw noAnswer(replicas, member.storeId);
  });
  await Promise.race([applying, stuck]).finally(() => over.abort('over'));
}

/** Undefined where the copy cannot get there by itself, for certain: see `Replica.apply`. */
function whyStopped(error: unknown): string | undefined {
  const { code, details, message } = asQuorateError(error);
  const cannot = code === 'data-corrupt' || details['lacksPushes'] === true;
  return cannot ? undefined : message;
}

function isUsable({ state }: Asked, { head }: SetGround): boolean {
  if (state === undefined || state.frozen !== undefined) return false;
  if (state.generation > head.generation) return false;
  return state.generation < head.generation || state.digest === head.digest;
}

function inferred(
  { awayMs, repairAfterMs }: LossDependencies,
  { member: { nodeId, storeId }, answered, state }: Asked,
  named: readonly string[],
): LossCopy['gone'] {
  if (named.includes(nodeId)) return 'named';
  if (answered) return state === undefined ? 'empty' : undefined;
  return awayMs(storeId) >= repairAfterMs ? 'away' : undefined;
}

function refusalOf(
  { record, head }: SetGround,
  copies: readonly LossCopy[],
  { named, stopped }: { readonly named: readonly string[]; readonly stopped: readonly Asked[] },
): string | undefined {
  const unknown = named.find((nodeId) => !copies.some((copy) => copy.nodeId === nodeId));
  if (unknown !== undefined) {
    throw new QuorateError('invalid-argument', `${unknown} has no copy of this repository`);
  }
  const answering = copies.find((copy) => copy.usable && named.includes(copy.nodeId));
  if (answering !== undefined) {
    throw new QuorateError('invalid-argument', `${answering.nodeId} answers: it is not gone`);
  }
  const usable = copies.filter((copy) => copy.usable);
  if (usable.length === 0) return 'no copy that answers can be gone on from';
  const voters = usable.filter(({ role }) => role === 'voter');
  // What only others have counts for no push, and voters take nothing from them.
  const hasHead = voters.some(({ generation }) => generation === head.generation);
  if (voters.length >= majorityOf(record.voters) && hasHead) {
    return 'a majority of its copies answers, and has what is committed: nothing is lost';
  }
  // Others than voters are waited for as well where something would be overruled: they may have just that.
  const isWhole = usable.some(({ generation }) => generation === head.generation);
  const waiting = copies.filter(
    ({ role, usable: answers, gone }) =>
      !answers && gone === undefined && (role === 'voter' || !isWhole),
  );
  if (waiting.length === 0) return isWhole ? undefined : refusalOfStopped(stopped, named);
  const names = waiting.map(({ nodeId }) => nodeId);
  const gone = [...named, ...names].join(',');
  return `${names.join(', ')} may come back: start what can be started, or say that it is gone for good (--gone ${gone}, or quorate node remove)`;
}

/**
 * What would be overruled may be on its way to this very copy, with refs that are written in part: it is waited for,
 * until it comes to its end, is found damaged, or is said to be gone.
 */
function refusalOfStopped([first]: readonly Asked[], named: readonly string[]): string | undefined {
  if (first === undefined) return undefined;
  const { nodeId } = first.member;
  return (
    `${nodeId} could not apply what is committed, and may yet (${first.stopped}): try again in a minute; ` +
    'if it stays so, see to its disk, or whether quorate repo verify finds its copy damaged, or stop it and say that it ' +
    `is gone for good (--gone ${[...named, nodeId].join(',')})`
  );
}
