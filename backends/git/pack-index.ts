import { open, type FileHandle } from 'node:fs/promises';
import type { Oid } from '../contract/objects.js';

/** Magic and version, then 256 running counts by first byte (gitformat-pack(5), version 2). */
const fanOutOffset = 8;
const namesOffset = fanOutOffset + 256 * 4;

/** Those of `oids` that a pack holds, by its `.idx` (version 2). Reads a few bytes for each. */
export async function findInPackIndex(
  path: string,
  oids: readonly Oid[],
): Promise<ReadonlySet<Oid>> {
  const index = await open(path);
  try {
    const header = Buffer.alloc(namesOffset);
    await readFully(index, header, 0);
    if (header.toString('hex', 0, fanOutOffset) !== 'ff744f6300000002') return new Set();
    const found = new Set<Oid>();
    for (const oid of oids) if (await isListed(index, header, oid)) found.add(oid);
    return found;
  } finally {
    await index.close();
  }
}

/** Binary search among the names that begin with the same byte. */
async function isListed(index: FileHandle, header: Buffer, oid: Oid): Promise<boolean> {
  const wanted = Buffer.from(oid, 'hex');
  const [first = 0] = wanted;
  const name = Buffer.alloc(wanted.length);
  let low = first === 0 ? 0 : header.readUInt32BE(fanOutOffset + (first - 1) * 4);
  let high = header.readUInt32BE(fanOutOffset + first * 4);
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    await readFully(index, name, namesOffset + middle * name.length);
    const order = wanted.compare(name);
    if (order === 0) return true;
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return false;
}

async function readFully(file: FileHandle, into: Buffer, position: number): Promise<void> {
  const { bytesRead } = await file.read(into, 0, into.length, position);
  if (bytesRead !== into.length) throw new Error('a pack index is cut off');
}
