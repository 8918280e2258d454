import type { LossCopy } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import type { Replica, ReplicaState } from '../contract/replica.js';
import { goneForGood } from './gone-stores.js';
import { readNodeMarks } from './node-marks.js';
import { majorityOf } from './quorum.js';
import type { Voter } from './records.js';
import type { SetGround } from './set-view.js';
import type { ReplicaDirectory } from './voters.js';

export interface LossDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  /** For how long a store has been away, as far as this process saw. */
  readonly awayMs: (storeId: string) => number;
  /** A store away for so long is not waited for. */
  readonly repairAfterMs: number;
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
}

interface Asked {
  readonly member: Voter;
  readonly role: LossCopy['role'];
  readonly replica: Replica | undefined;
  readonly state: ReplicaState | undefined;
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
  return { copies, survivors, refusal: refusalOf(ground, copies, named) };
}

async function ask(
  { replicas }: LossDependencies,
  { record: { id }, head }: SetGround,
  { member, role }: Pick<Asked, 'member' | 'role'>,
): Promise<Asked> {
  const replica = replicas.find(member.storeId);
  if (replica === undefined) return { member, role, replica, state: undefined, answered: false };
  try {
    const before = await replica.state(id);
    if (
      before !== undefined &&
      before.frozen === undefined &&
      before.generation < head.generation
    ) {
      // What is committed and can be had does not count as lost.
      await replica.apply(id, head.generation).catch(() => undefined);
    }
    return { member, role, replica, state: await replica.state(id), answered: true };
  } catch {
    return { member, role, replica: undefined, state: undefined, answered: false };
  }
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
  named: readonly string[],
): string | undefined {
  const unknown = named.find((nodeId) => !copies.some((copy) => copy.nodeId === nodeId));
  if (unknown !== undefined) {
    throw new QuorateError('invalid-argument', `${unknown} has no copy of this repository`);
  }
  const answering = copies.find((copy) => copy.usable && named.includes(copy.nodeId));
  if (answering !== undefined) {
    throw new QuorateError('invalid-argument', `${answering.nodeId} answers: it is not gone`);
  }
  const ahead = copies.find(({ generation = 0 }) => generation > head.generation);
  if (ahead !== undefined) {
    return `${ahead.nodeId} is ahead of the coordinator, which seems to be an old copy: quorate recover is for that`;
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
  if (waiting.length === 0) return undefined;
  const names = waiting.map(({ nodeId }) => nodeId).join(', ');
  return `${names} may come back: start what can be started, or say that it is gone for good (--gone ${names.replaceAll(' ', '')}, or quorate node remove)`;
}
