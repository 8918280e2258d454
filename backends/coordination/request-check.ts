import type {
  Compare,
  CoordinatorLimits,
  Operation,
  RangeOptions,
  Transaction,
} from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';

/** The limits of every Coordinator: etcd's with its default configuration. */
export const coordinatorLimits: CoordinatorLimits = {
  maxOperations: 128,
  maxCompares: 128,
  maxRequestBytes: 1_572_864,
};

const maxKeyBytes = 1_024;

/**
 * Refuses a key that the contract does not allow: empty, longer than 1,024 bytes, or with half a surrogate pair,
 * which UTF-8 cannot carry (two such keys would become one).
 */
export function checkKey(key: string): number {
  const sizeBytes = Buffer.byteLength(key);
  if (sizeBytes === 0) throw invalid('a key must not be empty');
  if (sizeBytes > maxKeyBytes) throw invalid('a key is at most 1,024 bytes long');
  if (/\p{Surrogate}/u.test(key)) throw invalid('a key must be well-formed Unicode');
  return sizeBytes;
}

/** Checks the arguments of `range` and `watch`. A range end of one NUL means "everything" to etcd: refused. */
export function checkRange(key: string, rangeEnd: string | undefined): number {
  const sizeBytes = checkKey(key);
  if (rangeEnd === undefined) return sizeBytes;
  if (rangeEnd === '\0') throw invalid('a range must not end in a NUL');
  return sizeBytes + checkKey(rangeEnd);
}

export function checkRangeOptions(key: string, options: RangeOptions): void {
  checkRange(key, options.rangeEnd);
  checkLimit(options.limit);
}

/**
 * Checks a whole transaction against the contract before anything happens, and returns its size: the bytes of all
 * keys and values. Throws `invalid-argument`.
 */
export function checkTransaction(transaction: Transaction): number {
  if (transaction.compares.length > coordinatorLimits.maxCompares) {
    throw invalid('a transaction has at most 128 compares');
  }
  let sizeBytes = 0;
  for (const compare of transaction.compares) sizeBytes += checkCompare(compare);
  sizeBytes += checkBranch(transaction.success) + checkBranch(transaction.failure);
  if (sizeBytes > coordinatorLimits.maxRequestBytes) {
    throw invalid('a transaction carries at most 1.5 MiB of keys and values');
  }
  return sizeBytes;
}

function checkCompare(compare: Compare): number {
  if (compare.target === 'value') return checkKey(compare.key) + compare.operand.length;
  if (!Number.isSafeInteger(compare.operand) || compare.operand < 0) {
    throw invalid('the operand of a compare must be a whole number, 0 or more');
  }
  return checkRange(compare.key, compare.rangeEnd);
}

function checkBranch(operations: readonly Operation[]): number {
  if (operations.length > coordinatorLimits.maxOperations) {
    throw invalid('one branch of a transaction has at most 128 operations');
  }
  const puts = new Set<string>();
  let sizeBytes = 0;
  for (const operation of operations) {
    if (operation.type === 'put') {
      if (puts.has(operation.key)) throw invalid('a branch may not put one key twice');
      puts.add(operation.key);
      sizeBytes += checkKey(operation.key) + operation.value.length;
    } else {
      sizeBytes += checkRange(operation.key, operation.rangeEnd);
      if (operation.type === 'get') checkLimit(operation.limit);
    }
  }
  checkDeletes(operations, puts);
  return sizeBytes;
}

/** At most 128 x 128 comparisons. */
function checkDeletes(operations: readonly Operation[], puts: ReadonlySet<string>): void {
  for (const operation of operations) {
    if (operation.type !== 'delete') continue;
    const { key, rangeEnd } = operation;
    const clash =
      rangeEnd === undefined ? puts.has(key) : [...puts].some((put) => inRange(put, key, rangeEnd));
    if (clash) throw invalid('a branch may not put a key that it also deletes');
  }
}

/** Whether `key` lies in `[start, rangeEnd)`, bytewise; without `rangeEnd` whether it is `start`. */
export function inRange(key: string, start: string, rangeEnd: string | undefined): boolean {
  if (rangeEnd === undefined) return key === start;
  return compareKeys(key, start) >= 0 && compareKeys(key, rangeEnd) < 0;
}

/**
 * The order of keys: bytewise in UTF-8. JavaScript's own order, by UTF-16 units, differs only where a surrogate (of a
 * character beyond U+FFFF) meets U+E000 to U+FFFF.
 */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return utf8Rank(x) - utf8Rank(y);
  }
  return a.length - b.length;
}

function utf8Rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

function checkLimit(limit: number | undefined): void {
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 1)) {
    throw invalid('a limit must be a whole number, 1 or more');
  }
}

function invalid(message: string): QuorateError {
  return new QuorateError('invalid-argument', message);
}
