import type { HeldLocks, Locks } from '../coordination/locks.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Head, Oid, RefCommand } from '../contract/objects.js';
import type { Prepared, QuarantineKey, Replica } from '../contract/replica.js';
import type { CommitQueue } from './commit-queue.js';
import { decodeHead, decodeRepository, encodeRecord, type RepositoryRecord } from './records.js';
import { primaryOf, type ReplicaDirectory } from './voters.js';

export interface CommitDependencies {
  readonly locks: Locks;
  readonly replicas: ReplicaDirectory;
  readonly queueOf: (repositoryId: string) => CommitQueue;
  /** Told of every commit before it is applied; post-receive work starts from here. Never throws. */
  readonly committed: (
    repositoryId: string,
    pushId: string,
    /** Updates that are too large for the log entry. */
    updates?: readonly RefCommand[],
  ) => void;
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
  readonly commands: readonly RefCommand[];
  readonly pushOptions?: readonly string[];
  readonly head?: { readonly old: Head; readonly new: Head };
  readonly shallow: readonly Oid[];
  readonly signal: AbortSignal;
  /** Says which of the prepared commands go on; run under the locks, again after each lost race. */
  readonly judge: (judged: Judged) => Promise<readonly RefCommand[]>;
}

/** What `judge` is told. */
export interface Judged {
  readonly repository: RepositoryRecord;
  readonly replica: Replica;
  readonly prepared: Prepared;
}

export type Committed = { readonly generation: number } | { readonly nothing: true };

/** Each round lost its locks or its configuration to somebody else; past this many the client is asked to retry. */
const maxRounds = 5;
/** Updates whose JSON form is larger stay with the voters; the log carries their digest. */
const maxInlineUpdatesBytes = 256 * 1024;

/** Of a log entry. Options are for hooks: words, not documents. */
const maxPushOptionsBytes = 16 * 1024;

/**
 * Takes the locks, prepares, judges, commits and applies (docs/architecture.md, "A push", steps 2 to 6). On return
 * the change is durable and the next read sees it. The caller aborts the quarantine unless it was committed or the
 * outcome is unknown.
 */
export async function commitChange(
  dependencies: CommitDependencies,
  change: Change,
): Promise<Committed> {
  for (let round = 0; round < maxRounds; round++) {
    const held = await acquire(dependencies, change);
    let decided = true;
    try {
      const outcome = await commitRound(dependencies, change, held);
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
  held: HeldLocks,
): Promise<Committed | 'again'> {
  const { repositoryId, pushId } = change.key;
  const { record, configRevision, basis } = readBasis(held, repositoryId);
  const replica = primaryOf(dependencies.replicas, record.voters);
  const head = change.head === undefined ? {} : { head: change.head };
  const prepared = await prepare(dependencies, change, held, { replica, record, basis });
  if (prepared === undefined) return 'again';
  const accepted = await change.judge({ repository: record, replica, prepared });
  if (accepted.length === 0 && change.head === undefined) return { nothing: true };
  const inline = await inlineOrStored(replica, change.key, accepted);
  refuseCancelled(change.signal);
  const outcome = await timed(dependencies, 'commit', () =>
    dependencies.queueOf(repositoryId).commit({
      held,
      configRevision,
      basis,
      changes: { updates: accepted, ...head },
      entry: {
        pushId,
        ...inline,
        ...head,
        ...loggedOptions(change.pushOptions ?? []),
        prepared: [prepared.storeId],
        actor: change.actor,
        atMs: dependencies.clock.nowMs(),
      },
    }),
  );
  if (outcome.status !== 'committed') return 'again';
  await applyCommitted(dependencies, replica, { repositoryId, generation: outcome.generation });
  const tooLarge = inline.updatesDigest === undefined ? undefined : accepted;
  dependencies.committed(repositoryId, pushId, tooLarge);
  return { generation: outcome.generation };
}

/** Undefined when the locks went while we were judging: not the client's doing, so it is judged again under new ones. */
async function prepare(
  dependencies: CommitDependencies,
  change: Change,
  held: HeldLocks,
  {
    replica,
    record,
    basis,
  }: { readonly replica: Replica; readonly record: RepositoryRecord; readonly basis: number },
): Promise<Prepared | undefined> {
  // Not `AbortSignal.any`: the lease outlives this push, and would remember it for ever.
  const ended = new AbortController();
  const end = (): void => ended.abort();
  const signals = [change.signal, held.lost];
  for (const signal of signals) {
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  }
  try {
    return await timed(dependencies, 'prepare', () =>
      replica.prepare({
        key: change.key,
        basis,
        commands: change.commands,
        ...(change.head === undefined ? {} : { head: change.head }),
        settings: record.settings,
        shallow: change.shallow,
        lockRevisions: held.locks,
        walk: true,
        signal: ended.signal,
      }),
    );
  } catch (error) {
    if (held.lost.aborted && !change.signal.aborted) return undefined;
    throw error;
  } finally {
    for (const signal of signals) signal.removeEventListener('abort', end);
  }
}

function readBasis(
  held: HeldLocks,
  repositoryId: string,
): { record: RepositoryRecord; configRevision: number; basis: number } {
  const repository = held.reads.get(keys.repo(repositoryId));
  const head = held.reads.get(keys.head(repositoryId));
  if (repository === undefined || head === undefined) throw deleted(repositoryId);
  const record = decodeRepository(repository);
  if (record.state !== 'active') throw deleted(repositoryId);
  return {
    record,
    configRevision: repository.modRevision,
    basis: decodeHead(head).generation,
  };
}

function loggedOptions(options: readonly string[]): { pushOptions?: readonly string[] } {
  const fit = encodeRecord(options).length <= maxPushOptionsBytes;
  return options.length > 0 && fit ? { pushOptions: options } : {};
}

export function deleted(id: string): QuorateError {
  return new QuorateError('not-found', 'the repository was deleted', { details: { id } });
}

async function inlineOrStored(
  replica: Replica,
  key: QuarantineKey,
  updates: readonly RefCommand[],
): Promise<{ updates: readonly RefCommand[]; updatesDigest?: string }> {
  if (encodeRecord(updates).length <= maxInlineUpdatesBytes) return { updates };
  return { updates: [], updatesDigest: await replica.storeUpdates(key, updates) };
}

/**
 * The push is committed by now, so nothing here may fail it. An entry that cannot be applied (disk full) is left to
 * the outbox, which tries again; a read that comes before applies it, or is refused.
 */
async function applyCommitted(
  dependencies: CommitDependencies,
  replica: Replica,
  { repositoryId, generation }: { repositoryId: string; generation: number },
): Promise<void> {
  try {
    await timed(dependencies, 'apply', () => replica.apply(repositoryId, generation));
  } catch (error) {
    dependencies.logger.error(
      { component: 'commit', repo: repositoryId, generation, err: error },
      'a committed push could not be applied yet',
    );
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
