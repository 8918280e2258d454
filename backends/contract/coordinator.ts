/**
 * The coordinator: a strictly serialisable key-value store with leases and watches. Written for etcd v3's semantics
 * and limits (revisions, compares, ranges, compaction); the embedded store keeps the same promises on one disk.
 *
 * Keys are non-empty strings of at most 1,024 bytes in UTF-8, ordered bytewise. Values are bytes.
 * A range is `[key, rangeEnd)`; `prefixEnd(prefix)` gives the end that covers a prefix.
 */

export interface KeyValue {
  readonly key: string;
  readonly value: Uint8Array;
  /** Store revision at which the key was created (since its last deletion). */
  readonly createRevision: number;
  /** Store revision of the last put. */
  readonly modRevision: number;
  /** Puts since creation: 1, 2, 3, ... */
  readonly version: number;
  /** The lease it hangs on, if any: it is deleted when the lease ends. */
  readonly lease?: LeaseId;
}

export type LeaseId = string;

/**
 * A condition of a transaction. An absent key has createRevision, modRevision and version 0. With `rangeEnd` the
 * condition must hold for every key in the range; an empty range is judged as one absent key (etcd does so), so
 * `{target: 'createRevision', op: '=', operand: 0, rangeEnd}` says "no key in this range".
 * `value` compares are false for an absent key.
 */
export type Compare =
  | {
      readonly key: string;
      readonly rangeEnd?: string;
      readonly target: 'createRevision' | 'modRevision' | 'version';
      readonly op: '=' | '!=' | '<' | '>';
      readonly operand: number;
    }
  | {
      readonly key: string;
      readonly target: 'value';
      readonly op: '=' | '!=';
      readonly operand: Uint8Array;
    };

export type Operation =
  | {
      readonly type: 'put';
      readonly key: string;
      readonly value: Uint8Array;
      readonly lease?: LeaseId;
    }
  | { readonly type: 'delete'; readonly key: string; readonly rangeEnd?: string }
  | {
      readonly type: 'get';
      readonly key: string;
      readonly rangeEnd?: string;
      readonly limit?: number;
    };

export interface Transaction {
  readonly compares: readonly Compare[];
  readonly success: readonly Operation[];
  readonly failure: readonly Operation[];
  /**
   * Somebody will be told of what it did (a push is acknowledged, a token is revoked), or what it read is the word by
   * which something is dropped. When it is an older copy of the coordinator that did it, by whatever restored it, it
   * fails with `outcome-unknown`, or nothing is done (`guarded-coordinator.ts`; the stores do not look at it).
   */
  readonly binding?: true;
}

export type OperationResult =
  | { readonly type: 'put' }
  | { readonly type: 'delete'; readonly deleted: number }
  | { readonly type: 'get'; readonly entries: readonly KeyValue[]; readonly more: boolean };

export interface TransactionResult {
  readonly succeeded: boolean;
  /**
   * The store's revision after this transaction; one that writes advances it by exactly one. Deleting what is absent
   * writes nothing.
   */
  readonly revision: number;
  /** One per operation of the branch that ran, in order. Gets see the puts and deletes before them. */
  readonly results: readonly OperationResult[];
}

export interface RangeOptions {
  /** End of the range, exclusive; without it the single key. */
  readonly rangeEnd?: string;
  /** At most this many entries, at least 1 (default: all). */
  readonly limit?: number;
  /** Keys and revisions without values. */
  readonly keysOnly?: boolean;
  /** `false`: may be answered from a stale member. Default true: linearizable. */
  readonly linearizable?: boolean;
  readonly signal?: AbortSignal;
}

export interface RangeResult {
  readonly entries: readonly KeyValue[];
  /** True when `limit` cut the answer. */
  readonly more: boolean;
  readonly revision: number;
}

export interface Lease {
  readonly id: LeaseId;
  readonly ttlMs: number;
  /**
   * Aborted once the holder must assume the lease gone: expired, revoked, or not confirmed for its TTL.
   * The coordinator implementation keeps a lease alive by itself until `revoke` or `close`.
   */
  readonly lost: AbortSignal;
  /** Ends it and deletes its keys in one revision. Idempotent. */
  revoke(): Promise<void>;
}

export interface LeaseLeft {
  readonly ttlMs: number;
  readonly leftMs: number;
}

/**
 * The one lease of a process. Everything hangs on it that says that the process lives, or what it holds: one message
 * now and then keeps all of that, and all of it falls together. It outlives whatever hangs on it, so that whoever is
 * done takes his own entries away.
 */
export interface ProcessLease {
  /**
   * The lease, the same for all who ask; another one once that is lost, granted once for all of them. Throws
   * `unavailable` when there is none to be had, or the process stops.
   */
  current(): Promise<Lease>;
  /**
   * Deletes the entry of this key, or those of the range, as far as they hang on the lease. Resolves after the first
   * try, or two seconds, and never rejects: what is not deleted is tried again for as long as the lease lives.
   */
  leave(key: string, rangeEnd?: string): Promise<void>;
}

export type WatchEvent =
  | { readonly type: 'put'; readonly entry: KeyValue }
  | { readonly type: 'delete'; readonly key: string; readonly modRevision: number };

export interface WatchBatch {
  /** All events of one revision arrive in one batch; batches arrive in revision order, without gaps or repeats. */
  readonly revision: number;
  readonly events: readonly WatchEvent[];
}

export interface WatchOptions {
  readonly rangeEnd?: string;
  /** First revision wanted. Default: what comes after the call. */
  readonly fromRevision?: number;
  readonly signal: AbortSignal;
}

/** etcd's limits with its default configuration; the embedded store keeps the same ones. */
export interface CoordinatorLimits {
  /** Operations in one branch of a transaction: 128. */
  readonly maxOperations: 128;
  /** Compares in one transaction: 128. */
  readonly maxCompares: 128;
  /** Bytes of keys and values in one transaction: 1.5 MiB. */
  readonly maxRequestBytes: 1_572_864;
}

/** What tells one store from another, and from an older copy of itself. */
export interface CoordinatorIdentity {
  /** Id of the etcd cluster; a restore with another token changes it. `embedded` for the embedded store. */
  readonly clusterId: string;
  /** The store's revision, linearizable. It never goes back, except by a restore of an older copy. */
  readonly revision: number;
}

/**
 * Errors of every method: `invalid-argument` (limits, a key put twice in one branch, an empty key), `unavailable`
 * (no quorum, closed; nothing happened), `cancelled`. `transaction` alone may also fail with `outcome-unknown`: it
 * may have happened, and the caller must find out; it is never retried inside. When that has `details.answered: true`
 * it is over at least: it happened before the error came, or never will, and a linearizable read tells which.
 */
export interface Coordinator {
  readonly limits: CoordinatorLimits;
  /** Linearizable unless asked otherwise: sees every transaction that was acknowledged before the call. */
  get(
    key: string,
    options?: { linearizable?: boolean; signal?: AbortSignal },
  ): Promise<KeyValue | undefined>;
  range(key: string, options?: RangeOptions): Promise<RangeResult>;
  /**
   * Atomic. On return its writes are durable and visible to every later read. A branch may not put one key twice,
   * nor put a key that it also deletes. Puts with an unknown lease fail with `failed-precondition`, nothing written.
   */
  transaction(transaction: Transaction): Promise<TransactionResult>;
  /** A new lease. `ttlMs` >= 1,000. Leases of an embedded coordinator end with its process (boot id). */
  grantLease(ttlMs: number): Promise<Lease>;
  /**
   * How much of its time a lease has left at most, by the clock of those who end it: the less, the longer nobody has
   * heard of its process. Undefined when there is no such lease.
   */
  leaseLeft(id: LeaseId): Promise<LeaseLeft | undefined>;
  /**
   * Events of a key or range, in order. Ends when the signal aborts. Throws `failed-precondition` with
   * `details.compactedRevision` when history that was asked for is gone: list at revision R, watch from R + 1.
   * A consumer that lags past the implementation's bound gets the same error.
   */
  watch(key: string, options: WatchOptions): AsyncIterable<WatchBatch>;
  /** Which store this is, and how far it has come: see `cluster-identity.ts`. */
  identity(): Promise<CoordinatorIdentity>;
  /** Answers within a second or throws `unavailable`. For readiness. */
  ping(): Promise<void>;
  /** Revokes this process's leases and ends watches. Idempotent. */
  close(): Promise<void>;
}
