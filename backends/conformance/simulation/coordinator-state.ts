import type {
  Compare,
  KeyValue,
  LeaseLeft,
  Operation,
  OperationResult,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchEvent,
} from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import { compareKeys } from '../../coordination/request-check.js';

interface SimulatedLease {
  readonly ttlMs: number;
  expiresAtMs: number;
}

/** What a backup holds. */
export interface CoordinatorBackup {
  readonly entries: readonly KeyValue[];
  readonly revision: number;
}

/** The replicated state machine of the simulated coordinator: plain, sequential, in memory. */
export class CoordinatorState {
  #entries = new Map<string, KeyValue>();
  /** Keys in order. */
  #order: string[] = [];
  #revision = 1;
  #compacted = 0;
  #history: WatchBatch[] = [];
  readonly #leases = new Map<string, SimulatedLease>();
  #leaseCount = 0;
  readonly #onBatch: (batch: WatchBatch) => void;

  constructor(onBatch: (batch: WatchBatch) => void) {
    this.#onBatch = onBatch;
  }

  get revision(): number {
    return this.#revision;
  }

  get compacted(): number {
    return this.#compacted;
  }

  get(key: string): KeyValue | undefined {
    return this.#entries.get(key);
  }

  range(key: string, { rangeEnd, limit, keysOnly }: RangeOptions): RangeResult {
    const { entries, more } = this.#read(key, rangeEnd, limit);
    return {
      entries: keysOnly === true ? entries.map((kv) => ({ ...kv, value: empty })) : entries,
      more,
      revision: this.#revision,
    };
  }

  /** Throws `failed-precondition` for a lease that there is not; nothing is written then. */
  transaction({ compares, success, failure }: Transaction): TransactionResult {
    const succeeded = compares.every((compare) => this.#holds(compare));
    const branch = succeeded ? success : failure;
    for (const operation of branch) {
      if (operation.type !== 'put' || operation.lease === undefined) continue;
      if (!this.#leases.has(operation.lease)) {
        throw new QuorateError('failed-precondition', 'there is no such lease');
      }
    }
    const events: WatchEvent[] = [];
    const results = branch.map((operation) => this.#execute(operation, events));
    this.#publish(events);
    return { succeeded, revision: this.#revision, results };
  }

  grant(ttlMs: number, nowMs: number): string {
    const id = `lease-${++this.#leaseCount}`;
    this.#leases.set(id, { ttlMs, expiresAtMs: nowMs + ttlMs });
    return id;
  }

  /** False when it has ended. */
  keepAlive(id: string, nowMs: number): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    lease.expiresAtMs = nowMs + lease.ttlMs;
    return true;
  }

  /** As etcd tells it: of what is left, whole seconds. */
  leaseLeft(id: string, nowMs: number): LeaseLeft | undefined {
    const lease = this.#leases.get(id);
    if (lease === undefined) return undefined;
    const { ttlMs, expiresAtMs } = lease;
    return { ttlMs, leftMs: (Math.floor((expiresAtMs - nowMs) / 1_000) + 1) * 1_000 };
  }

  endLease(id: string): void {
    if (!this.#leases.delete(id)) return;
    const events: WatchEvent[] = [];
    for (const { key, lease } of this.#entries.values()) {
      if (lease === id) this.#delete(key, events);
    }
    events.sort((a, b) => compareKeys(keyOf(a), keyOf(b)));
    this.#publish(events);
  }

  /** Ends the leases that were not kept alive. */
  expire(nowMs: number): void {
    for (const [id, { expiresAtMs }] of this.#leases) {
      if (expiresAtMs <= nowMs) this.endLease(id);
    }
  }

  /** A new leader gives every lease its whole time again. */
  extendLeases(nowMs: number): void {
    for (const lease of this.#leases.values()) lease.expiresAtMs = nowMs + lease.ttlMs;
  }

  /** Batches from a revision on, of one range; `compacted` when they are gone. */
  since(
    from: number,
    key: string,
    rangeEnd: string | undefined,
  ): readonly WatchBatch[] | 'compacted' {
    if (from <= this.#compacted) return 'compacted';
    let first = this.#history.length;
    while ((this.#history[first - 1]?.revision ?? 0) >= from) first--;
    const batches: WatchBatch[] = [];
    for (const { revision, events } of this.#history.slice(first)) {
      const seen = events.filter((event) => within(keyOf(event), key, rangeEnd));
      if (seen.length > 0) batches.push({ revision, events: seen });
    }
    return batches;
  }

  compact(revision = this.#revision): void {
    this.#compacted = Math.max(this.#compacted, revision);
    this.#history = this.#history.filter((batch) => batch.revision > this.#compacted);
  }

  backup(): CoordinatorBackup {
    return { entries: [...this.#entries.values()], revision: this.#revision };
  }

  /** What happened since is forgotten; leases and what hangs on them do not come back. */
  restore({ entries, revision }: CoordinatorBackup): void {
    const kept = entries.filter(({ lease }) => lease === undefined);
    this.#entries = new Map(kept.map((kv) => [kv.key, kv]));
    this.#order = [...this.#entries.keys()].sort(compareKeys);
    this.#revision = revision + 1;
    this.#history = [];
    this.#compacted = this.#revision;
    this.#leases.clear();
  }

  #read(
    key: string,
    rangeEnd: string | undefined,
    limit = Infinity,
  ): { entries: readonly KeyValue[]; more: boolean } {
    if (rangeEnd === undefined) {
      const entry = this.#entries.get(key);
      return { entries: entry === undefined ? [] : [entry], more: false };
    }
    const entries: KeyValue[] = [];
    for (let index = this.#firstAtLeast(key); index < this.#order.length; index++) {
      const entry = this.#entries.get(this.#order[index] ?? '');
      if (entry === undefined || compareKeys(entry.key, rangeEnd) >= 0) break;
      if (entries.length >= limit) return { entries, more: true };
      entries.push(entry);
    }
    return { entries, more: false };
  }

  #firstAtLeast(key: string): number {
    const order = this.#order;
    let low = 0;
    let high = order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareKeys(order[middle] ?? '', key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #holds(compare: Compare): boolean {
    if (compare.target === 'value') {
      const entry = this.#entries.get(compare.key);
      if (entry === undefined) return false;
      return (Buffer.compare(entry.value, compare.operand) === 0) === (compare.op === '=');
    }
    const { target, op, operand } = compare;
    const found = this.#read(compare.key, compare.rangeEnd).entries.map((kv) => kv[target]);
    return (found.length === 0 ? [0] : found).every((actual) => {
      if (op === '<') return actual < operand;
      if (op === '>') return actual > operand;
      return (actual === operand) === (op === '=');
    });
  }

  #execute(operation: Operation, events: WatchEvent[]): OperationResult {
    switch (operation.type) {
      case 'put': {
        this.#put(operation, events);
        return { type: 'put' };
      }
      case 'delete': {
        const { entries } = this.#read(operation.key, operation.rangeEnd);
        for (const { key } of entries) this.#delete(key, events);
        return { type: 'delete', deleted: entries.length };
      }
      case 'get':
        return { type: 'get', ...this.#read(operation.key, operation.rangeEnd, operation.limit) };
    }
  }

  #put({ key, value, lease }: Extract<Operation, { type: 'put' }>, events: WatchEvent[]): void {
    const old = this.#entries.get(key);
    const modRevision = this.#revision + 1;
    const entry: KeyValue = {
      key,
      value: Uint8Array.from(value),
      createRevision: old?.createRevision ?? modRevision,
      modRevision,
      version: (old?.version ?? 0) + 1,
      ...(lease === undefined ? {} : { lease }),
    };
    this.#entries.set(key, entry);
    if (old === undefined) this.#order.splice(this.#firstAtLeast(key), 0, key);
    events.push({ type: 'put', entry });
  }

  #delete(key: string, events: WatchEvent[]): void {
    this.#entries.delete(key);
    this.#order.splice(this.#firstAtLeast(key), 1);
    events.push({ type: 'delete', key, modRevision: this.#revision + 1 });
  }

  #publish(events: readonly WatchEvent[]): void {
    if (events.length === 0) return;
    this.#revision++;
    const batch = { revision: this.#revision, events };
    this.#history.push(batch);
    this.#onBatch(batch);
  }
}

const empty = new Uint8Array();

function keyOf(event: WatchEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}

function within(key: string, start: string, rangeEnd: string | undefined): boolean {
  if (rangeEnd === undefined) return key === start;
  return compareKeys(key, start) >= 0 && compareKeys(key, rangeEnd) < 0;
}
