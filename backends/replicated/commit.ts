import type { HeldLocks, Locks } from '../coordination/locks.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import {
  asQuorateError,
  type ErrorCode,
  nothingChanged,
  QuorateError,
  refuseCancelled,
} from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Head, Oid, RefCommand } from '../contract/objects.js';
import type { Prepared, QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { type Basis, basisUnderLocks } from './basis.js';
import type { CommitQueue, ReadyPush } from './commit-queue.js';
import type { Contention } from './contention.js';
import { judgeOnPrimary, type JudgingReplica } from './judge.js';
import type { Patience } from './patience.js';
import type { Announced } from './presence.js';
import { prepareEverywhere, type PreparedSet } from './prepare.js';
import { type PushTrace, untraced } from './push-trace.js';
import { type Consistency, quorumMissing, suffices } from './quorum.js';
import { encodeRecord, type RepositoryRecord } from './records.js';
import type { SmallPack } from './small-packs.js';
import { type InlineLimit, inlineOrStored, keepLimitMs } from './stored-updates.js';
import { type Member, reachable, type ReplicaDirectory } from './voters.js';
import { type ExactHead, type Hold, withoutLocks } from './without-locks.js';

export interface CommitDependencies extends InlineLimit {
  readonly locks: Locks;
  readonly replicas: ReplicaDirectory;
  readonly queueOf: (repositoryId: string) => CommitQueue;
  readonly contention: Contention;
  readonly patience: Patience;
  /** This front-end as it is known in the coordinator. */
  readonly presence: () => Promise<Announced>;
  /** Told of every commit before it is applied; post-receive work starts from here. Never throws. */
  readonly committed: (repositoryId: string, commit: FreshCommit) => void;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
  /** How long a push waits for its locks. */
  readonly lockTimeoutMs: number;
}

/** A change to refs or to HEAD on its way through lock, prepare, commit and apply. */
export interface Change {
  readonly key: QuarantineKey;
  readonly actor: string;
  /** Stores that have its objects, best first; absent when it has none and every voter may take part. */
  readonly members?: readonly Member[];
  /** Objects that the stores get with the request to prepare. */
  readonly pack?: SmallPack | undefined;
  /** What was read when it came in. It may be judged by that, without locks; absent: it takes them. */
  readonly ahead?: Basis | undefined;
  readonly consistency: (record: RepositoryRecord) => Consistency;
  /** Told of each step; absent: nobody asks for this change's life. */
  readonly trace?: PushTrace;
  readonly commands: readonly RefCommand[];
  readonly pushOptions?: readonly string[];
  readonly head?: { readonly old: Head; readonly new: Head };
  readonly shallow: readonly Oid[];
  readonly signal: AbortSignal;
  /** Told of the stores that are about to be asked to prepare it, in each round. */
  readonly asking?: (members: readonly Member[]) => void;
  /** Told when it is known what it is judged by, and locks are held, in each round before `judge`. */
  readonly locked?: (repository: RepositoryRecord) => void;
  /** What `judge` found out, of the round that is committed: nobody is to be told. */
  readonly nobodyToTell?: () => boolean;
  /** Told at the commit point, before it is applied. Never throws. */
  readonly committed?: (committed: { readonly generation: number }) => void;
  /** Says which of the prepared commands go on; run again after each lost race. */
  readonly judge: (judged: Judged) => Promise<readonly RefCommand[]>;
}

/** What `judge` is told. */
export interface Judged {
  readonly repository: RepositoryRecord;
  readonly replica: JudgingReplica;
  readonly prepared: Prepared;
}

/** What the process that made a commit knows of it, and need not read. */
export interface FreshCommit {
  /** As it is in the log. */
  readonly entry: LogEntry;
  /** Updates that are too large for the log entry. */
  readonly updates?: readonly RefCommand[];
  /** The configuration that the commit compared. */
  readonly record: RepositoryRecord;
  /** The store that has applied it; undefined: none yet. */
  readonly applied: string | undefined;
  /** Nobody was to be told of it when it was judged. */
  readonly nobodyToTell?: boolean;
  readonly trace: PushTrace;
}

export type Committed = { readonly generation: number } | { readonly nothing: true };

/** Each round lost its locks or its configuration to somebody else; past this many the client is asked to retry. */
const maxRounds = 5;
/** Of a log entry. Options are for hooks: words, not documents. */
const maxPushOptionsBytes = 16 * 1024;

/**
 * A store that has not applied a push after so long is not waited for alone: its disk hangs, perhaps. The others are
 * about to apply it anyway.
 */
const applyPatienceMs = 3_000;
/** When all have been asked: a push that no store has applied after so long is reported, too, since it is committed. */
const reportPatienceMs = 30_000;

/** What a round goes by. */
interface Ground {
  readonly held: Hold;
  /** Throws `not-found` when the repository is gone. */
  readonly basis: () => Basis;
  /** Of a round without locks. */
  readonly exactHead?: ExactHead;
  readonly presence: () => Promise<Announced>;
}

/**
 * Takes the locks, prepares, judges, commits and applies (docs/architecture.md, "A push", steps 2 to 6). A push with
 * which nobody seems to compete takes no locks at first. On return the change is durable and the next read sees it.
 * The caller aborts the quarantine unless it was committed or the outcome is unknown.
 */
export async function commitChange(
  dependencies: CommitDependencies,
  change: Change,
): Promise<Committed> {
  const { repositoryId } = change.key;
  const { contention } = dependencies;
  const { alone, leave } = contention.enter(repositoryId);
  try {
    const unlocked = alone ? await goWithout(dependencies, change) : undefined;
    if (unlocked !== undefined) {
      const outcome = await commitRound(dependencies, change, unlocked);
      if (outcome !== 'again') return outcome;
      contention.lost(repositoryId);
    }
    return await commitLocked(dependencies, change);
  } finally {
    leave();
  }
}

/** Undefined: it has to take locks. */
async function goWithout(
  { locks, presence }: CommitDependencies,
  { ahead, head, commands }: Change,
): Promise<Ground | undefined> {
  if (ahead === undefined || head !== undefined || commands.length === 0) return undefined;
  const announced = await nothingUnknown(presence);
  const refs = commands.map(({ ref }) => ref);
  const { hold, exactHead } = withoutLocks(locks, ahead, { refs, presence: announced });
  return {
    held: hold,
    exactHead,
    basis: () => ahead,
    presence: () => Promise.resolve(announced),
  };
}

async function commitLocked(dependencies: CommitDependencies, change: Change): Promise<Committed> {
  for (let round = 0; round < maxRounds; round++) {
    const held = await acquire(dependencies, change);
    const { presence } = dependencies;
    const basis = (): Basis => basisUnderLocks(change.key.repositoryId, held.reads);
    let decided = true;
    try {
      const outcome = await commitRound(dependencies, change, { held, basis, presence });
      if (outcome !== 'again') return outcome;
    } catch (error) {
      decided = asQuorateError(error).code !== 'outcome-unknown';
      throw error;
    } finally {
      // With an unknown outcome the locks stay: they are what tells, later, whether the commit happened.
      if (decided) await held.release();
    }
  }
  throw new QuorateError(
    'aborted',
    'other changes to this repository kept getting in first; nothing changed, push again',
  );
}

async function acquire(dependencies: CommitDependencies, change: Change): Promise<HeldLocks> {
  const { repositoryId, pushId } = change.key;
  return timed(dependencies, 'lock', () =>
    dependencies.locks.acquire({
      repositoryId,
      scope:
        change.head === undefined ? { refs: change.commands.map(({ ref }) => ref) } : 'repository',
      pushId,
      timeoutMs: dependencies.lockTimeoutMs,
      signal: change.signal,
      read: [keys.head(repositoryId), keys.repo(repositoryId)],
    }),
  );
}

async function commitRound(
  dependencies: CommitDependencies,
  change: Change,
  ground: Ground,
): Promise<Committed | 'again'> {
  const { repositoryId } = change.key;
  const { clock, contention } = dependencies;
  const startedMs = clock.monotonicMs();
  const readied = await nothingUnknown(() => readyFor(dependencies, change, ground));
  contention.judged(repositoryId, clock.monotonicMs() - startedMs);
  if (typeof readied === 'string') return readied === 'again' ? readied : { nothing: true };
  const { push, record, members } = readied;
  const trace = change.trace ?? untraced;
  refuseCancelled(change.signal);
  const outcome = await timed(dependencies, 'commit', () =>
    dependencies.queueOf(repositoryId).commit(push),
  );
  if (outcome.status !== 'committed') {
    trace.note('judged again', { detail: outcome.status });
    return 'again';
  }
  const { entry } = outcome;
  const { generation } = entry;
  trace.note('committed', { detail: `generation ${generation}` });
  change.committed?.({ generation });
  const applied = await applyCommitted(dependencies, members, { record, generation });
  if (applied !== undefined) trace.note('applied', at(record, applied));
  dependencies.committed(repositoryId, {
    entry,
    ...(entry.updatesDigest === undefined ? {} : { updates: push.changes.updates }),
    record,
    applied,
    nobodyToTell: change.nobodyToTell?.() ?? false,
    trace,
  });
  return { generation };
}

/** Before the commit an answer that was lost is a failure like any other: the push has changed nothing. */
async function nothingUnknown<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (asQuorateError(error).code !== 'outcome-unknown') throw error;
    throw nothingChanged(error);
  }
}

/** Prepared and judged, ready to be committed; `nothing`: no command is left. */
async function readyFor(
  dependencies: CommitDependencies,
  change: Change,
  ground: Ground,
): Promise<
  | {
      readonly push: ReadyPush;
      readonly record: RepositoryRecord;
      readonly members: readonly Member[];
    }
  | 'again'
  | 'nothing'
> {
  const { pushId } = change.key;
  const { held, exactHead } = ground;
  const basis = ground.basis();
  const { record, configRevision } = basis;
  const head = change.head === undefined ? {} : { head: change.head };
  const consistency = change.consistency(record);
  const trace = change.trace ?? untraced;
  trace.note(exactHead === undefined ? 'locked' : 'not locked', {
    detail: `generation ${basis.head.generation}, epoch ${record.epoch}`,
  });
  change.locked?.(record);
  const ready = await prepare(dependencies, change, { ...ground, basis: () => basis });
  if (ready === undefined) return 'again';
  const { key } = change;
  const { prepared } = ready;
  const judged = await judgeOnPrimary(
    { ...dependencies, key, record, ready, consistency },
    (replica) => change.judge({ repository: record, replica, prepared }),
  );
  const { accepted } = judged;
  trace.note('judged', { detail: `${accepted.length} of ${change.commands.length} accepted` });
  if (accepted.length === 0 && change.head === undefined) return 'nothing';
  const { maxInlineUpdatesBytes } = dependencies;
  const counted = { consistency, voters: record.voters, maxInlineUpdatesBytes };
  const { members, inline } = await inlineOrStored(change.key, accepted, judged.members, {
    ...counted,
    patient: { ...dependencies, limitMs: keepLimitMs },
  });
  const push: ReadyPush = {
    held,
    ...(exactHead === undefined ? {} : { exactHead }),
    configRevision,
    basis: basis.head.generation,
    headSeen: basis,
    frontEnd: (await ground.presence()).id,
    changes: { updates: accepted, ...head },
    entry: {
      pushId,
      ...inline,
      ...head,
      ...loggedOptions(change.pushOptions ?? []),
      prepared: members.map(({ storeId }) => storeId),
      actor: change.actor,
      atMs: dependencies.clock.nowMs(),
    },
  };
  return { push, record, members };
}

async function prepare(
  dependencies: CommitDependencies,
  change: Change,
  { held, exactHead, basis }: Ground,
): Promise<PreparedSet | undefined> {
  const { record, head } = basis();
  const { voters } = record;
  const consistency = change.consistency(record);
  // The configuration may be another than the one whose stores were sent the objects.
  const members = (change.members ?? reachable(dependencies.replicas, voters)).filter(
    ({ storeId }) => voters.some((voter) => voter.storeId === storeId && voter.state !== 'stale'),
  );
  const stores = new Set(members.map(({ storeId }) => storeId));
  if (!suffices(consistency, voters, stores)) {
    dependencies.meter.count('quorum_failures', { consistency });
    throw quorumMissing(consistency, voters, stores);
  }
  change.asking?.(members);
  return timed(dependencies, 'prepare', () =>
    prepareEverywhere({
      ...dependencies,
      members,
      voters,
      consistency,
      held,
      signal: change.signal,
      pack: change.pack,
      answered: (storeId, tookPack) => {
        if (tookPack) change.trace?.note('uploaded', at(record, storeId));
        change.trace?.note('prepared', at(record, storeId));
      },
      request: {
        key: change.key,
        basis: head.generation,
        commands: change.commands,
        ...(change.head === undefined ? {} : { head: change.head }),
        settings: change.pack?.settings(record.settings) ?? record.settings,
        shallow: change.shallow,
        lockRevisions: held.locks,
        ...(change.members === undefined ? {} : { uploaded: true }),
        ...(exactHead === undefined ? {} : { headRevision: exactHead.headRevision }),
      },
    }),
  );
}

function at({ voters }: RepositoryRecord, storeId: string): { readonly nodeId: string } {
  return { nodeId: voters.find((voter) => voter.storeId === storeId)?.nodeId ?? storeId };
}

function loggedOptions(options: readonly string[]): { pushOptions?: readonly string[] } {
  const fit = encodeRecord(options).length <= maxPushOptionsBytes;
  return options.length > 0 && fit ? { pushOptions: options } : {};
}

/** A store that went between the commit and this takes it when it is back: whoever stops it knows. */
const awayCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['unavailable', 'deadline-exceeded']);

/**
 * The push is committed by now, so nothing here may fail it. The first store that applies it is enough for the report:
 * a read finds it there, or applies it. An entry that nobody can apply (disks full, or hanging) is left to the outbox.
 */
async function applyCommitted(
  dependencies: CommitDependencies,
  members: readonly Member[],
  { record, generation }: { record: RepositoryRecord; generation: number },
): Promise<string | undefined> {
  const { id } = record;
  const left = [...members];
  const asked: Promise<string>[] = [];
  const over = new AbortController();
  const apply = async ({ storeId, replica }: Member): Promise<string> => {
    try {
      await timed(dependencies, 'apply', () => replica.apply(id, generation));
      return storeId;
    } catch (error) {
      const { nodeId: node } = at(record, storeId);
      const facts = { component: 'commit', repo: id, generation, store: storeId, node, err: error };
      const said = 'a committed push could not be applied yet';
      if (awayCodes.has(asQuorateError(error).code)) dependencies.logger.warn(facts, said);
      else dependencies.logger.error(facts, said);
      throw error;
    }
  };
  const late = async (): Promise<undefined> => {
    const patienceMs = left.length === 0 ? reportPatienceMs : applyPatienceMs;
    await dependencies.clock.sleep(patienceMs, over.signal);
  };
  try {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      asked.push(apply(next));
      // Fails when all of them have.
      const first = Promise.any(asked).catch(() => undefined);
      const applied = await Promise.race([first, late()]);
      if (applied !== undefined) return applied;
    }
    return undefined;
  } finally {
    over.abort('over');
  }
}

/** Runs a step of a push and records how long it took. */
export async function timed<T>(
  { clock, meter }: Pick<CommitDependencies, 'clock' | 'meter'>,
  step: 'upload' | 'lock' | 'prepare' | 'commit' | 'apply',
  run: () => Promise<T>,
): Promise<T> {
  const startedMs = clock.monotonicMs();
  try {
    return await run();
  } finally {
    meter.observe('push_step_seconds', (clock.monotonicMs() - startedMs) / 1000, { step });
  }
}
