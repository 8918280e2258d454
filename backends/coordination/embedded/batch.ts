import type {
  Compare,
  KeyValue,
  LeaseId,
  Operation,
  OperationResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchEvent,
} from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import type { Store } from './store.js';

/**
 * Executes transactions one after another inside one LMDB commit. Each that writes takes the next revision. Nothing
 * here survives unless the commit does: the caller takes over `revision` and `batches` only then.
 */
export class Batch {
  readonly batches: WatchBatch[] = [];
  readonly #store: Store;
  readonly #leaseLives: (lease: LeaseId) => boolean;
  #revision: number;
  #events: WatchEvent[] = [];

  constructor(store: Store, leaseLives: (lease: LeaseId) => boolean) {
    this.#store = store;
    this.#leaseLives = leaseLives;
    this.#revision = store.revision;
  }

  get revision(): number {
    return this.#revision;
  }

  /** Throws `failed-precondition` for an unknown lease, before it has written anything. */
  run(transaction: Transaction): TransactionResult {
    const succeeded = transaction.compares.every((compare) => this.#holds(compare));
    const branch = succeeded ? transaction.success : transaction.failure;
    for (const operation of branch) {
      if (operation.type !== 'put' || operation.lease === undefined) continue;
      if (!this.#leaseLives(operation.lease)) {
        throw new QuorateError('failed-precondition', 'the lease is gone', {
          details: { lease: operation.lease },
        });
      }
    }
    const results = branch.map((operation) => this.#execute(operation));
    this.#endRevision();
    return { succeeded, revision: this.#revision, results };
  }

  /** Deletes every key of a lease that has ended, in one revision. */
  endLease(lease: LeaseId): void {
    for (const { key } of this.#store.leasedKeys(lease)) this.#delete(key);
    this.#endRevision();
  }

  /** Deletes every key that hangs on any lease, in one revision: for the start, when no lease lives. */
  endAllLeases(): void {
    for (const { key } of this.#store.leasedKeys()) this.#delete(key);
    this.#endRevision();
  }

  /** Writes the revision; the last step of the commit. */
  finish(): void {
    if (this.batches.length > 0) this.#store.setRevision(this.#revision);
  }

  #holds(compare: Compare): boolean {
    if (compare.target === 'value') {
      const entry = this.#store.get(compare.key);
      if (entry === undefined) return false;
      return (Buffer.compare(entry.value, compare.operand) === 0) === (compare.op === '=');
    }
    const entries = this.#entries(compare.key, compare.rangeEnd);
    if (entries.length === 0) return numberHolds(0, compare.op, compare.operand);
    return entries.every((entry) =>
      numberHolds(entry[compare.target], compare.op, compare.operand),
    );
  }

  #execute(operation: Operation): OperationResult {
    switch (operation.type) {
      case 'put':
        this.#put(operation.key, operation.value, operation.lease);
        return { type: 'put' };
      case 'delete': {
        const doomed = this.#entries(operation.key, operation.rangeEnd);
        for (const entry of doomed) this.#delete(entry.key, entry);
        return { type: 'delete', deleted: doomed.length };
      }
      case 'get': {
        if (operation.rangeEnd === undefined) {
          const entry = this.#store.get(operation.key);
          return { type: 'get', entries: entry === undefined ? [] : [entry], more: false };
        }
        const { entries, more } = this.#store.range(operation);
        return { type: 'get', entries, more };
      }
    }
  }

  #entries(key: string, rangeEnd: string | undefined): readonly KeyValue[] {
    if (rangeEnd !== undefined) return this.#store.range({ key, rangeEnd }).entries;
    const entry = this.#store.get(key);
    return entry === undefined ? [] : [entry];
  }

  #put(key: string, value: Uint8Array, lease: LeaseId | undefined): void {
    const before = this.#store.get(key);
    if (before?.lease !== undefined && before.lease !== lease) {
      this.#store.detach(before.lease, key);
    }
    const modRevision = this.#revision + 1;
    const entry = {
      value,
      createRevision: before?.createRevision ?? modRevision,
      modRevision,
      version: (before?.version ?? 0) + 1,
      ...(lease === undefined ? {} : { lease }),
    };
    this.#store.put(key, entry);
    this.#events.push({ type: 'put', entry: { key, ...entry } });
  }

  #delete(key: string, known?: KeyValue): void {
    const entry = known ?? this.#store.get(key);
    if (entry === undefined) return;
    if (entry.lease !== undefined) this.#store.detach(entry.lease, key);
    this.#store.delete(key);
    this.#events.push({ type: 'delete', key, modRevision: this.#revision + 1 });
  }

  #endRevision(): void {
    if (this.#events.length === 0) return;
    this.#revision += 1;
    this.batches.push({ revision: this.#revision, events: this.#events });
    this.#events = [];
  }
}

function numberHolds(actual: number, op: '=' | '!=' | '<' | '>', operand: number): boolean {
  switch (op) {
    case '=':
      return actual === operand;
    case '!=':
      return actual !== operand;
    case '<':
      return actual < operand;
    case '>':
      return actual > operand;
  }
}
