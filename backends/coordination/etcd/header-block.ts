/*
 * Header blocks of HTTP/2 (RFC 7541, HPACK), as far as calls of etcd have them. We announce a dynamic table of no bytes
 * and use none: a block depends on no other, so that those of requests are made once, and those of answers, which are
 * nearly always the same few, are read once.
 */

/** Header fields in wire form. `secret`: no proxy on the way may remember it. */
export function encodeHeaders(
  fields: readonly {
    readonly name: string;
    readonly value: string;
    readonly secret?: boolean;
  }[],
): Buffer {
  // Literals without indexing, or never to be indexed, with their names spelled out (section 6.2).
  return Buffer.concat(
    fields.flatMap(({ name, value, secret = false }) => [
      Buffer.from([secret ? 0x10 : 0x00]),
      encodeText(name),
      encodeText(value),
    ]),
  );
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeInteger(bytes.length), bytes]);
}

/** With a prefix of seven bits and no flag (section 5.1). */
function encodeInteger(value: number): Buffer {
  if (value < 127) return Buffer.from([value]);
  const bytes = [127];
  for (let rest = value - 127; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push(128 + (rest % 128));
  }
}

export type Headers = ReadonlyMap<string, string>;

/** Of the static table (appendix A) only the status is of interest to us: entries 8 to 14. */
const firstStatus = 8;
const statuses = ['200', '204', '206', '304', '400', '404', '500'] as const;
const lastStatic = 61;

/** Different answers are few: success, and etcd's errors. */
const maxRemembered = 32;

/** Reads header blocks of a connection on which both sides have no dynamic table. */
export class HeaderReader {
  readonly #remembered = new Map<string, Headers>();

  /** The fields but those whose names are in HPACK's static table, of which only `:status` is kept. Throws on nonsense. */
  read(block: Buffer): Headers {
    const name = block.toString('latin1');
    const known = this.#remembered.get(name);
    if (known !== undefined) return known;
    const headers = decodeHeaders(block);
    if (this.#remembered.size >= maxRemembered) this.#remembered.clear();
    this.#remembered.set(name, headers);
    return headers;
  }
}

function decodeHeaders(block: Buffer): Headers {
  const headers = new Map<string, string>();
  const cursor: Cursor = { block, at: 0 };
  while (cursor.at < block.length) {
    const first = block[cursor.at] ?? 0;
    if (first >= 0x80) {
      const index = decodeInteger(cursor, 7);
      const status = statuses[index - firstStatus];
      if (index === 0 || index > lastStatic) throw new Error('an entry of no table');
      if (status !== undefined) headers.set(':status', status);
    } else if (first >= 0x20 && first < 0x40) {
      if (decodeInteger(cursor, 5) !== 0) throw new Error('a dynamic table where there is none');
    } else {
      const index = decodeInteger(cursor, first >= 0x40 ? 6 : 4);
      if (index > lastStatic) throw new Error('a name of no table');
      const name = index === 0 ? decodeText(cursor) : nameOf(index);
      const value = decodeText(cursor);
      if (name !== undefined) headers.set(name, value);
    }
  }
  return headers;
}

function nameOf(index: number): string | undefined {
  return statuses[index - firstStatus] === undefined ? undefined : ':status';
}

interface Cursor {
  readonly block: Buffer;
  at: number;
}

function decodeInteger(cursor: Cursor, prefixBits: number): number {
  const mask = 2 ** prefixBits - 1;
  const prefix = takeByte(cursor) & mask;
  if (prefix < mask) return prefix;
  let value = mask;
  for (let factor = 1; factor <= 128 ** 3; factor *= 128) {
    const byte = takeByte(cursor);
    value += (byte % 128) * factor;
    if (byte < 128) return value;
  }
  throw new Error('a number that is too large');
}

function takeByte(cursor: Cursor): number {
  const byte = cursor.block[cursor.at++];
  if (byte === undefined) throw new Error('a header block that is cut');
  return byte;
}

function decodeText(cursor: Cursor): string {
  const isHuffman = (cursor.block[cursor.at] ?? 0) >= 0x80;
  const length = decodeInteger(cursor, 7);
  const end = cursor.at + length;
  if (end > cursor.block.length) throw new Error('a header block that is cut');
  const bytes = cursor.block.subarray(cursor.at, end);
  cursor.at = end;
  return isHuffman ? decodeHuffman(bytes) : bytes.toString('latin1');
}

/** Bits of the code of each byte, as appendix B lists them; the codes follow from these, as it is a canonical code. */
const codeBits: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
  28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
  6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6,
  7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
  23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
  22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
  23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27,
  27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
  24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const longestCode = 30;

/** Byte by length and code. */
const byteOf = canonicalCode();

function canonicalCode(): ReadonlyMap<number, number> {
  const bytes = new Map<number, number>();
  let code = 0;
  for (let bits = 1; bits <= longestCode; bits += 1) {
    for (const [byte, length] of codeBits.entries()) {
      if (length === bits) bytes.set(placeOf(bits, code++), byte);
    }
    code *= 2;
  }
  return bytes;
}

function placeOf(bits: number, code: number): number {
  return bits * 2 ** longestCode + code;
}

/** What is left of the last byte is filled with ones, less than eight. */
function decodeHuffman(bytes: Uint8Array): string {
  let text = '';
  let code = 0;
  let bits = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit -= 1) {
      code = code * 2 + ((byte >> bit) & 1);
      bits += 1;
      const found = byteOf.get(placeOf(bits, code));
      if (found !== undefined) {
        text += String.fromCharCode(found);
        code = 0;
        bits = 0;
      } else if (bits >= longestCode) throw new Error('a code that stands for nothing');
    }
  }
  if (bits > 7 || code !== 2 ** bits - 1) throw new Error('a code that is cut');
  return text;
}
