import { Bell } from './bell.js';
import type { OpenSpool, Spool } from './spool.js';

export interface SharedOutputOptions {
  /** From the beginning of the output, what stays in memory for who comes later. */
  readonly memoryBytes: number;
  readonly openSpool: OpenSpool;
  /** Others want the same already: spool, even while only one reads. */
  readonly wanted: boolean;
}

/** Of what is in the spool, the end stays in memory, for those who keep up. */
const tailBytes = 1024 * 1024;
/** How far the slowest of those who read what is not spooled may be behind. */
const windowBytes = 256 * 1024;
/** Read from the spool at once. */
const pieceBytes = 128 * 1024;

interface Chunk {
  readonly start: number;
  readonly bytes: Uint8Array;
}

/**
 * One stream, for any number of readers, each at its own pace. Its beginning stays in memory; when it turns out longer
 * and somebody shares it, it goes through a spool from there on, so that a slow reader holds up nobody and takes no
 * memory. A stream that is long and has one reader is just passed on, at that reader's pace.
 *
 * Only a reader that is a whole spool behind, or slow while there is no spool to be had, limits the others.
 */
export class SharedOutput {
  readonly #options: SharedOutputOptions;
  readonly #readers = new Set<SharedReader>();
  /** There is more to read, or there will be no more. */
  readonly #grown = new Bell();
  /** Somebody has read on, or left. */
  readonly #advanced = new Bell();
  /** What is in memory, without gaps, up to the end. */
  #chunks: Chunk[] = [];
  #endBytes = 0;
  #spool: Spool | undefined;
  #spooledBytes = 0;
  /** The spool failed, or there was none: from here on the slowest sets the pace. */
  #direct = false;
  #reading = 0;
  #released = false;
  #state: 'running' | 'ended' | 'failed' = 'running';
  #failure: unknown;

  constructor(options: SharedOutputOptions) {
    this.#options = options;
  }

  /** Whether the beginning is still there. */
  get joinable(): boolean {
    if (this.#state === 'failed') return false;
    if (this.#spool !== undefined && this.#endBytes > this.#spool.sizeBytes) return false;
    return (this.#chunks[0]?.start ?? this.#endBytes) <= this.#spooledBytes;
  }

  /** It has ended, and all of it is there. */
  get keepable(): boolean {
    return this.#state === 'ended' && this.joinable;
  }

  get memoryBytes(): number {
    return this.#endBytes - (this.#chunks[0]?.start ?? this.#endBytes);
  }

  /**
   * Reads all of it from the beginning. To be called while it is `joinable`. `onAbandoned`: nobody reads any more, and
   * more was to come.
   */
  open(onAbandoned: () => void): SharedReader {
    const reader = new SharedReader(this, () => {
      this.#readers.delete(reader);
      this.#advanced.ring();
      this.#grown.ring();
      if (this.#readers.size === 0 && this.#state === 'running') onAbandoned();
      void this.#closeUnused();
    });
    this.#readers.add(reader);
    return reader;
  }

  /** Takes `source` to its end, or until nobody reads. Never rejects: a failure is its readers'. */
  async take(source: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const bytes of source) {
        if (bytes.length === 0) continue;
        await this.#append(bytes);
        if (this.#readers.size === 0) throw new Error('nobody reads any more');
      }
      this.#state = 'ended';
    } catch (error) {
      this.#state = 'failed';
      this.#failure = error;
    }
    this.#grown.ring();
    await this.#closeUnused();
  }

  /** Nobody will open it any more: what it holds goes when the last reader does. */
  release(): void {
    this.#released = true;
    void this.#closeUnused();
  }

  /** @internal For its readers. */
  async next(reader: SharedReader): Promise<Uint8Array | undefined> {
    for (;;) {
      if (reader.gone) return undefined;
      if (reader.position < this.#endBytes) {
        const bytes = this.#inMemory(reader.position) ?? (await this.#inSpool(reader.position));
        reader.position += bytes.length;
        this.#advanced.ring();
        return bytes;
      }
      if (this.#state === 'failed') throw this.#failure;
      if (this.#state === 'ended') return undefined;
      await this.#grown.wait();
    }
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#chunks.push({ start: this.#endBytes, bytes });
    this.#endBytes += bytes.length;
    this.#grown.ring();
    const { memoryBytes, openSpool, wanted } = this.#options;
    if (this.#spool === undefined && !this.#direct && this.#endBytes > memoryBytes) {
      if (wanted || this.#readers.size > 1) this.#spool = await openSpool();
      this.#direct = this.#spool === undefined;
    }
    if (this.#spool !== undefined && !this.#direct) await this.#fillSpool(this.#spool);
    if (this.#direct) await this.#keepPace(windowBytes);
    this.#trim();
  }

  async #fillSpool(spool: Spool): Promise<void> {
    const unspooled = this.#chunks.filter(({ start }) => start >= this.#spooledBytes);
    for (const { start, bytes } of unspooled) {
      // What is written over, everybody has read.
      await this.#keepPace(spool.sizeBytes - bytes.length, start);
      if (this.#readers.size === 0) return;
      try {
        await spool.write(bytes, start);
      } catch {
        // What is in it can still be read. The rest stays in memory until all have it.
        this.#direct = true;
        return;
      }
      this.#spooledBytes = start + bytes.length;
    }
  }

  /** Waits until nobody who reads is more than `bytes` behind. */
  async #keepPace(bytes: number, end = this.#endBytes): Promise<void> {
    while (this.#readers.size > 0 && end - this.#slowest() > bytes) {
      this.#trim();
      await this.#advanced.wait();
    }
  }

  #slowest(): number {
    let slowest = this.#endBytes;
    for (const { position } of this.#readers) slowest = Math.min(slowest, position);
    return slowest;
  }

  /** Lets go of what everybody has read, where the slowest sets the pace, and of what is in the spool but for its end. */
  #trim(): void {
    const spooled = Math.min(this.#spooledBytes, this.#endBytes - tailBytes);
    const keepFrom = this.#direct ? Math.max(this.#slowest(), spooled) : spooled;
    let drop = 0;
    for (const { start, bytes } of this.#chunks) {
      if (start + bytes.length > keepFrom) break;
      drop += 1;
    }
    if (drop > 0) this.#chunks.splice(0, drop);
  }

  #inMemory(position: number): Uint8Array | undefined {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const chunk = this.#chunks[middle];
      if (chunk === undefined) return undefined;
      if (position < chunk.start) high = middle - 1;
      else if (position >= chunk.start + chunk.bytes.length) low = middle + 1;
      else
        return position === chunk.start
          ? chunk.bytes
          : chunk.bytes.subarray(position - chunk.start);
    }
    return undefined;
  }

  async #inSpool(position: number): Promise<Uint8Array> {
    const spool = this.#spool;
    if (spool === undefined) throw new Error('a shared output lost what a reader has not read');
    this.#reading += 1;
    try {
      return await spool.read(position, Math.min(pieceBytes, this.#spooledBytes - position));
    } finally {
      this.#reading -= 1;
      await this.#closeUnused();
    }
  }

  /** The spool goes when all is written, nobody reads and nobody will. */
  async #closeUnused(): Promise<void> {
    const spool = this.#spool;
    if (spool === undefined || this.#state === 'running') return;
    if (!this.#released || this.#readers.size > 0 || this.#reading > 0) return;
    this.#spool = undefined;
    this.#spooledBytes = 0;
    this.#chunks = [];
    await spool.close().catch(() => undefined);
  }
}

/** One who reads a shared output from its beginning. */
export class SharedReader implements AsyncIterable<Uint8Array> {
  /** Bytes read so far. */
  position = 0;
  /** It has left. */
  gone = false;
  readonly #output: SharedOutput;
  readonly #onLeave: () => void;

  constructor(output: SharedOutput, onLeave: () => void) {
    this.#output = output;
    this.#onLeave = onLeave;
  }

  /** Reads no more. Idempotent. */
  leave(): void {
    if (this.gone) return;
    this.gone = true;
    this.#onLeave();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const bytes = await this.#output.next(this);
        if (bytes === undefined) return;
        yield bytes;
      }
    } finally {
      this.leave();
    }
  }
}
