import type { Transaction, TransactionResult, WatchBatch } from '../../contract/coordinator.js';
import type { Clock, Logger } from '../../contract/environment.js';
import { asQuorateError, noRetry, QuorateError } from '../../contract/errors.js';
import { Batch } from './batch.js';
import type { LeaseTable } from './leases.js';
import type { Store } from './store.js';

/** Memory that waits for the disk, at most: beyond it callers are told to come back. */
const maxWaitingBytes = 64 * 2 ** 20;
const maxWaitingTransactions = 10_000;
/** One commit holds the event loop while it executes: 256 transactions take some 10 ms. */
const maxBatchTransactions = 256;
const retryMs = 1_000;
const lookEveryMs = 5_000;
/** Half a minute: what others write and sync can keep a disk busy for ten seconds. */
const hangingLooks = 6;

interface Job {
  /** Absent: only waits for a commit, and with it for the keys of ended leases. */
  readonly transaction: Transaction | undefined;
  readonly sizeBytes: number;
  readonly resolve: (result: TransactionResult | undefined) => void;
  readonly reject: (error: QuorateError) => void;
}

/**
 * Group commit: one LMDB commit at a time; whatever arrives while it flushes shares the next one. Everything is
 * executed in order of arrival.
 */
export class WriteQueue {
  readonly #store: Store;
  readonly #leases: LeaseTable;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #publish: (batches: readonly WatchBatch[]) => void;
  readonly #waiting: Job[] = [];
  #waitingBytes = 0;
  #draining: Promise<void> | undefined;
  #failed: QuorateError | undefined;
  /** Of the commit that runs. */
  #committing: readonly Job[] = [];
  #commits = 0;
  /** The disk hangs, with a commit that nobody waits for any more. */
  #isStuck = false;
  readonly #hangs: (() => boolean) | undefined;
  readonly #closed = new AbortController();

  constructor(options: {
    readonly store: Store;
    readonly leases: LeaseTable;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly publish: (batches: readonly WatchBatch[]) => void;
    /** Whether the disk answers nothing, by who looks at it. */
    readonly hangs?: () => boolean;
  }) {
    this.#hangs = options.hangs;
    this.#store = options.store;
    this.#leases = options.leases;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#publish = options.publish;
  }

  /** Throws when the store can no longer be trusted. */
  check(): void {
    if (this.#failed !== undefined) {
      throw new QuorateError('unavailable', "the coordinator's disk failed: restart the server", {
        details: { ...noRetry },
        cause: this.#failed,
      });
    }
  }

  async run(transaction: Transaction, sizeBytes: number): Promise<TransactionResult> {
    const result = await this.#enqueue(transaction, sizeBytes);
    if (result === undefined) throw new Error('a transaction ended without a result');
    return result;
  }

  /** Resolves after a commit in which the keys of all leases that have ended were deleted. */
  async settleLeases(): Promise<void> {
    await this.#enqueue(undefined, 0);
  }

  /** Starts deleting the keys of ended leases without waiting for it. */
  wake(): void {
    this.#draining ??= this.#drain();
  }

  /** Resolves when nothing waits or runs. */
  async idle(): Promise<void> {
    await this.#draining;
  }

  stopRetrying(): void {
    this.#closed.abort();
  }

  #enqueue(
    transaction: Transaction | undefined,
    sizeBytes: number,
  ): Promise<TransactionResult | undefined> {
    this.check();
    if (this.#isStuck) throw hanging();
    if (
      this.#waiting.length >= maxWaitingTransactions ||
      this.#waitingBytes + sizeBytes > maxWaitingBytes
    ) {
      throw new QuorateError('unavailable', 'the coordinator has too many transactions waiting');
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ transaction, sizeBytes, resolve, reject });
      this.#waitingBytes += sizeBytes;
      this.wake();
    });
  }

  async #drain(): Promise<void> {
    // One turn of the microtask queue: what is asked for in the same breath shares the first commit as well.
    await Promise.resolve();
    const over = new AbortController();
    void this.#watch(over.signal);
    for (;;) {
      this.#leases.endOverdue();
      const jobs = this.#waiting.splice(0, maxBatchTransactions);
      for (const job of jobs) this.#waitingBytes -= job.sizeBytes;
      if (jobs.length === 0 && this.#leases.unsettled().length === 0) break;
      const committed = await this.#commit(jobs);
      if (!committed && this.#waiting.length === 0) break;
    }
    over.abort('over');
    this.#draining = undefined;
  }

  /**
   * When the disk hangs for half a minute with one commit: nobody knows what becomes of that, and what waits for the next
   * is not begun. Never rejects.
   */
  async #watch(over: AbortSignal): Promise<void> {
    const hangs = this.#hangs;
    if (hangs === undefined) return;
    let looks = 0;
    let commits = this.#commits;
    while (!over.aborted) {
      await this.#clock.sleep(lookEveryMs, over);
      looks = this.#commits === commits && hangs() ? looks + 1 : 0;
      commits = this.#commits;
      if (over.aborted || looks < hangingLooks) continue;
      if (!this.#isStuck) this.#logger.error({}, "the coordinator's disk hangs");
      this.#isStuck = true;
      for (const job of this.#committing) job.reject(unknownWhileHanging());
      for (const job of this.#waiting.splice(0)) job.reject(hanging());
      this.#waitingBytes = 0;
    }
  }

  async #commit(jobs: readonly Job[]): Promise<boolean> {
    const ended: string[] = [];
    const answers: (() => void)[] = [];
    this.#committing = jobs;
    try {
      if (this.#failed !== undefined) throw this.#failed;
      const batches = await this.#store.commit(() => {
        const batch = new Batch(this.#store, (lease) => this.#leases.lives(lease));
        // Decided here, in the same synchronous stretch as the transactions: no deadline can pass in between.
        this.#leases.endOverdue();
        ended.push(...this.#leases.unsettled());
        for (const lease of ended) batch.endLease(lease);
        for (const job of jobs) answers.push(runJob(job, batch));
        batch.finish();
        return batch.batches;
      });
      this.#leases.settle(ended);
      this.#publish(batches);
      for (const answer of answers) answer();
      return true;
    } catch (error) {
      this.#fail(asQuorateError(error), jobs);
      return false;
    } finally {
      this.#committing = [];
      this.#commits++;
      this.#isStuck = false;
    }
  }

  #fail(error: QuorateError, jobs: readonly Job[]): void {
    this.#logger.error({ error, transactions: jobs.length }, 'a coordinator commit failed');
    if (error.code === 'outcome-unknown') this.#failed ??= error;
    for (const job of jobs) job.reject(error);
    if (this.#failed !== undefined) {
      for (const job of this.#waiting.splice(0)) job.reject(error);
      this.#waitingBytes = 0;
      return;
    }
    if (this.#leases.unsettled().length > 0) void this.#retryLater();
  }

  async #retryLater(): Promise<void> {
    await this.#clock.sleep(retryMs, this.#closed.signal);
    if (!this.#closed.signal.aborted) this.wake();
  }
}

function hanging(): QuorateError {
  return new QuorateError(
    'unavailable',
    "not accepted: the disk of the server's coordinator hangs; nothing changed, it is safe to try again",
  );
}

function unknownWhileHanging(): QuorateError {
  return new QuorateError(
    'outcome-unknown',
    "the disk of the server's coordinator hangs: nobody knows whether it was written",
  );
}

/** Executes a job and returns how to answer it once the commit is durable. */
function runJob(job: Job, batch: Batch): () => void {
  if (job.transaction === undefined) return () => job.resolve(undefined);
  try {
    const result = batch.run(job.transaction);
    return () => job.resolve(result);
  } catch (error) {
    // Refused before it wrote: the others in this commit are unharmed. Anything else undoes the whole commit.
    if (error instanceof QuorateError && error.code === 'failed-precondition') {
      return () => job.reject(error);
    }
    throw error;
  }
}
