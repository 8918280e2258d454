/**
 * The parts of git's pack and pack index files that the worker reads by itself (gitformat-pack(5)).
 *
 *   pack  = "PACK" version(4) count(4) entry* checksum(20)
 *   entry = header (type in bits 4-6 of the first byte) [base] zlib data
 *   idx   = "\377tOc" 2(4) fanout(256 x 4) oid(20)* crc(4)* offset(4)* large offset(8)* checksum(20) checksum(20)
 *
 * SHA-1 only: the worker is given no other repository.
 */
import { createHash } from 'node:crypto';
import { inflateSync } from 'node:zlib';

const OID_BYTES = 20;
const FANOUT_END = 8 + 256 * 4;

/** `delta` stands for both kinds: the object's own type is that of its base. */
export type EntryKind = 'commit' | 'tree' | 'blob' | 'tag' | 'delta';

export interface PackedObject {
  readonly oid: Buffer;
  readonly offset: number;
}

/** The number of objects that a pack's header declares, or undefined when it is no pack header. */
export function declaredObjectCount(pack: Uint8Array): number | undefined {
  if (pack.byteLength < 12) return undefined;
  const bytes = Buffer.from(pack.buffer, pack.byteOffset, pack.byteLength);
  const version = bytes.readUInt32BE(4);
  if (bytes.toString('latin1', 0, 4) !== 'PACK' || (version !== 2 && version !== 3)) {
    return undefined;
  }
  return bytes.readUInt32BE(8);
}

/** True for a sound pack without objects, which is what a push that only names known objects sends. */
export function isEmptyPack(pack: Uint8Array, hash: 'sha1' | 'sha256'): boolean {
  const digestBytes = hash === 'sha1' ? 20 : 32;
  if (pack.byteLength !== 12 + digestBytes || declaredObjectCount(pack) !== 0) return false;
  return createHash(hash).update(pack.subarray(0, 12)).digest().equals(pack.subarray(12));
}

/** Objects of a version 2 index, in the order of their ids; undefined when it is not one we can read. */
export function readPackIndex(index: Buffer): readonly PackedObject[] | undefined {
  if (index.length < FANOUT_END + 2 * OID_BYTES) return undefined;
  if (index.readUInt32BE(0) !== 0xff744f63 || index.readUInt32BE(4) !== 2) return undefined;
  const count = index.readUInt32BE(FANOUT_END - 4);
  const offsets = FANOUT_END + count * (OID_BYTES + 4);
  if (index.length !== offsets + count * 4 + 2 * OID_BYTES) return undefined;
  const objects: PackedObject[] = [];
  for (let i = 0; i < count; i++) {
    const at = FANOUT_END + i * OID_BYTES;
    objects.push({
      oid: index.subarray(at, at + OID_BYTES),
      offset: index.readUInt32BE(offsets + i * 4),
    });
  }
  return objects;
}

/** Kind and declared inflated size of the entry at `offset`. For a delta the size is that of the delta itself. */
export function entryHeader(
  pack: Buffer,
  offset: number,
):
  | { readonly kind: EntryKind; readonly sizeBytes: number; readonly dataOffset: number }
  | undefined {
  let at = offset;
  let byte = pack[at++];
  if (byte === undefined) return undefined;
  const type = (byte >> 4) & 7;
  let size = byte & 15;
  let unit = 16;
  while (byte >= 0x80) {
    byte = pack[at++];
    if (byte === undefined || unit > 2 ** 46) return undefined;
    size += (byte & 0x7f) * unit;
    unit *= 128;
  }
  if (type === 7) return { kind: 'delta', sizeBytes: size, dataOffset: at + OID_BYTES };
  if (type === 6) {
    do byte = pack[at++];
    while (byte !== undefined && byte >= 0x80);
    return { kind: 'delta', sizeBytes: size, dataOffset: at };
  }
  const kind = ([undefined, 'commit', 'tree', 'blob', 'tag'] as const)[type];
  return kind === undefined ? undefined : { kind, sizeBytes: size, dataOffset: at };
}

/**
 * True when the entry at `offset` ends exactly at `end`. The indexer reads entries one behind the other, so this on
 * the last one proves that nothing is hidden between the objects and the checksum. `limitBytes` bounds the inflation.
 */
export function entryEndsAt(
  pack: Buffer,
  offset: number,
  end: number,
  limitBytes: number,
): boolean {
  const header = entryHeader(pack, offset);
  if (header === undefined || header.sizeBytes > limitBytes) return false;
  try {
    const options = { info: true, maxOutputLength: limitBytes } as const;
    // With `info`, zlib answers {buffer, engine}; its types do not say so.
    const inflated: unknown = inflateSync(pack.subarray(header.dataOffset, end), options);
    return consumedBytes(inflated) === end - header.dataOffset;
  } catch {
    return false;
  }
}

function consumedBytes(inflated: unknown): number | undefined {
  if (typeof inflated !== 'object' || inflated === null || !('engine' in inflated))
    return undefined;
  const { engine } = inflated;
  if (typeof engine !== 'object' || engine === null || !('bytesWritten' in engine))
    return undefined;
  return typeof engine.bytesWritten === 'number' ? engine.bytesWritten : undefined;
}
