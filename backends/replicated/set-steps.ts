import type { Locks } from '../coordination/locks.js';
import type { Compare, Coordinator, Operation } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { damageGone, forgetDamage } from './damage.js';
import { evicted } from './evictions.js';
import { firstQuietMs, whileFilling } from './fill-patience.js';
import { inTime } from './held-copies.js';
import { peerSourceOf } from './peers.js';
import { isFull, type Ring } from './placement.js';
import { majorityOf } from './quorum.js';
import type { Step } from './reconcile.js';
import {
  copiesOf,
  encodeRecord,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import { readGround, type SetGround } from './set-view.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

export interface StepDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly locks: Locks;
  readonly ring: () => Ring;
  /** The nodes that the set is to be on; undefined leaves it to placement. */
  readonly target: readonly string[] | undefined;
  readonly clock: Pick<Clock, 'sleep' | 'monotonicMs'>;
  /** For how long nothing need be heard of the fill of a store, in ms. */
  readonly quietMs?: (repositoryId: string, storeId: string) => number;
  readonly random: Random;
  readonly logger: Logger;
  /** Of the repository's lock, where it is held: what changes voters compares them, too. */
  readonly held?: readonly Compare[];
}

/** How long pushes to a repository may hold up a change of its voters, before it is tried again later. */
const lockTimeoutMs = 10_000;
/** How long a change of its voters may hold up pushes: a store whose disk hangs is not waited for. */
const holdTimeoutMs = 10_000;

/**
 * Takes one step. Its change of configuration compares the head and the configuration that it was judged by, so that
 * it happens as judged or not at all. False: there was nobody to take it with, or somebody else was first.
 */
export async function takeStep(
  dependencies: StepDependencies,
  ground: SetGround,
  step: Step,
  signal: AbortSignal,
): Promise<boolean> {
  const { record } = ground;
  switch (step.type) {
    case 'add-learner':
      return addLearner(dependencies, ground);
    case 'fill':
      await fill(dependencies, ground, step, signal);
      return true;
    case 'promote':
      return promote(dependencies, ground, step, signal);
    case 'demote': {
      const [voters, demoted] = apart(record.voters, step.storeId);
      if (demoted.length === 0) return false;
      const learners = [...record.learners, ...demoted.map(undeclared)];
      return change(dependencies, ground, { voters, learners });
    }
    case 'remove-voter': {
      const [voters] = apart(record.voters, step.storeId);
      return change(
        dependencies,
        ground,
        { voters },
        { operations: copyGone(record.id, step.storeId) },
      );
    }
    case 'drop-learner': {
      const [learners] = apart(record.learners, step.storeId);
      return change(
        dependencies,
        ground,
        { learners },
        { operations: copyGone(record.id, step.storeId) },
      );
    }
    case 'add-reader':
      return addReader(dependencies, ground);
    case 'drop-reader': {
      const [readers] = apart(record.readers ?? [], step.storeId);
      return change(
        dependencies,
        ground,
        { readers },
        { operations: copyGone(record.id, step.storeId) },
      );
    }
    case 'declare':
      return isReinstatement(record, step)
        ? reinstate(dependencies, ground, step, signal)
        : change(dependencies, ground, declaring(record, step));
  }
}

/** The store removes its files; what was found damaged goes with them. */
function copyGone(id: string, storeId: string): readonly Operation[] {
  return [evicted(id, storeId), damageGone(id, storeId)];
}

type Declaration = Extract<Step, { type: 'declare' }>;

function declaring(
  { voters, readers }: RepositoryRecord,
  step: Declaration,
): Partial<Pick<RepositoryRecord, 'voters' | 'readers'>> {
  const declareAll = (copies: readonly Voter[]): Voter[] =>
    copies.map((copy) => declared(copy, step));
  return {
    voters: declareAll(voters),
    ...(readers === undefined ? {} : { readers: declareAll(readers) }),
  };
}

/** Whether a stale voter is to be in good standing by that step. */
export function isReinstatement({ voters }: Pick<RepositoryRecord, 'voters'>, step: Step): boolean {
  if (step.type !== 'declare' || step.state !== undefined) return false;
  return voters.some(({ storeId, state }) => storeId === step.storeId && state === 'stale');
}

/**
 * The log keeps nothing for a stale voter, and everything for one in good standing: it has the head when it becomes one,
 * so that nobody who trims what it was not waited for removes what it lacks.
 */
function reinstate(
  dependencies: StepDependencies,
  { record: { id } }: SetGround,
  step: Declaration,
  signal: AbortSignal,
): Promise<boolean> {
  return whilePushesWait(dependencies, id, signal, async ({ compares, late, over }) => {
    const ground = await readGround(dependencies.coordinator, id);
    if (ground === undefined || !isReinstatement(ground.record, step)) return false;
    const either = AbortSignal.any([signal, over]);
    await inTime(reachHead(dependencies, ground, step, either), late);
    return await change(dependencies, ground, declaring(ground.record, step), { compares });
  });
}

function declared(copy: Voter, { storeId, state }: Declaration): Voter {
  if (copy.storeId !== storeId) return copy;
  const plain = undeclared(copy);
  return state === undefined ? plain : { ...plain, state };
}

function undeclared({ state: _declared, ...plain }: Voter): Voter {
  return plain;
}

/** Whether there is a node that could take the next copy that is to vote. */
export function isSomebodyToAdd(dependencies: StepDependencies, ground: SetGround): boolean {
  return (
    fitReader(dependencies, ground) !== undefined || newcomers(dependencies, ground).length > 0
  );
}

/** A copy that is only read, where one may vote. */
function fitReader(dependencies: StepDependencies, { record }: SetGround): Voter | undefined {
  return record.readers?.find(
    (reader) => isAsked(dependencies, reader) && isStaying(dependencies, reader),
  );
}

/** The nodes without a copy where one may vote, best first. */
function newcomers(dependencies: StepDependencies, ground: SetGround): ReturnType<Ring['place']> {
  return candidates(dependencies, ground).filter((node) => isAsked(dependencies, node));
}

function isAsked({ target }: StepDependencies, { nodeId }: { readonly nodeId: string }): boolean {
  return target === undefined || target.includes(nodeId);
}

async function addLearner(dependencies: StepDependencies, ground: SetGround): Promise<boolean> {
  const { record } = ground;
  const joinedEpoch = record.epoch + 1;
  const fit = fitReader(dependencies, ground);
  if (fit !== undefined) {
    // What is there already need not be sent again.
    const { nodeId, storeId } = fit;
    const [readers] = apart(record.readers ?? [], storeId);
    const learners = [...record.learners, { nodeId, storeId, joinedEpoch }];
    // Whole, as what is to vote has to be, or filled anew: a copy under suspicion is verified before it is filled.
    const key = keys.damage(record.id, storeId);
    const operations: Operation[] = [{ type: 'put', key, value: encodeRecord({}) }];
    return change(dependencies, ground, { learners, readers }, { operations });
  }
  const chosen = await firstFree(dependencies, ground, newcomers(dependencies, ground));
  if (chosen === undefined) return false;
  const { nodeId, storeId } = chosen;
  const learners = [...record.learners, { nodeId, storeId, joinedEpoch }];
  return change(dependencies, ground, { learners }, unlessLeftovers(record.id, storeId));
}

/** Not on a node that is nearly full: it may do without, and others may not. */
async function addReader(dependencies: StepDependencies, ground: SetGround): Promise<boolean> {
  const { record } = ground;
  const notFull = candidates(dependencies, ground).filter((node) => !isFull(node));
  const chosen = await firstFree(dependencies, ground, notFull);
  if (chosen === undefined) return false;
  const { nodeId, storeId } = chosen;
  const reader: Voter = { nodeId, storeId, joinedEpoch: record.epoch + 1, state: 'stale' };
  const readers = [...(record.readers ?? []), reader];
  return change(dependencies, ground, { readers }, unlessLeftovers(record.id, storeId));
}

function isStaying({ replicas, ring }: StepDependencies, { nodeId, storeId }: Voter): boolean {
  return replicas.find(storeId) !== undefined && ring().has(nodeId);
}

/** Nodes without a copy, best first. */
function candidates(
  { replicas, ring }: StepDependencies,
  { record }: SetGround,
): ReturnType<Ring['place']> {
  const nodes = replicas.nodes();
  const zoneOf = (nodeId: string): string =>
    nodes.find((node) => node.nodeId === nodeId)?.zone ?? '';
  // A node whose disk was lost is like a new one: what it has is another store's.
  const lost = (member: Voter): boolean =>
    nodes.some(({ nodeId, storeId }) => nodeId === member.nodeId && storeId !== member.storeId);
  const members = copiesOf(record).filter((member) => !lost(member));
  const beside = members.map(({ nodeId }) => ({ nodeId, zone: zoneOf(nodeId) }));
  return ring().place(record.id, nodes.length, beside);
}

/** The first where nothing is left of an earlier stay: what is may have readers for hours yet. */
async function firstFree<T extends { readonly storeId: string }>(
  { coordinator }: StepDependencies,
  { record: { id } }: SetGround,
  nodes: readonly T[],
): Promise<T | undefined> {
  for (const node of nodes) {
    if ((await coordinator.get(keys.eviction(node.storeId, id))) === undefined) return node;
  }
  return undefined;
}

/** What an earlier stay left there has to be gone: it would be taken for what was asked to be removed. */
function unlessLeftovers(
  repositoryId: string,
  storeId: string,
): { readonly compares: readonly Compare[] } {
  const key = keys.eviction(storeId, repositoryId);
  return { compares: [{ key, target: 'createRevision', op: '=', operand: 0 }] };
}

async function fill(
  { coordinator, replicas, clock, quietMs = () => firstQuietMs }: StepDependencies,
  { record, head, damages }: SetGround,
  { storeId, fresh }: { readonly storeId: string; readonly fresh: boolean },
  signal: AbortSignal,
): Promise<void> {
  const replica = replicas.find(storeId);
  if (replica === undefined) throw nobodyReachable(replicas, copiesOf(record));
  const source = peerSourceOf({ coordinator, replicas, clock }, { id: record.id, storeId });
  const quietForMs = quietMs(record.id, storeId);
  await whileFilling({ replicas, clock, storeId, quietForMs, signal }, (either, progress) =>
    replica.catchUp(record.id, {
      atLeast: head.generation,
      fresh,
      source,
      signal: either,
      progress,
    }),
  );
  const revision = damages.get(storeId);
  if (fresh && revision !== undefined) {
    await forgetDamage(coordinator, record.id, { storeId, revision });
  }
}

/** Under the repository's lock, so that a busy repository does not run away from its learner for ever. */
function promote(
  dependencies: StepDependencies,
  { record: { id } }: SetGround,
  { storeId, inPlaceOf }: { readonly storeId: string; readonly inPlaceOf?: string },
  signal: AbortSignal,
): Promise<boolean> {
  return whilePushesWait(dependencies, id, signal, async ({ compares: held, late, over }) => {
    const ground = await readGround(dependencies.coordinator, id);
    if (ground === undefined) return false;
    const { record } = ground;
    const [waiting, [learner]] = apart(record.learners, storeId);
    const [staying, relieved] = apart(record.voters, inPlaceOf);
    if (learner === undefined || (inPlaceOf !== undefined && relieved.length === 0)) return false;
    const voter: Voter = { ...learner, joinedEpoch: record.epoch + 1 };
    const voters = [...staying, voter];
    const learners = [...waiting, ...relieved.map(undeclared)];
    const either = AbortSignal.any([signal, over]);
    await inTime(bringToHead(dependencies, ground, { storeId, voters }, either), late);
    // What was reported since is looked into first.
    const key = keys.damage(id, storeId);
    const sound: Compare = { key, target: 'createRevision', op: '=', operand: 0 };
    const compares = [...held, sound];
    return await change(dependencies, ground, { learners, voters }, { compares });
  });
}

/** The repository's lock, as long as it is held. */
export interface HeldPushes {
  /** For the change: it happens under the lock or not at all. */
  readonly compares: readonly Compare[];
  /** Resolves when pushes have waited for long enough. */
  readonly late: Promise<void>;
  /** Aborted when the lock goes. */
  readonly over: AbortSignal;
}

/** Takes the repository's lock: no push is committed while `act` runs. Fails when pushes hold it for too long. */
export async function whilePushesWait<T>(
  { locks, random, clock }: Pick<StepDependencies, 'locks' | 'random' | 'clock'>,
  repositoryId: string,
  signal: AbortSignal,
  act: (held: HeldPushes) => Promise<T>,
): Promise<T> {
  const held = await locks.acquire({
    repositoryId,
    scope: 'repository',
    pushId: `replica-set-${Buffer.from(random.bytes(12)).toString('hex')}`,
    timeoutMs: lockTimeoutMs,
    signal,
    read: [],
  });
  const over = new AbortController();
  try {
    const late = clock.sleep(holdTimeoutMs, over.signal);
    return await act({ compares: held.compares, late, over: over.signal });
  } finally {
    over.abort();
    await held.release();
  }
}

/** Pushes came in since the step was chosen; none does while the lock is held. */
async function bringToHead(
  dependencies: StepDependencies,
  ground: SetGround,
  { storeId, voters }: { readonly storeId: string; readonly voters: readonly Voter[] },
  signal: AbortSignal,
): Promise<void> {
  await reachHead(dependencies, ground, { storeId }, signal);
  await refuseUnlessHeld(dependencies.replicas, ground, voters);
}

async function reachHead(
  dependencies: StepDependencies,
  ground: SetGround,
  { storeId }: { readonly storeId: string },
  signal: AbortSignal,
): Promise<void> {
  const { record, head } = ground;
  await fill(dependencies, ground, { storeId, fresh: false }, signal);
  const state = await dependencies.replicas.find(storeId)?.state(record.id);
  if (state?.generation !== head.generation || state.digest !== head.digest) {
    throw new QuorateError('aborted', 'a copy is not at the head; it is tried again');
  }
}

/** A majority of what is to be the set has applied the head: the others are not waited for. */
async function refuseUnlessHeld(
  replicas: ReplicaDirectory,
  { record: { id }, head: { generation } }: SetGround,
  voters: readonly Voter[],
): Promise<void> {
  const enough = majorityOf(voters);
  let count = 0;
  await new Promise<void>((resolve) => {
    const applying = voters.map(async ({ storeId }) => {
      const replica = replicas.find(storeId);
      if (replica === undefined) throw nobodyReachable(replicas, voters);
      await replica.apply(id, generation);
      count += 1;
      if (count >= enough) resolve();
    });
    void Promise.allSettled(applying).then(() => resolve());
  });
  if (count >= enough) return;
  throw new QuorateError('aborted', 'too few copies have the newest push; it is tried again');
}

async function change(
  { coordinator, held = [] }: Pick<StepDependencies, 'coordinator' | 'held'>,
  { record, configRevision, headRevision }: SetGround,
  patch: Partial<Pick<RepositoryRecord, 'voters' | 'learners' | 'readers'>>,
  more: { readonly compares?: readonly Compare[]; readonly operations?: readonly Operation[] } = {},
): Promise<boolean> {
  const { readers = [], ...rest } = { ...record, ...patch };
  const next: RepositoryRecord = {
    ...rest,
    ...(readers.length === 0 ? {} : { readers }),
    epoch: record.epoch + 1,
  };
  const { succeeded } = await coordinator.transaction({
    compares: [
      { key: keys.repo(record.id), target: 'modRevision', op: '=', operand: configRevision },
      { key: keys.head(record.id), target: 'modRevision', op: '=', operand: headRevision },
      ...(more.compares ?? []),
      ...held,
    ],
    success: [
      { type: 'put', key: keys.repo(record.id), value: encodeRepository(next) },
      ...(more.operations ?? []),
    ],
    failure: [],
  });
  return succeeded;
}

function apart(voters: readonly Voter[], storeId: string | undefined): [Voter[], Voter[]] {
  return [
    voters.filter((voter) => voter.storeId !== storeId),
    voters.filter((voter) => voter.storeId === storeId),
  ];
}
