import assert from 'node:assert/strict';
import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
  OperationResult,
  Transaction,
} from '../../backends/contract/coordinator.js';

/** Accounts, rights and what they rest on: whoever changes them is told of it, and relies on it. */
const toldOf = /^(users|keys|tokens|groups|grants|authorities|revocations|issuers|openpgp-keys)\//;

/** What accounts use of a coordinator, in a Map: the embedded one is tested end to end. */
export class MemoryCoordinator {
  readonly limits = { maxOperations: 128, maxCompares: 128, maxRequestBytes: 1_572_864 } as const;
  readonly entries = new Map<string, KeyValue>();
  revision = 0;
  /** Called before each transaction: the place where somebody else wins a race. */
  beforeTransaction: () => void = () => undefined;

  async get(key: string): Promise<KeyValue | undefined> {
    return this.entries.get(key);
  }

  async range(key: string, options: { rangeEnd?: string; limit?: number } = {}) {
    const { entries, more } = this.#select(key, options);
    return { entries, more, revision: this.revision };
  }

  async transaction(transaction: Transaction) {
    this.beforeTransaction();
    const written = transaction.success.filter(({ type }) => type !== 'get');
    const relied = written.some(({ key }) => toldOf.test(key));
    assert.ok(!relied || transaction.binding === true, 'an older copy must not take it');
    const succeeded = transaction.compares.every((compare) => this.#holds(compare));
    const operations = succeeded ? transaction.success : transaction.failure;
    if (operations.some((operation) => operation.type !== 'get')) this.revision++;
    return { succeeded, revision: this.revision, results: operations.map((op) => this.#run(op)) };
  }

  put(key: string, value: Uint8Array): void {
    const old = this.entries.get(key);
    this.entries.set(key, {
      key,
      value,
      createRevision: old?.createRevision ?? this.revision,
      modRevision: this.revision,
      version: (old?.version ?? 0) + 1,
    });
  }

  #select(key: string, options: { rangeEnd?: string; limit?: number }) {
    const end = options.rangeEnd ?? `${key}\0`;
    const all = [...this.entries.values()]
      .filter((entry) => entry.key >= key && entry.key < end)
      .sort((a, b) => (a.key < b.key ? -1 : 1));
    const entries = all.slice(0, options.limit);
    return { entries, more: entries.length < all.length };
  }

  #holds(compare: Compare): boolean {
    if (compare.target === 'value') throw new Error('not used here');
    const { target, op, operand } = compare;
    const end = compare.rangeEnd;
    const values =
      end === undefined
        ? [this.entries.get(compare.key)?.[target] ?? 0]
        : this.#select(compare.key, { rangeEnd: end }).entries.map((entry) => entry[target]);
    return values.every((value) => {
      if (op === '=') return value === operand;
      if (op === '!=') return value !== operand;
      return op === '<' ? value < operand : value > operand;
    });
  }

  #run(operation: Operation): OperationResult {
    if (operation.type === 'get') return { type: 'get', ...this.#select(operation.key, operation) };
    if (operation.type === 'delete') {
      const end = operation.rangeEnd;
      const { entries } = this.#select(operation.key, end === undefined ? {} : { rangeEnd: end });
      for (const { key } of entries) this.entries.delete(key);
      return { type: 'delete', deleted: entries.length };
    }
    this.put(operation.key, operation.value);
    return { type: 'put' };
  }
}

export const unused = (): never => {
  throw new Error('not used by accounts');
};

export function asCoordinator(memory: MemoryCoordinator): Coordinator {
  return {
    limits: memory.limits,
    get: (key) => memory.get(key),
    range: (key, options) => memory.range(key, options),
    transaction: (transaction) => memory.transaction(transaction),
    grantLease: unused,
    leaseLeft: unused,
    watch: unused,
    identity: unused,
    ping: unused,
    close: unused,
  };
}
