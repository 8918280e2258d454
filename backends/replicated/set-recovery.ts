import type { HeldLocks, Locks } from '../coordination/locks.js';
import type { LossRecovery, LossReport } from '../contract/cluster.js';
import type { Operation } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { RefCommand } from '../contract/objects.js';
import type { HeldPush, QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter } from '../git/digest.js';
import { recoverAhead } from './ahead-recovery.js';
import { deleted } from './basis.js';
import {
  copiesOf,
  decodeLogEntry,
  encodeRecord,
  encodeRepository,
  type RepositoryRecord,
  scan,
  type Voter,
} from './records.js';
import { evicted } from './evictions.js';
import { isAheadElsewhere } from './head-recovery.js';
import { keepObjects } from './keep-overruled.js';
import { type Loss, type LossDependencies, surveyLoss, type Survivor } from './set-loss.js';
import { readGround, type SetGround } from './set-view.js';
import {
  overruledEntry,
  type OverruledChange,
  overruledPrefix,
  type Told,
  toldOf,
  unacknowledged,
  unknownGeneration,
} from './overruled.js';
import { type InlineLimit, inlineOrStored } from './stored-updates.js';

export interface SetRecoveryDependencies extends LossDependencies, InlineLimit {
  readonly replicationFactor: number;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Pushes that still run end, or lose their locks with their front-end, in this time. */
const lockTimeoutMs = 30_000;
/** Generations of which nothing is known are told one by one up to here. */
const maxUnknown = 100;

/** A recovery under way: what was found, and the refs that are to be made. */
interface Plan {
  readonly ground: SetGround;
  readonly loss: Loss;
  readonly changes: readonly OverruledChange[];
  /** What the survivor prepared of it; empty when nothing is to be kept, or nothing can be. */
  readonly kept: readonly RefCommand[];
  readonly key: QuarantineKey;
}

/**
 * What is left of a repository that has lost stores, and, if it is wanted, a recovery from that: see
 * `ClusterControl.recover`. Everything is decided by one transaction, which compares all that it was judged by; before
 * it nothing has changed, and after it the log tells the survivor what to do.
 */
export async function recoverSet(
  dependencies: SetRecoveryDependencies,
  id: string,
  recovery: LossRecovery,
): Promise<LossReport> {
  if (recovery.accept === undefined) {
    const plan = await prepareRecovery(dependencies, id, { recovery, lockRevisions: [] });
    if (plan.loss.isAhead) return recoverAhead(dependencies, plan, recovery);
    await drop(plan);
    return reportOf(plan, undefined);
  }
  const held = await dependencies.locks.acquire({
    repositoryId: id,
    scope: 'repository',
    pushId: `recover-${hexId(dependencies)}`,
    timeoutMs: lockTimeoutMs,
    signal: recovery.signal,
    read: [],
  });
  try {
    const lockRevisions = held.locks;
    const plan = await prepareRecovery(dependencies, id, { recovery, lockRevisions });
    if (plan.loss.isAhead) return await recoverAhead(dependencies, plan, recovery);
    try {
      return reportOf(plan, await carryOut(dependencies, plan, { held, recovery }));
    } catch (error) {
      // With an unknown outcome the log, and only the log, says whether these objects are needed.
      if (asQuorateError(error).code !== 'outcome-unknown') await drop(plan);
      throw error;
    }
  } finally {
    await held.release();
  }
}

async function prepareRecovery(
  dependencies: SetRecoveryDependencies,
  id: string,
  {
    recovery: { gone, keepUnacknowledged, signal },
    lockRevisions,
  }: { readonly recovery: LossRecovery; readonly lockRevisions: HeldLocks['locks'] },
): Promise<Plan> {
  const ground = await readGround(dependencies.coordinator, id);
  if (ground === undefined) throw deleted(id);
  const [surveyed, isElsewhere] = await Promise.all([
    surveyLoss(dependencies, ground, gone),
    isAheadElsewhere(dependencies, ground, signal),
  ]);
  const loss = { ...surveyed, isAhead: surveyed.isAhead || isElsewhere };
  const key = { repositoryId: id, pushId: `recover-${hexId(dependencies)}`, attempt: 1 };
  const [survivor] = loss.survivors;
  // What a majority has is applied by it: nothing is overruled then, and nothing prepared has to be looked at.
  if (survivor === undefined || loss.isAhead) return { ground, loss, changes: [], kept: [], key };
  const digests = (await readLog(dependencies, id)).flatMap(
    ({ updatesDigest = [] }) => updatesDigest,
  );
  const held = await heldBy(loss.survivors, id, digests);
  // What was committed meanwhile is not to be taken for what nobody committed.
  const log = await readLog(dependencies, id);
  const changes = [
    ...overruledBy(survivor, ground, { log, held }),
    ...(keepUnacknowledged ? neverCommitted(log, held) : []),
  ];
  const kept = await keepObjects({ loss, held, changes, key, lockRevisions, signal });
  return { ground, loss, changes, kept, key };
}

type Held = Awaited<ReturnType<typeof heldBy>>;

/** Prepared pushes by push id, with the survivors that have their objects. */
async function heldBy(survivors: readonly Survivor[], id: string, digests: readonly string[]) {
  const held = new Map<string, HeldBySome>();
  for (const survivor of survivors) {
    for (const push of await survivor.replica.heldPushes(id, digests)) {
      const known = held.get(push.pushId) ?? { push, by: [], told: [], allowed: [] };
      known.by.push(survivor);
      const { updates, anyOf, ...named } = push;
      if (updates !== undefined) known.told.push({ ...named, updates });
      if (anyOf !== undefined) known.allowed.push(anyOf);
      held.set(push.pushId, known);
    }
  }
  return held;
}

interface HeldBySome {
  readonly push: HeldPush;
  readonly by: Survivor[];
  /** Its updates, as each of them has them. */
  readonly told: Told[];
  /** What it was allowed where it was judged more than once. */
  readonly allowed: (readonly RefCommand[])[];
}

async function readLog(
  { coordinator }: SetRecoveryDependencies,
  id: string,
): Promise<readonly LogEntry[]> {
  const entries: LogEntry[] = [];
  for await (const kv of scan(coordinator, keys.log(id))) entries.push(decodeLogEntry(kv));
  return entries;
}

function overruledBy(
  { state }: Survivor,
  { head }: SetGround,
  { log, held }: { readonly log: readonly LogEntry[]; readonly held: Held },
): readonly OverruledChange[] {
  const changes: OverruledChange[] = [];
  let before: string | undefined = state.digest;
  for (let generation = state.generation + 1; generation <= head.generation; generation++) {
    const entry = log.find((one) => one.generation === generation);
    if (entry !== undefined) {
      const told = held.get(entry.pushId)?.told ?? [];
      changes.push(overruledEntry(entry, { told, before: entry.after?.digest ?? before }));
    } else if (changes.length < maxUnknown) changes.push(unknownGeneration(generation));
    before = entry?.digest;
  }
  return changes;
}

function neverCommitted(log: readonly LogEntry[], held: Held): readonly OverruledChange[] {
  const committed = new Set(log.map(({ pushId }) => pushId));
  return [...held.values()]
    .filter(({ push: { pushId } }) => !committed.has(pushId) && !pushId.startsWith('recover-'))
    .map(({ push: { pushId }, ...known }) => unacknowledged(pushId, known));
}

/** Returns the generation that the repository has from now on. */
async function carryOut(
  dependencies: SetRecoveryDependencies,
  { ground, loss, kept, key }: Plan,
  { held, recovery }: { readonly held: HeldLocks; readonly recovery: LossRecovery },
): Promise<number> {
  const { coordinator, logger } = dependencies;
  const [survivor] = loss.survivors;
  refuse(loss.refusal);
  if (survivor === undefined) throw new QuorateError('internal', 'a recovery without a survivor');
  if (recovery.accept !== survivor.state.generation) {
    refuse(
      `it would go on from generation ${survivor.state.generation}, not ${recovery.accept}: look at the report again`,
    );
  }
  const { record, head, configRevision, headRevision } = ground;
  const next = recoveredRecord(record, loss);
  const entry = await entryOf(dependencies, { ground, survivor, kept, key, recovery });
  const { succeeded } = await coordinator.transaction({
    binding: true,
    compares: [
      { key: keys.repo(record.id), target: 'modRevision', op: '=', operand: configRevision },
      { key: keys.head(record.id), target: 'modRevision', op: '=', operand: headRevision },
      ...held.compares,
    ],
    success: [
      { type: 'put', key: keys.repo(record.id), value: encodeRepository(next) },
      ...setAsideLost(record, next),
      ...(entry === undefined ? [] : entryOperations(ground, survivor, entry)),
      ...held.deletes,
    ],
    failure: [],
  });
  if (!succeeded) {
    throw new QuorateError('aborted', 'the repository changed meanwhile: look at the report again');
  }
  held.released();
  const generation = entry?.generation ?? head.generation;
  logger.warn(
    { component: 'recovery', repo: record.id, generation, from: survivor.state.generation },
    'a repository goes on from a copy that was left',
  );
  // Whoever reads next would do it as well.
  await survivor.replica.apply(record.id, generation).catch((error: unknown) => {
    logger.warn(
      { component: 'recovery', repo: record.id, err: error },
      'a recovered repository is applied later',
    );
  });
  return generation;
}

/**
 * One voter; what else answers is filled from it, and readers go on as such. Its refs are not shown more widely than those
 * that they stand for.
 */
function recoveredRecord(record: RepositoryRecord, { survivors }: Loss): RepositoryRecord {
  const [first, ...others] = survivors;
  const { target, settings, readers: _before, ...rest } = record;
  const readers = others.filter(({ role }) => role === 'reader').map(({ member }) => member);
  const left = new Set(survivors.map(({ member }) => member.nodeId));
  const reachable = target?.every((nodeId) => left.has(nodeId)) === true;
  const hidden = settings['transfer.hideRefs'] ?? settings['uploadpack.hideRefs'] ?? '';
  const shielded = hidden === '' ? hidden : `${hidden},${overruledPrefix.slice(0, -1)}`;
  return {
    ...rest,
    settings: hidden === '' ? settings : { ...settings, 'transfer.hideRefs': shielded },
    ...(reachable ? { target } : {}),
    voters: first === undefined ? [] : [undeclared(first)],
    learners: others.filter(({ role }) => role !== 'reader').map(undeclared),
    ...(readers.length === 0 ? {} : { readers }),
    epoch: record.epoch + 1,
  };
}

function undeclared({ member: { state: _declared, ...member } }: Survivor): Voter {
  return member;
}

/** Should a store that is gone come back, its copy is put aside for people to look at, and is no copy any more. */
function setAsideLost(record: RepositoryRecord, next: RepositoryRecord): readonly Operation[] {
  const kept = new Set(copiesOf(next).map(({ storeId }) => storeId));
  return copiesOf(record)
    .filter(({ storeId }) => !kept.has(storeId))
    .map(({ storeId }) => evicted(record.id, storeId, { setAside: true }));
}

/** Undefined when the survivor has the head and nothing is to be kept: then no ref changes. */
async function entryOf(
  { clock, maxInlineUpdatesBytes }: SetRecoveryDependencies,
  {
    ground: { head },
    survivor: { member, replica, state },
    kept,
    key,
    recovery,
  }: Pick<Plan, 'ground' | 'kept' | 'key'> & {
    readonly survivor: Survivor;
    readonly recovery: LossRecovery;
  },
): Promise<LogEntry | undefined> {
  if (state.generation === head.generation && kept.length === 0) return undefined;
  const { storeId } = member;
  const counted = { consistency: 'quorum' as const, voters: [member], maxInlineUpdatesBytes };
  const { inline } = await inlineOrStored(key, kept, [{ storeId, replica }], counted);
  const { generation, digest } = state;
  return {
    generation: head.generation + 1,
    pushId: key.pushId,
    ...inline,
    ...(generation === head.generation ? {} : { after: { generation, digest } }),
    prepared: [storeId],
    digest: digestAfter(digest, kept),
    actor: recovery.actor,
    atMs: clock.nowMs(),
  };
}

/** The entries that are overruled go in the same transaction: the new one follows the survivor's generation. */
function entryOperations(
  { record: { id } }: SetGround,
  survivor: Survivor,
  entry: LogEntry,
): readonly Operation[] {
  const { generation, digest, pushId } = entry;
  const from = keys.logEntry(id, survivor.state.generation + 1);
  const to = keys.logEntry(id, generation);
  return [
    { type: 'put', key: keys.head(id), value: encodeRecord({ generation, digest }) },
    { type: 'put', key: to, value: encodeRecord(entry) },
    // Nobody's: whoever looks next for what was left takes it up.
    { type: 'put', key: keys.outbox(id, pushId), value: encodeRecord({ generation }) },
    ...(from < to ? [{ type: 'delete', key: from, rangeEnd: to } as const] : []),
  ];
}

function reportOf(
  { ground, loss, changes, kept }: Plan,
  recovered: number | undefined,
): LossReport {
  const [survivor] = loss.survivors;
  const names = new Set(kept.map(({ ref }) => ref));
  return {
    generation: ground.head.generation,
    copies: loss.copies,
    survivor:
      survivor === undefined
        ? undefined
        : { nodeId: survivor.member.nodeId, generation: survivor.state.generation },
    overruled: changes.map((change) => toldOf(change, names)),
    refusal: loss.refusal,
    recovered,
  };
}

/** What was prepared comes to nothing. It lies there until its locks are gone, otherwise. */
async function drop({ loss, kept, key }: Plan): Promise<void> {
  if (kept.length > 0) await loss.survivors[0]?.replica.abort(key).catch(() => undefined);
}

function refuse(reason: string | undefined): void {
  if (reason !== undefined) throw new QuorateError('failed-precondition', reason);
}

function hexId({ random }: SetRecoveryDependencies): string {
  return Buffer.from(random.bytes(12)).toString('hex');
}
