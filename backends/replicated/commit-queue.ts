import type { Clock, Logger, Meter } from '../contract/environment.js';
import {
  asQuorateError,
  type ErrorCode,
  nothingChanged,
  QuorateError,
} from '../contract/errors.js';
import type {
  Coordinator,
  KeyValue,
  Operation,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { HeadRecord, LogEntry } from '../contract/repository.js';
import { digestAfter } from '../git/digest.js';
import type { HeadSeen } from './basis.js';
import { entriesOf, judgeFound, lookFor } from './lost-answers.js';
import { decodeHead, encodeRecord } from './records.js';
import {
  closingOff,
  type ExactHead,
  fenceDown,
  type Hold,
  noticeFence,
  stillHeld,
} from './without-locks.js';

/** What the coordinator says when it is sure; after anything else the commit may have happened. */
const nothingHappened: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'failed-precondition',
  'unavailable',
  'cancelled',
]);

/** A push that is prepared, and holds its locks or goes without. */
export interface ReadyPush {
  readonly held: Hold;
  /** Of a push without locks: it follows this head or is not committed. */
  readonly exactHead?: ExactHead;
  /** Modification revision of `repos/{id}` against which it was judged. */
  readonly configRevision: number;
  /** The head it was judged against: where the search for it starts if the commit's answer is lost. */
  readonly basis: number;
  /** The head as it was read with the locks; without it, it is read before the commit. */
  readonly headSeen?: HeadSeen;
  readonly entry: Omit<LogEntry, 'generation' | 'digest'>;
  /** Front-end whose outbox the push goes to (`frontEnds/`). */
  readonly frontEnd: string;
  /** What the digest is computed from: the updates, even when the entry carries only their digest. */
  readonly changes: Pick<LogEntry, 'updates' | 'head'>;
}

export type CommitOutcome =
  | { readonly status: 'committed'; readonly entry: LogEntry }
  /** A lock is gone, the head of a push without locks has moved, or the configuration changed: judge again. */
  | { readonly status: 'lost-lock' | 'reconfigured' };

type Found = Extract<CommitOutcome, { status: 'committed' }> | 'not committed' | 'nobody knows';

interface Waiting {
  readonly push: ReadyPush;
  readonly bytes: number;
  readonly settle: (outcome: CommitOutcome) => void;
  readonly fail: (error: unknown) => void;
}

export interface CommitQueueDependencies {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
}

/** Half of what a transaction may carry (1.5 MiB), so that envelopes never matter. */
const maxBatchBytes = 768 * 1024;
/** Of etcd's 128 operations and 128 compares; the rest is head, configuration and slack. */
const maxBatchOperations = 100;
/** Every lost race means that somebody else's commit went through, so this bound is never met by bad luck alone. */
const maxRaces = 50;

/**
 * The commit point of one repository. One transaction is in flight at a time; what becomes ready meanwhile goes into
 * the next one together, as consecutive entries (docs/architecture.md, "A push", step 4).
 */
export class CommitQueue {
  readonly #repositoryId: string;
  readonly #dependencies: CommitQueueDependencies;
  readonly #waiting: Waiting[] = [];
  #running = false;
  /** As of the last commit from here. Others may have committed since: the commit compares. */
  #latest: RepositoryHead | undefined;

  constructor(repositoryId: string, dependencies: CommitQueueDependencies) {
    this.#repositoryId = repositoryId;
    this.#dependencies = dependencies;
  }

  get idle(): boolean {
    return !this.#running && this.#waiting.length === 0;
  }

  /** Resolves with what became of it. `outcome-unknown` when nobody can say: locks and quarantine are to be left alone. */
  commit(push: ReadyPush): Promise<CommitOutcome> {
    return new Promise((settle, fail) => {
      const bytes = encodeRecord(push.entry).length + 1024;
      this.#waiting.push({ push, bytes, settle, fail });
      if (!this.#running) void this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#running = true;
    // One turn of the loop lets pushes that finished preparing together share a transaction.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch();
      this.#dependencies.meter.observe('commit_batch_size', batch.length);
      try {
        await this.#commitBatch(batch);
      } catch (error) {
        for (const waiting of batch) waiting.fail(error);
      }
    }
    this.#running = false;
  }

  #takeBatch(): Waiting[] {
    // A push without locks can only be the first; it is not in conflict with others that hold theirs.
    const exact = this.#waiting.findIndex(({ push }) => push.exactHead !== undefined);
    if (exact > 0) this.#waiting.unshift(...this.#waiting.splice(exact, 1));
    let operations = 2;
    let bytes = 0;
    let count = 0;
    for (const { push, bytes: size } of this.#waiting) {
      operations += 2 + push.held.compares.length;
      bytes += size;
      const isFull = operations > maxBatchOperations || bytes > maxBatchBytes;
      if (count > 0 && (isFull || push.exactHead !== undefined)) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  async #commitBatch(batch: Waiting[]): Promise<void> {
    let live = batch;
    let state = this.#expected(batch) ?? (await this.#readState());
    for (let race = 0; race < maxRaces && live.length > 0; race++) {
      live = live.filter(({ push, settle }) => {
        if (push.configRevision === state.configRevision) return true;
        settle({ status: 'reconfigured' });
        return false;
      });
      live = live.filter(({ push: { exactHead }, settle }) => {
        if (exactHead === undefined) return true;
        if (race === 0 && exactHead.headRevision === state.headRevision) return true;
        settle({ status: 'lost-lock' });
        return false;
      });
      if (live.length === 0) return;
      const result = await this.#tryCommit(live, state);
      if (result === 'settled') return;
      state = result.state;
      live = live.filter(({ push, settle }) => {
        if (stillHeld(push.held, result.locks)) return true;
        settle({ status: 'lost-lock' });
        return false;
      });
    }
    if (live.length > 0) {
      throw new QuorateError(
        'aborted',
        'too many pushes to this repository at once; nothing changed, push again',
      );
    }
  }

  /**
   * The latest state that is known without asking; the commit compares it, and learns the present one when it is
   * another. Undefined when a push was judged by another configuration: which of them is the later one, nobody knows.
   */
  #expected(batch: readonly Waiting[]): RepositoryHead | undefined {
    let latest = this.#latest;
    for (const { push } of batch) {
      const { headSeen, configRevision } = push;
      // What was read with the locks comes before what was committed at the same revision: of an older copy of the
      // coordinator, which was put back since, that revision may be another head's.
      if (headSeen === undefined || headSeen.headRevision < (latest?.headRevision ?? 0)) continue;
      latest = { ...headSeen, configRevision };
    }
    const agreed = batch.every(({ push }) => push.configRevision === latest?.configRevision);
    return agreed ? latest : undefined;
  }

  async #readState(): Promise<RepositoryHead> {
    const id = this.#repositoryId;
    // Only reads: without an answer nothing has happened, and it may be asked again.
    const { results } = await retryUnknown(this.#dependencies, () =>
      this.#dependencies.coordinator.transaction({
        compares: [],
        success: [
          { type: 'get', key: keys.head(id) },
          { type: 'get', key: keys.repo(id) },
        ],
        failure: [],
      }),
    ).catch((error: unknown) => {
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      throw nothingChanged(error);
    });
    return headFrom(id, entriesOf(results[0]), entriesOf(results[1]));
  }

  /** One transaction. Settles every push of `live` when it succeeded or when its fate could be found out. */
  async #tryCommit(
    live: readonly Waiting[],
    state: RepositoryHead,
  ): Promise<'settled' | { state: RepositoryHead; locks: readonly KeyValue[] }> {
    const id = this.#repositoryId;
    const entries = this.#entries(live, state.head);
    const head = entries.at(-1);
    if (head === undefined) throw new QuorateError('internal', 'a commit without an entry');
    const lockKeys = live.flatMap(({ push }) => push.held.locks.map((lock) => lock.key));
    const fenceKeys = live.flatMap(({ push }) => push.held.fence?.key ?? []);
    let result: TransactionResult;
    try {
      result = await this.#dependencies.coordinator.transaction({
        binding: true,
        compares: [
          { key: keys.head(id), target: 'modRevision', op: '=', operand: state.headRevision },
          { key: keys.repo(id), target: 'modRevision', op: '=', operand: state.configRevision },
          ...live.flatMap(({ push }) => push.held.compares),
        ],
        success: [
          {
            type: 'put',
            key: keys.head(id),
            value: encodeRecord({ generation: head.generation, digest: head.digest }),
          },
          ...entries.flatMap((entry, index) =>
            entryOperations(id, entry, live[index]?.push.frontEnd),
          ),
          ...live.flatMap(({ push }) => push.held.deletes),
        ],
        failure: [
          { type: 'get', key: keys.head(id) },
          { type: 'get', key: keys.repo(id) },
          ...[...lockKeys, ...fenceKeys].map((key): Operation => ({ type: 'get', key })),
        ],
      });
    } catch (error) {
      const failure = asQuorateError(error);
      if (nothingHappened.has(failure.code)) throw error;
      await Promise.all(live.map((waiting) => this.#settleUnknown(waiting, failure)));
      return 'settled';
    }
    if (result.succeeded) {
      const { generation, digest } = head;
      const { configRevision } = state;
      this.#latest = {
        head: { generation, digest },
        headRevision: result.revision,
        configRevision,
      };
      live.forEach(({ push, settle }, index) => {
        push.held.released();
        settle({ status: 'committed', entry: entries[index] ?? head });
      });
      return 'settled';
    }
    const [headResult, repositoryResult, ...lockResults] = result.results;
    const locks = lockResults.flatMap(entriesOf);
    for (const { push } of live) noticeFence(push.held, locks);
    return {
      state: headFrom(id, entriesOf(headResult), entriesOf(repositoryResult)),
      locks,
    };
  }

  #entries(live: readonly Waiting[], head: HeadRecord): LogEntry[] {
    let { generation, digest } = head;
    return live.map(({ push }) => {
      generation++;
      digest = digestAfter(digest, push.changes.updates, push.changes.head);
      return { ...push.entry, generation, digest };
    });
  }

  /**
   * The commit's answer was lost. One transaction decides: while the locks still carry our create revisions the commit
   * has not happened, and deleting them makes sure that it never will; otherwise the log tells. Without locks it is the
   * head that has to be as it was, and is put under a new revision. When an answer came that did not say which (a
   * coordinator that is full), nothing is on its way, and all that is asked is the log.
   */
  async #settleUnknown({ push, settle, fail }: Waiting, failure: QuorateError): Promise<void> {
    const id = this.#repositoryId;
    const isOver = failure.details['answered'] === true;
    const lookup = lookFor(id, push);
    try {
      const { succeeded, results } = await retryUnknown(this.#dependencies, () =>
        this.#dependencies.coordinator.transaction(
          isOver
            ? { compares: [], success: lookup, failure: [] }
            : { ...this.#undoing(push), failure: lookup, binding: true },
        ),
      );
      if (succeeded && !isOver) {
        push.held.released();
        settle({ status: 'lost-lock' });
        return;
      }
      const found = this.#judge(push, results);
      if (found === 'not committed' && isOver) fail(nothingChanged(failure));
      else if (found === 'not committed') {
        // Overtaken: the head has moved, or a lock is gone, perhaps by what decided and was not answered.
        settle({ status: 'lost-lock' });
      } else if (typeof found === 'string') throw unknownOutcome();
      else settle(found);
    } catch (error) {
      // A coordinator that is full takes no put any more; what it took before it says, and deletions it takes.
      const found = await this.#settleFull(push).catch(() => undefined);
      if (found !== undefined) {
        settle(found);
        return;
      }
      this.#dependencies.logger.warn(
        { component: 'commit', repo: id, push_id: push.entry.pushId, err: error },
        'the outcome of a commit could not be found out',
      );
      fail(unknownOutcome(error));
      void this.#releaseLater(push);
    }
  }

  #judge(push: ReadyPush, results: TransactionResult['results']): Found {
    const found = judgeFound(push, results);
    if (typeof found === 'string') return found;
    push.held.released();
    return { status: 'committed', entry: found };
  }

  /** Without a put. Undefined: nobody can say. */
  async #settleFull(push: ReadyPush): Promise<CommitOutcome | undefined> {
    const { fence } = push.held;
    const shut = fence === undefined ? undefined : await this.#shutOut(push, fence);
    // Nobody can commit it any more; it is judged again, or refused.
    if (shut === 'not committed') return { status: 'lost-lock' };
    const found = shut ?? this.#judge(push, await this.#read(lookFor(this.#repositoryId, push)));
    return typeof found === 'string' ? undefined : found;
  }

  /** What was found when the fence of a push without locks was down for certain; undefined: it may be up. */
  async #shutOut(push: ReadyPush, fence: NonNullable<Hold['fence']>): Promise<Found | undefined> {
    const lookup = lookFor(this.#repositoryId, push);
    const { compares, success } = fenceDown(fence);
    try {
      const { results } = await this.#dependencies.coordinator.transaction({
        compares,
        success: [...lookup, ...success],
        failure: lookup,
        binding: true,
      });
      return this.#judge(push, results);
    } catch {
      return undefined;
    } finally {
      // Also when the answer was lost: perhaps.
      fence.gone();
    }
  }

  async #read(success: readonly Operation[]): Promise<TransactionResult['results']> {
    const { coordinator } = this.#dependencies;
    return (await coordinator.transaction({ compares: [], success, failure: [] })).results;
  }

  /** Succeeds if the push is not committed, and never will be after that. */
  #undoing({ held, exactHead }: ReadyPush): Pick<Transaction, 'compares' | 'success'> {
    if (exactHead !== undefined) return closingOff(this.#repositoryId, exactHead);
    return { compares: held.compares, success: held.deletes };
  }

  /**
   * The pusher has left without a verdict; its locks, which our lease keeps alive, must not outlive the trouble. Once
   * they are gone, or the head has moved, whoever holds the push's objects can tell what became of it.
   */
  async #releaseLater(push: ReadyPush): Promise<void> {
    const { held } = push;
    const { clock, coordinator } = this.#dependencies;
    for (let pauseMs = 1_000; !held.lost.aborted; pauseMs = Math.min(2 * pauseMs, 30_000)) {
      await clock.sleep(pauseMs, held.lost);
      try {
        await coordinator.transaction({ ...this.#undoing(push), failure: [] });
        held.released();
        return;
      } catch (error) {
        this.#dependencies.logger.warn(
          { component: 'commit', repo: this.#repositoryId, err: error },
          'the locks of a push without a verdict are still not released',
        );
      }
    }
  }
}

interface RepositoryHead extends HeadSeen {
  readonly configRevision: number;
}

function headFrom(
  id: string,
  heads: readonly KeyValue[],
  repositories: readonly KeyValue[],
): RepositoryHead {
  const [head] = heads;
  const [repository] = repositories;
  if (head === undefined || repository === undefined) {
    throw new QuorateError('not-found', 'the repository was deleted', { details: { id } });
  }
  return {
    head: decodeHead(head),
    headRevision: head.modRevision,
    configRevision: repository.modRevision,
  };
}

function entryOperations(id: string, entry: LogEntry, frontEnd = ''): readonly Operation[] {
  return [
    { type: 'put', key: keys.logEntry(id, entry.generation), value: encodeRecord(entry) },
    {
      type: 'put',
      key: keys.outbox(id, entry.pushId),
      value: encodeRecord({ generation: entry.generation, frontEnd }),
    },
  ];
}

function unknownOutcome(cause?: unknown): QuorateError {
  return new QuorateError(
    'outcome-unknown',
    'the coordinator did not say whether the push was committed; fetch to find out',
    cause === undefined ? {} : { cause },
  );
}

/** The deciding transaction is safe to repeat: it deletes locks of a given create revision, or reads. */
async function retryUnknown<T>(
  { clock }: CommitQueueDependencies,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      const { code } = asQuorateError(error);
      // A coordinator that is full stays so.
      if (asQuorateError(error).details['answered'] === true) throw error;
      // 20 tries 250 ms apart outlast the election of a new coordinator leader.
      if (tries >= 20 || (code !== 'outcome-unknown' && code !== 'unavailable')) throw error;
      await clock.sleep(250);
    }
  }
}
