import type { ICompare, IKeyValue, IRangeRequest, IRequestOp, ITxnRequest } from 'etcd3';
import type {
  Compare,
  KeyValue,
  Operation,
  OperationResult,
  Transaction,
  TransactionResult,
} from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import type { OperationAnswer, TxnAnswer } from './kv-messages.js';

const comparisons = { '=': 'Equal', '!=': 'NotEqual', '<': 'Less', '>': 'Greater' } as const;

export type GetOperation = Extract<Operation, { readonly type: 'get' }>;

/** Between the contract's form and etcd's messages (`etcdserver/etcdserverpb/rpc.proto`), under a key prefix. */
export class WireFormat {
  readonly #prefix: Buffer;

  constructor(prefix: string) {
    this.#prefix = Buffer.from(prefix);
  }

  key(key: string): Buffer {
    return Buffer.concat([this.#prefix, Buffer.from(key)]);
  }

  /** Fields of a request that name a key or range. */
  range(key: string, rangeEnd: string | undefined): { key: Buffer; range_end?: Buffer } {
    if (rangeEnd === undefined) return { key: this.key(key) };
    return { key: this.key(key), range_end: this.key(rangeEnd) };
  }

  get({ key, rangeEnd, limit }: GetOperation): IRangeRequest {
    const range = this.range(key, rangeEnd);
    return limit === undefined ? range : { ...range, limit: String(limit) };
  }

  /** Without the prefix. */
  plainKey(key: Buffer): string {
    return key.toString('utf8', this.#prefix.length);
  }

  /** The value is copied: it would keep the whole answer in memory. */
  entry(stored: IKeyValue): KeyValue {
    return {
      key: this.plainKey(stored.key),
      value: new Uint8Array(stored.value),
      createRevision: wholeNumber(stored.create_revision),
      modRevision: wholeNumber(stored.mod_revision),
      version: wholeNumber(stored.version),
      ...(stored.lease === '0' ? {} : { lease: stored.lease }),
    };
  }

  /** Values are copied: the caller may reuse its buffers as soon as the call has returned. */
  transaction({ compares, success, failure }: Transaction): ITxnRequest {
    return {
      compare: compares.map((compare) => this.#compare(compare)),
      success: success.map((operation) => this.#operation(operation)),
      failure: failure.map((operation) => this.#operation(operation)),
    };
  }

  /** An answer says by its place, not by itself, which operation it belongs to. */
  result(transaction: Transaction, response: TxnAnswer): TransactionResult {
    const operations = response.succeeded ? transaction.success : transaction.failure;
    return {
      succeeded: response.succeeded,
      revision: wholeNumber(response.header.revision),
      results: operations.map(({ type }, i) => {
        const one = response.responses[i];
        if (one === undefined) throw new QuorateError('internal', 'etcd answered too little');
        return this.#operationResult(type, one);
      }),
    };
  }

  #compare(compare: Compare): ICompare {
    const result = comparisons[compare.op];
    if (compare.target === 'value') {
      const value = Buffer.from(compare.operand);
      return { result, target: 'Value', key: this.key(compare.key), value };
    }
    const base = { result, ...this.range(compare.key, compare.rangeEnd) };
    const operand = String(compare.operand);
    switch (compare.target) {
      case 'createRevision':
        return { ...base, target: 'Create', create_revision: operand };
      case 'modRevision':
        return { ...base, target: 'Mod', mod_revision: operand };
      case 'version':
        return { ...base, target: 'Version', version: operand };
    }
  }

  #operation(operation: Operation): IRequestOp {
    switch (operation.type) {
      case 'put': {
        const { key, value, lease } = operation;
        const put = { key: this.key(key), value: Buffer.from(value) };
        return { request_put: lease === undefined ? put : { ...put, lease: leaseNumber(lease) } };
      }
      case 'delete':
        return { request_delete_range: this.range(operation.key, operation.rangeEnd) };
      case 'get':
        return { request_range: this.get(operation) };
    }
  }

  #operationResult(type: Operation['type'], answer: OperationAnswer): OperationResult {
    const { response_range: range, response_delete_range: deleted } = answer;
    if (type === 'put') return { type };
    if (type === 'delete' && deleted !== undefined) {
      return { type, deleted: wholeNumber(deleted.deleted) };
    }
    if (type === 'get' && range !== undefined) {
      const { kvs, more } = range;
      return { type, entries: kvs.map((stored) => this.entry(stored)), more };
    }
    throw new QuorateError('internal', 'etcd answered something else');
  }
}

/** etcd's 64-bit numbers arrive as text. Revisions beyond 2^53 would take 280,000 years at 1,000 writes a second. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new QuorateError('internal', `etcd sent the number ${text}`);
  }
  return value;
}

/** etcd would take 0 as "no lease", and fail on other text. */
function leaseNumber(lease: string): string {
  if (!/^[1-9]\d{0,18}$/.test(lease)) {
    throw new QuorateError('failed-precondition', 'the lease has ended');
  }
  return lease;
}
