import { createHash, type Hash } from 'node:crypto';
import type { IncomingPack } from '../../backends/contract/backend.js';
import type { ObjectFormat } from '../../backends/contract/objects.js';

/**
 * The pack of a push, as the backend reads it.
 *
 * In a session the stream does not end with the pack: a client keeps it open to read its report, and only some close
 * their half. But a pack ends with the hash of all that is before (gitformat-pack(5)), so whenever no more bytes are
 * at hand and the last ones are the hash of the others, the pack is over: no inflating, no guessing by silence.
 */
export class PackStream implements IncomingPack {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #end: PackEnd | undefined;
  readonly #takeRest: (() => Uint8Array | undefined) | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #begun = false;
  #ended = false;

  /**
   * `session` is given where the stream goes on behind the pack. `takeRest`, elsewhere: all of what `source` would
   * give, where that is known to be here.
   */
  constructor(
    source: AsyncIterable<Uint8Array>,
    more: {
      readonly session?: { readonly format: ObjectFormat; readonly idle: () => boolean };
      readonly takeRest?: () => Uint8Array | undefined;
    } = {},
  ) {
    const { session, takeRest } = more;
    this.#source = source[Symbol.asyncIterator]();
    this.#end = session === undefined ? undefined : new PackEnd(session.format, session.idle);
    this.#takeRest = takeRest;
  }

  /** True when the whole pack was read. */
  get ended(): boolean {
    return this.#ended;
  }

  takeWhole(): Uint8Array | undefined {
    if (this.#begun) return undefined;
    const whole = this.#takeRest?.();
    this.#begun = this.#ended = whole !== undefined;
    return whole;
  }

  /** Leaving the iterator leaves the stream as it is: the rest can still be drained. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return {
      next: () => this.#next(),
      return: () => Promise.resolve({ done: true, value: undefined }),
    };
  }

  /** Reads and drops what is left, so that the client comes to reading its report. False when a bound cut it short. */
  async drain(maxBytes: number): Promise<boolean> {
    let bytes = 0;
    for await (const chunk of this) {
      bytes += chunk.length;
      if (bytes > maxBytes) return false;
    }
    return true;
  }

  /** One pull after the other, also when a reader left while its pull was waiting. */
  #next(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.#begun = true;
    const next = this.#last.then(() => this.#pull());
    this.#last = next.catch(() => {});
    return next;
  }

  async #pull(): Promise<IteratorResult<Uint8Array, undefined>> {
    if (this.#ended || this.#end?.reached() === true) {
      this.#ended = true;
      return { done: true, value: undefined };
    }
    const next = await this.#source.next();
    if (next.done === true) {
      this.#ended = true;
      return { done: true, value: undefined };
    }
    this.#end?.see(next.value);
    return next;
  }
}

class PackEnd {
  readonly #idle: () => boolean;
  readonly #hashBytes: number;
  readonly #hash: Hash;
  /** The bytes that may be the trailer: the last `#hashBytes` seen. */
  #tail: Buffer = Buffer.alloc(0);

  constructor(format: ObjectFormat, idle: () => boolean) {
    this.#idle = idle;
    this.#hash = createHash(format);
    this.#hashBytes = format === 'sha1' ? 20 : 32;
  }

  see(chunk: Uint8Array): void {
    if (chunk.length >= this.#hashBytes) {
      const split = chunk.length - this.#hashBytes;
      this.#hash.update(this.#tail).update(chunk.subarray(0, split));
      this.#tail = Buffer.from(chunk.subarray(split));
      return;
    }
    const joined = Buffer.concat([this.#tail, chunk]);
    const split = Math.max(0, joined.length - this.#hashBytes);
    this.#hash.update(joined.subarray(0, split));
    this.#tail = joined.subarray(split);
  }

  reached(): boolean {
    if (this.#tail.length < this.#hashBytes || !this.#idle()) return false;
    return this.#hash.copy().digest().equals(this.#tail);
  }
}
