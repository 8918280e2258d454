import { PassThrough } from 'node:stream';
import { orAborted, QuorateError } from '../contract/errors.js';

/**
 * A pack on its way in: counts its bytes, holds it to a limit, and can be left at any moment, also while the sender
 * is silent. `next` throws `resource-exhausted` past the limit and `cancelled` when the signal aborts or the source fails.
 */
export class PackSource {
  /** Bytes taken so far. */
  sizeBytes = 0;
  /** Objects that the pack's header declares; NaN until its 12 bytes are here. */
  declaredObjects = NaN;
  readonly #header = Buffer.alloc(12);
  readonly #iterator: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  readonly #signal: AbortSignal;
  readonly #buffered: Uint8Array[] = [];

  /** `maxBytes` 0: no limit. */
  constructor(pack: AsyncIterable<Uint8Array>, maxBytes: number, signal: AbortSignal) {
    this.#iterator = pack[Symbol.asyncIterator]();
    this.#maxBytes = maxBytes;
    this.#signal = signal;
  }

  /** The next bytes, or undefined at the end. */
  async next(): Promise<Uint8Array | undefined> {
    const again = this.#buffered.shift();
    if (again !== undefined) return again;
    let result: IteratorResult<Uint8Array>;
    try {
      result = await orAborted(this.#iterator.next(), this.#signal);
    } catch (error) {
      if (error instanceof QuorateError) throw error;
      throw new QuorateError('cancelled', 'the pack broke off', { cause: error });
    }
    if (result.done === true) return undefined;
    if (this.sizeBytes < 12) this.#noteHeader(result.value);
    this.sizeBytes += result.value.byteLength;
    if (this.#maxBytes > 0 && this.sizeBytes > this.#maxBytes) {
      throw new QuorateError(
        'resource-exhausted',
        `the pack is larger than the limit of ${this.#maxBytes} bytes (receive.maxInputSize)`,
        { details: { setting: 'receive.maxInputSize' } },
      );
    }
    return result.value;
  }

  #noteHeader(chunk: Uint8Array): void {
    this.#header.set(chunk.subarray(0, 12 - this.sizeBytes), this.sizeBytes);
    if (this.sizeBytes + chunk.byteLength >= 12)
      this.declaredObjects = this.#header.readUInt32BE(8);
  }

  /** Puts chunks back in front: `next` gives them again, uncounted. */
  unread(chunks: readonly Uint8Array[]): void {
    this.#buffered.unshift(...chunks);
  }

  /** Gives the source up. Does not wait for it: a silent sender would hold it. */
  stop(): void {
    this.#buffered.length = 0;
    // A generator that is waiting for bytes takes this call only after them; its end is the caller's business.
    const stopped = this.#iterator.return?.();
    stopped?.then(undefined, () => {});
  }
}

/** Feeds a source into a git's stdin, which may end before the source does. */
export class PackFeed {
  /** For `GitCommand.stdin`. */
  readonly stream = new PassThrough();
  /**
   * Resolves to true when the source ended and all of it went into the stream, to false when the stream was closed
   * while there was more. Rejects as `PackSource.next` does; the stream has ended early then, so that git does not wait.
   */
  readonly finished: Promise<boolean>;

  /** `took`: told of each piece that goes in; the one before it has been taken then. */
  constructor(source: PackSource, took: () => void) {
    // git going away shows as a closed stream; the error itself says no more.
    this.stream.on('error', () => {});
    this.finished = this.#pump(source, took);
    this.finished.catch(() => {});
  }

  async #pump(source: PackSource, took: () => void): Promise<boolean> {
    try {
      for (;;) {
        const chunk = await source.next();
        if (chunk === undefined) return true;
        if (chunk.byteLength === 0) continue;
        if (this.stream.destroyed) return false;
        took();
        if (!this.stream.write(chunk)) await this.#drained();
      }
    } finally {
      this.stream.end();
    }
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.stream.off('drain', done).off('close', done);
        resolve();
      };
      this.stream.on('drain', done).on('close', done);
      if (this.stream.destroyed) done();
    });
  }
}
