/** Packs made by hand, for tests: also ones that git would never write. */
import { createHash } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import type { ObjectType } from '../../contract/objects.js';

export type PackEntry =
  | { readonly type: ObjectType; readonly content: Uint8Array; readonly declaredBytes?: number }
  | { readonly type: 'ref-delta'; readonly base: string; readonly delta: Uint8Array }
  /** `distance` back from this entry's start. */
  | { readonly type: 'ofs-delta'; readonly distance: number; readonly delta: Uint8Array };

const typeNumbers = {
  commit: 1,
  tree: 2,
  blob: 3,
  tag: 4,
  'ofs-delta': 6,
  'ref-delta': 7,
} as const;

export function buildPack(
  entries: readonly PackEntry[],
  options: { readonly count?: number; readonly version?: number } = {},
): Buffer {
  const header = Buffer.alloc(12);
  header.write('PACK', 'latin1');
  header.writeUInt32BE(options.version ?? 2, 4);
  header.writeUInt32BE(options.count ?? entries.length, 8);
  return sealPack(Buffer.concat([header, ...entries.map(encodeEntry)]));
}

/** Appends the right checksum. */
export function sealPack(body: Uint8Array): Buffer {
  return Buffer.concat([body, createHash('sha1').update(body).digest()]);
}

function encodeEntry(entry: PackEntry): Buffer {
  if (entry.type === 'ref-delta') {
    return Buffer.concat([
      entryHeader(entry.type, entry.delta.byteLength),
      Buffer.from(entry.base, 'hex'),
      deflateSync(entry.delta),
    ]);
  }
  if (entry.type === 'ofs-delta') {
    return Buffer.concat([
      entryHeader(entry.type, entry.delta.byteLength),
      encodeDistance(entry.distance),
      deflateSync(entry.delta),
    ]);
  }
  const declared = entry.declaredBytes ?? entry.content.byteLength;
  return Buffer.concat([entryHeader(entry.type, declared), deflateSync(entry.content)]);
}

function entryHeader(type: keyof typeof typeNumbers, sizeBytes: number): Buffer {
  const bytes = [(typeNumbers[type] << 4) | (sizeBytes % 16)];
  let rest = Math.floor(sizeBytes / 16);
  while (rest > 0) {
    const last = bytes.length - 1;
    bytes[last] = (bytes[last] ?? 0) | 0x80;
    bytes.push(rest % 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from(bytes);
}

function encodeDistance(distance: number): Buffer {
  const bytes = [distance % 128];
  let rest = Math.floor(distance / 128);
  while (rest > 0) {
    rest -= 1;
    bytes.unshift(0x80 | (rest % 128));
    rest = Math.floor(rest / 128);
  }
  return Buffer.from(bytes);
}

/** A delta of one copy of `copyBytes` from the base's start, repeated `times`. */
export function copyDelta(options: {
  readonly baseBytes: number;
  readonly resultBytes: number;
  readonly copyBytes: number;
  readonly times: number;
}): Buffer {
  const { copyBytes } = options;
  const copy = Buffer.from([0xf0, copyBytes & 255, (copyBytes >> 8) & 255, copyBytes >> 16]);
  const copies = Array.from({ length: options.times }, () => copy);
  return Buffer.concat([varint(options.baseBytes), varint(options.resultBytes), ...copies]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(bytes);
}

export function objectId(type: ObjectType, content: Uint8Array): string {
  return createHash('sha1').update(`${type} ${content.byteLength}\0`).update(content).digest('hex');
}

/** Content of a tree with entries in the order given. Names are latin1: one character a byte. */
export function treeOf(entries: readonly (readonly [mode: string, name: string, oid: string])[]) {
  return Buffer.concat(
    entries.map(([mode, name, oid]) =>
      Buffer.concat([Buffer.from(`${mode} ${name}\0`, 'latin1'), Buffer.from(oid, 'hex')]),
    ),
  );
}
