import type { Writable } from 'node:stream';
import { QuorateError } from '../../backends/contract/errors.js';
import { flushPkt, writeErrorPkt } from '../wire/pkt-line.js';
import { writeSideBand } from '../wire/side-band.js';
import { cancelledBy } from './service-error.js';

/**
 * How the client can be told that something went wrong, at this point of the conversation: an `ERR` packet, a packet
 * on side-band 3, or not at all (inside a packet, or inside a pack without side-bands).
 */
export type Voice = 'error-packet' | 'side-band' | 'none';

/** Longest single write: what a slow client makes the layers below copy and hold (a reference list is megabytes). */
const maxWriteBytes = 256 * 1024;

const done: Promise<void> = Promise.resolve();

/** What goes to the client: written with back-pressure, and aware of how an error could be told. */
export class ClientOutput {
  /** Kept by whoever is writing. */
  voice: Voice = 'error-packet';
  writtenBytes = 0;
  readonly #stream: Writable;
  readonly #signal: AbortSignal;

  constructor(stream: Writable, signal: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
    // A broken connection shows at the next write; the event itself must not end the process.
    stream.on('error', () => {});
  }

  /** True once the listener can no longer answer in its own form. */
  get started(): boolean {
    return this.writtenBytes > 0;
  }

  /** Resolves when more may be written. Throws `cancelled` when the client is gone. */
  write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    return bytes.length > maxWriteBytes ? this.#writeParts(bytes) : this.#writePart(bytes);
  }

  /**
   * As `write`, for the last that is written. Also when the signal has aborted (a time limit, say), as long as the client
   * may still read it: then nobody waits for that.
   */
  writeLast(bytes: Uint8Array): Promise<void> {
    if (!this.#signal.aborted || this.#stream.destroyed) return this.write(bytes);
    this.writtenBytes += bytes.length;
    this.#stream.write(bytes);
    return done;
  }

  async #writeParts(bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.length; from += maxWriteBytes) {
      await this.#writePart(bytes.subarray(from, from + maxWriteBytes));
    }
  }

  #writePart(bytes: Uint8Array): Promise<void> {
    if (this.#stream.destroyed || this.#signal.aborted) return Promise.reject(this.#gone());
    this.writtenBytes += bytes.length;
    return this.#stream.write(bytes) ? done : this.#drained();
  }

  /**
   * Writes and waits until the layers below have let go of `bytes`: then their memory may be used again. Throws
   * `cancelled` when the client is gone; the memory may still be in use then.
   */
  async writeThrough(bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.length; from += maxWriteBytes) {
      const part = bytes.subarray(from, from + maxWriteBytes);
      if (this.#stream.destroyed || this.#signal.aborted) throw this.#gone();
      this.writtenBytes += part.length;
      await this.#taken(part);
    }
  }

  /** Writes without waiting, unless more than `maxPendingBytes` wait already: then drops the bytes. */
  offer(data: Uint8Array, maxPendingBytes: number): void {
    const { destroyed, writableLength } = this.#stream;
    if (destroyed || this.#signal.aborted || writableLength + data.length > maxPendingBytes) return;
    this.writtenBytes += data.length;
    this.#stream.write(data);
  }

  /**
   * Tells the client why it gets no more, if it can still be told: also when the signal has aborted, since then its
   * reason (a time limit) is what is told. One packet, which nobody waits for.
   */
  tell(message: string): void {
    const packet =
      this.voice === 'error-packet'
        ? writeErrorPkt(message)
        : // git ends the line itself.
          Buffer.concat([writeSideBand(3, Buffer.from(message)), flushPkt]);
    if (this.voice !== 'none' && !this.#stream.destroyed) {
      this.writtenBytes += packet.length;
      this.#stream.write(packet);
    }
    this.voice = 'none';
  }

  #taken(part: Uint8Array): Promise<void> {
    const stream = this.#stream;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        stream.off('close', settle);
        this.#signal.removeEventListener('abort', settle);
        if (stream.destroyed || this.#signal.aborted) reject(this.#gone());
        else resolve();
      };
      stream.on('close', settle);
      this.#signal.addEventListener('abort', settle);
      stream.write(part, settle);
    });
  }

  #drained(): Promise<void> {
    const stream = this.#stream;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        stream.off('drain', settle).off('close', settle).off('error', settle);
        this.#signal.removeEventListener('abort', settle);
        if (stream.destroyed || this.#signal.aborted) reject(this.#gone());
        else resolve();
      };
      stream.on('drain', settle).on('close', settle).on('error', settle);
      this.#signal.addEventListener('abort', settle);
    });
  }

  #gone(): QuorateError {
    if (this.#signal.aborted) return cancelledBy(this.#signal);
    return new QuorateError('cancelled', 'the client is gone', { cause: this.#stream.errored });
  }
}
