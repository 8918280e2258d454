/**
 * Reads the fields of RFC 4251 section 5 one after the other. Throws what `malformed` makes when the bytes are not what
 * was asked for.
 */
export class SshFieldReader {
  readonly #data: Buffer;
  readonly #malformed: () => Error;
  #position = 0;

  constructor(data: Uint8Array, malformed: () => Error) {
    this.#data = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.#malformed = malformed;
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#position;
  }

  get atEnd(): boolean {
    return this.#position === this.#data.length;
  }

  uint32(): number {
    return this.#fixed(4).readUInt32BE();
  }

  uint64(): bigint {
    return this.#fixed(8).readBigUInt64BE();
  }

  bytes(): Buffer {
    return this.#fixed(this.uint32());
  }

  text(): string {
    return this.bytes().toString('latin1');
  }

  /** An `mpint` that is greater than zero, as its bytes without the leading zero. */
  positiveInteger(): Buffer {
    const bytes = this.bytes();
    const first = bytes[0];
    if (first === undefined || first >= 0x80) throw this.#malformed();
    if (first !== 0) return bytes;
    // The one leading zero of an mpint is there only for the sign: anything else is a second spelling of the same key.
    if ((bytes[1] ?? 0) < 0x80) throw this.#malformed();
    return bytes.subarray(1);
  }

  end(): void {
    if (!this.atEnd) throw this.#malformed();
  }

  #fixed(length: number): Buffer {
    const start = this.#position;
    if (start + length > this.#data.length) throw this.#malformed();
    this.#position = start + length;
    return this.#data.subarray(start, this.#position);
  }
}

/** A length-prefixed field. */
export function sshField(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
