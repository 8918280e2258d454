import { setMaxListeners } from 'node:events';
import type { IRangeRequest, IResponseHeader } from 'etcd3';
import type {
  Coordinator,
  CoordinatorIdentity,
  KeyValue,
  Lease,
  LeaseLeft,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchOptions,
} from '../../contract/coordinator.js';
import type { Clock, Logger, Random } from '../../contract/environment.js';
import { QuorateError, refuseCancelled } from '../../contract/errors.js';
import { keys } from '../../contract/keys.js';
import {
  checkRange,
  checkRangeOptions,
  checkTransaction,
  coordinatorLimits,
} from '../request-check.js';
import { isCompacted } from './etcd-errors.js';
import { followRange, watchStreams } from './etcd-watch.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { EtcdSettings } from './etcd-settings.js';
import { MemberPool, type Attempt } from './member-pool.js';
import { ReadBatches } from './read-batches.js';
import { findCluster } from './find-cluster.js';
import type { RangePage } from './kv-messages.js';
import { type GetOperation, WireFormat, wholeNumber } from './wire-format.js';

export interface EtcdCoordinatorOptions {
  readonly settings: EtcdSettings;
  /** Tells of new certificates, for new connections. Returns how to stop that. */
  readonly onTlsChange?: (listener: (tls: NonNullable<EtcdSettings['tls']>) => void) => () => void;
  /**
   * `signal`: aborted when the process stops and serves nobody any more. Then requests fail with `unavailable` (transactions that
   * were sent, with `outcome-unknown`) as soon as etcd has answered none of them for 1.5 s, and all later ones at once.
   */
  readonly stopping?: { readonly signal: AbortSignal; readonly clock: Clock };
  readonly random: Random;
  readonly logger: Logger;
  /** How long the first answer is waited for. Default 10 s: etcd may be starting at the same time. */
  readonly startPatienceMs?: number;
}

const defaultStartPatienceMs = 10_000;

/**
 * Connects to an etcd cluster (3.4 or later). Throws `unavailable`, naming the addresses and what to do, when none of
 * them answers as etcd within 10 s, and `failed-precondition` when they are members of different clusters.
 */
export async function openEtcdCoordinator(options: EtcdCoordinatorOptions): Promise<Coordinator> {
  const logger = options.logger.child({ component: 'coordinator' });
  const pool = new MemberPool(options.settings);
  try {
    await findCluster(pool, {
      settings: options.settings,
      logger,
      probe: probeOf(new WireFormat(options.settings.prefix)),
      patienceMs: options.startPatienceMs ?? defaultStartPatienceMs,
    });
  } catch (error) {
    pool.close();
    throw error;
  }
  return new EtcdCoordinator(pool, { ...options, logger });
}

/** Entries in one answer to a list: some megabytes with the usual records. */
const pageSize = 1_000;
/** The first ones come with what others read at the same time, and are not to be in their way. */
const firstPageSize = 100;
/** A list is begun anew when the revision it was begun at is compacted meanwhile: once a list, if ever. */
const maxListings = 3;
const pingPatienceMs = 900;

class EtcdCoordinator implements Coordinator {
  readonly limits = coordinatorLimits;
  readonly #pool: MemberPool;
  readonly #reads: ReadBatches;
  readonly #format: WireFormat;
  readonly #logger: Logger;
  readonly #leases: LeaseKeeper;
  readonly #forgetTls: (() => void) | undefined;
  readonly #forgetStop: () => void;
  readonly #ending = new AbortController();
  #closing: Promise<void> | undefined;

  constructor(pool: MemberPool, options: EtcdCoordinatorOptions) {
    this.#pool = pool;
    this.#reads = new ReadBatches({
      range: (request) => pool.repeat((member) => member.askRange(request)),
      txn: (request) => pool.repeat((member) => member.askTransaction(request)),
    });
    this.#format = new WireFormat(options.settings.prefix);
    this.#logger = options.logger;
    this.#leases = new LeaseKeeper({ ...options, pool });
    this.#forgetTls = options.onTlsChange?.((tls) => {
      this.#pool.renew(tls);
      this.#leases.renew(tls);
    });
    this.#forgetStop = leaveWhenStopping(pool, options.stopping);
    // Every watch listens.
    setMaxListeners(0, this.#ending.signal);
  }

  async get(
    key: string,
    options: { linearizable?: boolean; signal?: AbortSignal } = {},
  ): Promise<KeyValue | undefined> {
    const { entries } = await this.range(key, options);
    return entries[0];
  }

  async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
    checkRangeOptions(key, options);
    this.#checkOpen(options.signal);
    for (let listing = 1; ; listing += 1) {
      try {
        return await this.#list(key, options);
      } catch (error) {
        const lapsed = error instanceof QuorateError && isCompacted(error.cause);
        if (!lapsed || listing === maxListings) throw error;
      }
    }
  }

  async transaction(transaction: Transaction): Promise<TransactionResult> {
    checkTransaction(transaction);
    this.#checkOpen(undefined);
    const plain = plainReads(transaction);
    if (plain !== undefined) return this.#read(plain);
    const request = this.#format.transaction(transaction);
    const answer = await (onlyReads(transaction)
      ? this.#pool.repeat((member) => member.askTransaction(request))
      : this.#pool.once((member) => member.askTransaction(request)));
    return this.#format.result(transaction, answer);
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    if (!Number.isSafeInteger(ttlMs) || ttlMs < 1_000) {
      throw new QuorateError('invalid-argument', 'a lease lives for at least 1,000 ms');
    }
    this.#checkOpen(undefined);
    return this.#leases.grant(ttlMs);
  }

  async leaseLeft(id: string): Promise<LeaseLeft | undefined> {
    this.#checkOpen(undefined);
    const { TTL, grantedTTL } = await this.#pool.repeat((member) => member.leaseTimeToLive(id));
    const leftSeconds = Number(TTL);
    if (leftSeconds < 0) return undefined;
    // Of what is left only whole seconds are told.
    return { ttlMs: Number(grantedTTL) * 1_000, leftMs: (leftSeconds + 1) * 1_000 };
  }

  watch(key: string, options: WatchOptions): AsyncIterable<WatchBatch> {
    checkRange(key, options.rangeEnd);
    this.#checkOpen(undefined);
    // What comes after the call has a revision above every one seen before it. Others' changes that this process has
    // not seen yet may come along.
    const fromRevision = options.fromRevision ?? this.#pool.revision + 1;
    const parts = {
      connect: watchStreams(this.#pool, this.#format),
      observe: (header: IResponseHeader) => this.#pool.observe(header),
      format: this.#format,
      logger: this.#logger,
      closing: this.#ending.signal,
    };
    return followRange(parts, { key, rangeEnd: options.rangeEnd, fromRevision }, options.signal);
  }

  async identity(): Promise<CoordinatorIdentity> {
    this.#checkOpen(undefined);
    return this.#identify({});
  }

  async ping(): Promise<void> {
    this.#checkOpen(undefined);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), pingPatienceMs);
    try {
      await Promise.race([
        this.#identify({ patienceMs: pingPatienceMs, signal: late.signal }),
        new Promise((_, reject) => {
          const message = `the coordinator at ${this.#pool.where} does not answer`;
          late.signal.addEventListener('abort', () => {
            reject(new QuorateError('unavailable', message));
          });
        }),
      ]);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#ending.abort();
    this.#forgetTls?.();
    this.#forgetStop();
    await this.#leases.close();
    this.#pool.close();
  }

  async #identify(attempt: Attempt): Promise<CoordinatorIdentity> {
    const request = probeOf(this.#format);
    const { header } = await this.#pool.repeat((member) => member.askRange(request), attempt);
    return { clusterId: header.cluster_id, revision: wholeNumber(header.revision) };
  }

  async #read(reads: readonly GetOperation[]): Promise<TransactionResult> {
    const { header, ranges } = await this.#reads.read(reads.map((one) => this.#format.get(one)));
    return {
      succeeded: true,
      revision: wholeNumber(header.revision),
      results: ranges.map(({ kvs, more }) => {
        return { type: 'get', entries: kvs.map((stored) => this.#format.entry(stored)), more };
      }),
    };
  }

  /** All pages at the revision of the first. */
  async #list(key: string, options: RangeOptions): Promise<RangeResult> {
    const { rangeEnd, limit = Number.POSITIVE_INFINITY, keysOnly, linearizable, signal } = options;
    const entries: KeyValue[] = [];
    let start = key;
    let revision: number | undefined;
    for (;;) {
      const shared = revision === undefined && linearizable !== false && signal === undefined;
      const wanted = Math.min(limit - entries.length, shared ? firstPageSize : pageSize);
      const request = {
        ...this.#format.range(start, rangeEnd),
        limit: String(wanted),
        ...(keysOnly === true ? { keys_only: true } : {}),
        ...(linearizable === false ? { serializable: true } : {}),
        ...(revision === undefined ? {} : { revision: String(revision) }),
      };
      const page = shared
        ? await this.#firstPage(request)
        : await this.#pool.repeat(
            (member) => member.askRange(request, { leader: linearizable !== false }),
            { signal },
          );
      revision ??= wholeNumber(page.header.revision);
      for (const stored of page.kvs) entries.push(this.#format.entry(stored));
      const last = entries.at(-1);
      if (!page.more || last === undefined || entries.length >= limit) {
        return { entries, more: page.more, revision };
      }
      // The least key above it.
      start = `${last.key}\0`;
    }
  }

  async #firstPage(request: IRangeRequest): Promise<RangePage> {
    const { header, ranges } = await this.#reads.read([request]);
    const [page] = ranges;
    if (page === undefined) throw new QuorateError('internal', 'etcd answered too little');
    return { ...page, header };
  }

  #checkOpen(signal: AbortSignal | undefined): void {
    if (signal !== undefined) refuseCancelled(signal);
    if (this.#closing !== undefined) {
      throw new QuorateError('unavailable', 'the coordinator is closed');
    }
  }
}

/** Returns how to stop listening. */
function leaveWhenStopping(
  pool: MemberPool,
  stopping: EtcdCoordinatorOptions['stopping'],
): () => void {
  if (stopping === undefined) return () => undefined;
  const { signal, clock } = stopping;
  const leave = (): void => pool.leave(clock);
  signal.addEventListener('abort', leave, { once: true });
  return () => signal.removeEventListener('abort', leave);
}

/** A cheap linearizable read, of something that a user of etcd with rights below the prefix may see. */
function probeOf(format: WireFormat): IRangeRequest {
  return { key: format.key(keys.cluster), keys_only: true, limit: 1 };
}

/** What a transaction reads that neither compares nor writes anything. */
function plainReads({ compares, success }: Transaction): readonly GetOperation[] | undefined {
  if (compares.length > 0) return undefined;
  const reads = success.filter((one) => one.type === 'get');
  return reads.length === success.length && reads.length > 0 ? reads : undefined;
}

function onlyReads(transaction: Transaction): boolean {
  return [...transaction.success, ...transaction.failure].every(({ type }) => type === 'get');
}
