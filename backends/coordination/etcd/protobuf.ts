/*
 * The wire format of Protocol Buffers (protobuf.dev/programming-guides/encoding): numbers of variable length, bytes, and
 * messages within messages. Integers that JavaScript cannot hold come and go as text, as etcd3 gives and takes them.
 */

const varintType = 0;
const fixed64Type = 1;
const bytesType = 2;
const fixed32Type = 5;

const firstSize = 4 * 1024;
const longestVarint = 10;

/**
 * Writes a message from its end to its start, fields in reverse order: what is in a nested message is then there when
 * its length is to be written, and nothing is copied or measured twice.
 */
export class MessageWriter {
  #buffer = Buffer.allocUnsafe(firstSize);
  /** What is written begins here. */
  #at = firstSize;
  /** The last one: a process has one lease, mostly. */
  #large: { readonly text: string; readonly bytes: readonly number[] } | undefined;

  begin(): void {
    this.#at = this.#buffer.length;
  }

  /** A copy of what was written. */
  finish(): Buffer {
    return Buffer.from(this.#buffer.subarray(this.#at));
  }

  bytes(field: number, value: Uint8Array): void {
    this.#reserve(value.length);
    this.#at -= value.length;
    this.#buffer.set(value, this.#at);
    this.#varint(value.length);
    this.#varint(field * 8 + bytesType);
  }

  /** Not negative; text of up to 64 bits. */
  integer(field: number, value: number | string): void {
    const small = Number(value);
    if (Number.isSafeInteger(small)) this.#varint(small);
    else this.#largeVarint(String(value));
    this.#varint(field * 8 + varintType);
  }

  message(field: number, content: () => void): void {
    const before = this.#buffer.length - this.#at;
    content();
    this.#varint(this.#buffer.length - this.#at - before);
    this.#varint(field * 8 + bytesType);
  }

  #varint(value: number): void {
    let length = 1;
    for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length += 1;
    this.#reserve(length);
    this.#at -= length;
    let at = this.#at;
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.#buffer[at++] = 128 + (rest % 128);
    this.#buffer[at] = rest;
  }

  #largeVarint(text: string): void {
    if (this.#large?.text !== text) this.#large = { text, bytes: largeVarint(BigInt(text)) };
    const { bytes } = this.#large;
    this.#reserve(bytes.length);
    this.#at -= bytes.length;
    this.#buffer.set(bytes, this.#at);
  }

  #reserve(sizeBytes: number): void {
    if (sizeBytes <= this.#at) return;
    const written = this.#buffer.subarray(this.#at);
    const grown = Buffer.allocUnsafe(2 * (written.length + sizeBytes) + firstSize);
    const at = grown.length - written.length;
    grown.set(written, at);
    this.#buffer = grown;
    this.#at = at;
  }
}

function largeVarint(value: bigint): readonly number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest /= 128n) {
    if (rest < 128n) return [...bytes, Number(rest)];
    bytes.push(128 + Number(rest % 128n));
  }
}

/** By their bytes. The ids of a cluster, its members and its leases come again and again. */
const largeNumbers = new Map<string, string>();
const maxLargeNumbers = 256;

/** Reads the fields of a message in turn. Throws when it is cut or no message. */
export class MessageReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  #at: number;
  #type = varintType;

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  /** The number of the next field, whose content is to be taken then, or 0 at the end. */
  next(): number {
    if (this.#at >= this.#end) return 0;
    const tag = this.#number();
    this.#type = tag % 8;
    const field = Math.floor(tag / 8);
    if (field === 0) throw new Error('a field without a number');
    return field;
  }

  /** As text: it may have 64 bits. Negative ones come as large ones. */
  integer(): string {
    this.#expect(varintType);
    const start = this.#at;
    const small = this.#number();
    if (Number.isSafeInteger(small)) return String(small);
    return this.#largeNumber(start);
  }

  /** Shares memory with what is read. */
  bytes(): Buffer {
    const end = this.#endOfContent();
    const content = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return content;
  }

  message(): MessageReader {
    const end = this.#endOfContent();
    const content = new MessageReader(this.#bytes, this.#at, end);
    this.#at = end;
    return content;
  }

  skip(): void {
    switch (this.#type) {
      case varintType:
        this.#number();
        return;
      case fixed64Type:
        this.#advance(8);
        return;
      case bytesType:
        this.#at = this.#endOfContent();
        return;
      case fixed32Type:
        this.#advance(4);
        return;
      default:
        throw new Error('a field of an unknown type');
    }
  }

  #endOfContent(): number {
    this.#expect(bytesType);
    const length = this.#number();
    const end = this.#at + length;
    if (end > this.#end) throw new Error('a message that is cut');
    return end;
  }

  #expect(type: number): void {
    if (this.#type !== type) throw new Error('a field of another type');
  }

  #advance(sizeBytes: number): void {
    this.#at += sizeBytes;
    if (this.#at > this.#end) throw new Error('a message that is cut');
  }

  /** Beyond 2^53 it is not exact. */
  #number(): number {
    let value = 0;
    let factor = 1;
    for (let length = 1; length <= longestVarint; length += 1) {
      const byte = this.#byte();
      if (byte < 128) return value + byte * factor;
      value += (byte - 128) * factor;
      factor *= 128;
    }
    throw new Error('a number that is too long');
  }

  #largeNumber(start: number): string {
    const name = this.#bytes.toString('latin1', start, this.#at);
    const known = largeNumbers.get(name);
    if (known !== undefined) return known;
    let value = 0n;
    for (let at = start, shift = 0n; at < this.#at; at += 1, shift += 7n) {
      value |= BigInt((this.#bytes[at] ?? 0) % 128) << shift;
    }
    const text = String(BigInt.asUintN(64, value));
    if (largeNumbers.size >= maxLargeNumbers) largeNumbers.clear();
    largeNumbers.set(name, text);
    return text;
  }

  #byte(): number {
    if (this.#at >= this.#end) throw new Error('a message that is cut');
    return this.#bytes[this.#at++] ?? 0;
  }
}
