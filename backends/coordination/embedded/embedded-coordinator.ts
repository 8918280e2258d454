import type {
  Coordinator,
  CoordinatorIdentity,
  KeyValue,
  Lease,
  LeaseId,
  LeaseLeft,
  Operation,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchOptions,
} from '../../contract/coordinator.js';
import type { Clock, Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import {
  checkKey,
  checkRange,
  checkRangeOptions,
  checkTransaction,
  coordinatorLimits,
} from '../request-check.js';
import { Batch } from './batch.js';
import { defaultHistoryLimits, History, type HistoryLimits } from './history.js';
import { LeaseTable } from './leases.js';
import { Store } from './store.js';
import { WriteQueue } from './write-queue.js';

export interface EmbeddedCoordinatorOptions {
  /** Made if absent. Belongs to this coordinator alone. */
  readonly directory: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How much watch history is kept in memory. */
  readonly history?: HistoryLimits;
  /**
   * Whether the disk of the directory answers nothing, by who looks at it. After half a minute of that with one commit,
   * its transactions end as `outcome-unknown`, and those that wait for the next as `unavailable`. Absent: they wait.
   */
  readonly hangs?: () => boolean;
}

/**
 * Opens the coordinator that lives in this process, on LMDB. Keys that hung on leases of an earlier process are
 * deleted first, in one revision. Throws `failed-precondition` when another process has the directory open, and
 * `data-corrupt` when its content is damaged or foreign.
 */
export async function openEmbeddedCoordinator(
  options: EmbeddedCoordinatorOptions,
): Promise<Coordinator> {
  const logger = options.logger.child({ component: 'coordinator' });
  const store = await Store.open(options.directory, logger);
  try {
    await store.commit(() => {
      const batch = new Batch(store, () => false);
      batch.endAllLeases();
      batch.finish();
    });
  } catch (error) {
    await store.close();
    throw error;
  }
  return new EmbeddedCoordinator(store, {
    clock: options.clock,
    logger,
    history: options.history ?? defaultHistoryLimits,
    ...(options.hangs === undefined ? {} : { hangs: options.hangs }),
  });
}

class EmbeddedCoordinator implements Coordinator {
  readonly limits = coordinatorLimits;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #history: History;
  readonly #leases: LeaseTable;
  readonly #writes: WriteQueue;
  #closing: Promise<void> | undefined;

  constructor(
    store: Store,
    options: {
      readonly clock: Clock;
      readonly logger: Logger;
      readonly history: HistoryLimits;
      readonly hangs?: () => boolean;
    },
  ) {
    this.#store = store;
    this.#clock = options.clock;
    this.#history = new History(store.revision, options.history);
    this.#leases = new LeaseTable(options.clock, () => this.#writes.wake());
    this.#writes = new WriteQueue({
      ...options,
      store,
      leases: this.#leases,
      publish: (batches) => this.#history.append(batches),
    });
  }

  // Reads show durable commits only, and every acknowledged one: see Store. So all of them are linearizable.
  async get(
    key: string,
    options: { linearizable?: boolean; signal?: AbortSignal } = {},
  ): Promise<KeyValue | undefined> {
    checkKey(key);
    this.#checkOpen(options.signal);
    return this.#store.get(key);
  }

  async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
    checkRangeOptions(key, options);
    this.#checkOpen(options.signal);
    const { entries, more, revision } = this.#store.range({
      key,
      rangeEnd: options.rangeEnd,
      limit: options.limit,
    });
    if (options.keysOnly !== true) return { entries, more, revision };
    return { entries: entries.map(withoutValue), more, revision };
  }

  async transaction(transaction: Transaction): Promise<TransactionResult> {
    const sizeBytes = checkTransaction(transaction);
    this.#checkOpen(undefined);
    if (onlyReads(transaction)) return readOnly(this.#store, transaction);
    return this.#writes.run(copyValues(transaction), sizeBytes);
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    if (!Number.isSafeInteger(ttlMs) || ttlMs < 1_000) {
      throw new QuorateError('invalid-argument', 'a lease lives for at least 1,000 ms');
    }
    this.#checkOpen(undefined);
    return this.#leases.grant(ttlMs, (id) => this.#revoke(id));
  }

  async leaseLeft(id: LeaseId): Promise<LeaseLeft | undefined> {
    this.#checkOpen(undefined);
    return this.#leases.left(id);
  }

  watch(key: string, options: WatchOptions): AsyncIterable<WatchBatch> {
    checkRange(key, options.rangeEnd);
    this.#checkOpen(undefined);
    const fromRevision = options.fromRevision ?? this.#history.revision + 1;
    return this.#history.follow({ key, rangeEnd: options.rangeEnd }, fromRevision, options.signal);
  }

  async identity(): Promise<CoordinatorIdentity> {
    this.#checkOpen(undefined);
    return { clusterId: 'embedded', revision: this.#store.revision };
  }

  async ping(): Promise<void> {
    this.#checkOpen(undefined);
    const timer = new AbortController();
    try {
      // A commit that the disk does not finish is how this store stops serving.
      const idle = this.#writes.settleLeases().then(() => true);
      const late = this.#clock.sleep(900, timer.signal).then(() => false);
      if (await Promise.race([idle, late])) return;
      throw new QuorateError('unavailable', "the coordinator's disk does not answer");
    } finally {
      timer.abort();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#leases.endAll();
    await this.#writes.idle();
    this.#writes.stopRetrying();
    this.#history.end();
    await this.#store.close();
  }

  async #revoke(id: LeaseId): Promise<void> {
    this.#leases.end(id);
    if (this.#closing === undefined) await this.#writes.settleLeases();
    else await this.#writes.idle();
  }

  #checkOpen(signal: AbortSignal | undefined): void {
    if (signal?.aborted === true) throw new QuorateError('cancelled', 'the caller gave up');
    if (this.#closing !== undefined) {
      throw new QuorateError('unavailable', 'the coordinator is closed');
    }
    this.#writes.check();
  }
}

function withoutValue(entry: KeyValue): KeyValue {
  return { ...entry, value: new Uint8Array() };
}

function onlyReads(transaction: Transaction): boolean {
  return [...transaction.success, ...transaction.failure].every(({ type }) => type === 'get');
}

/** Answered from the durable snapshot, without the queue: nothing of it can be unknown. */
function readOnly(store: Store, transaction: Transaction): TransactionResult {
  return new Batch(store, () => false).run(transaction);
}

/** The caller may reuse its buffers as soon as the call has returned. */
function copyValues(transaction: Transaction): Transaction {
  return {
    compares: transaction.compares.map((compare) =>
      compare.target === 'value'
        ? { ...compare, operand: Uint8Array.from(compare.operand) }
        : compare,
    ),
    success: transaction.success.map(copyValue),
    failure: transaction.failure.map(copyValue),
  };
}

function copyValue(operation: Operation): Operation {
  if (operation.type !== 'put') return operation;
  return { ...operation, value: Uint8Array.from(operation.value) };
}
