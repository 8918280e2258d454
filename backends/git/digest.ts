import { hash } from 'node:crypto';
import type { Head, RefCommand, RefSnapshot } from '../contract/objects.js';
import { isZero } from './ref-commands.js';

/**
 * Digest of a repository's refs: the sum, modulo 2^512, of SHA-512 over
 * - `name NUL oid` for every ref that is not symbolic, and
 * - `HEAD NUL ref: target` or `HEAD NUL oid` for HEAD. No ref can have that name: they all start with `refs/`.
 *
 * Names are UTF-8, object ids lower-case hexadecimal. As 128 hexadecimal digits. Symbolic refs are left out, since
 * their values change with those of others, no push can change them, and git does not list the ones that dangle.
 * A sum can be kept up to date by subtracting what goes and adding what comes, in any order.
 */
export function digestOf(snapshot: RefSnapshot): string {
  const sum = new Sum512();
  for (const { name, oid, symref } of snapshot.refs) {
    if (symref === undefined) sum.add(refTerm(name, oid), 1);
  }
  sum.add(headTerm(snapshot.head), 1);
  return sum.hex();
}

/** Digest of a repository without refs. */
export function emptyDigest(head: Head): string {
  const sum = new Sum512();
  sum.add(headTerm(head), 1);
  return sum.hex();
}

/** The digest after `updates` (all of them applied) and, if given, a change of HEAD. */
export function digestAfter(
  digest: string,
  updates: readonly RefCommand[],
  head?: { readonly old: Head; readonly new: Head },
): string {
  const sum = new Sum512(digest);
  for (const { ref, oldOid, newOid } of updates) {
    if (!isZero(oldOid)) sum.add(refTerm(ref, oldOid), -1);
    if (!isZero(newOid)) sum.add(refTerm(ref, newOid), 1);
  }
  if (head !== undefined) {
    sum.add(headTerm(head.old), -1);
    sum.add(headTerm(head.new), 1);
  }
  return sum.hex();
}

function refTerm(name: string, oid: string): Buffer {
  return hash('sha512', `${name}\0${oid}`, 'buffer');
}

function headTerm(head: Head): Buffer {
  return refTerm('HEAD', 'symref' in head ? `ref: ${head.symref}` : head.oid);
}

const words = 16;
const modulus = 1n << 512n;
/** 2^20 terms below 2^32 stay far below 2^53, where doubles stop being exact. */
const termsBeforeCarry = 1 << 20;

/** Sum modulo 2^512. Each 32-bit word is summed by itself in a double; carries are settled once, at the end. */
class Sum512 {
  readonly #columns = new Float64Array(words);
  #total: bigint;
  #terms = 0;

  constructor(hex = '0') {
    this.#total = BigInt(`0x${hex}`);
  }

  add(term: Buffer, sign: 1 | -1): void {
    for (let word = 0; word < words; word++) {
      this.#columns[word] = (this.#columns[word] ?? 0) + sign * term.readUInt32BE(word * 4);
    }
    this.#terms += 1;
    if (this.#terms === termsBeforeCarry) this.#carry();
  }

  hex(): string {
    this.#carry();
    return this.#total.toString(16).padStart(128, '0');
  }

  #carry(): void {
    this.#columns.forEach((column, word) => {
      this.#total += BigInt(column) << BigInt(32 * (words - 1 - word));
    });
    this.#total = ((this.#total % modulus) + modulus) % modulus;
    this.#columns.fill(0);
    this.#terms = 0;
  }
}
