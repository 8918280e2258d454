/** What the code under simulation gets in place of `node:crypto` (module-hooks.ts): names by count, not by chance. */
import { createHash, hash } from 'node:crypto';

export { createHash, hash };

let count = 0;

/** Names are only ever compared, so that counting does; it starts anew in every world. */
export function restartCounting(): void {
  count = 0;
}

/** What each count comes to: the same in every world. */
const hashes: Buffer[] = [];

export function randomBytes(length: number): Buffer {
  const name = (hashes[++count] ??= hash('sha512', String(count), 'buffer'));
  return Buffer.from(name.subarray(0, length));
}

export function randomUUID(): string {
  return randomBytes(16).toString('hex');
}
