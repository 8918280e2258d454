import type { Readable } from 'node:stream';
import { QuorateError } from '../../backends/contract/errors.js';
import { cancelledBy } from './service-error.js';

/** What a listener gives: `spent` says, where it can be known, that all was read and no more will come. */
export type ClientStream = Readable & { readonly spent?: boolean };

/**
 * The client's bytes, pulled one chunk at a time. Unlike a stream's own iterator it never destroys the stream when it
 * is left (the listener still has to answer over that connection), keeps no listener on it between pulls (so that the
 * listener can drain it), and can be left while a pull waits.
 */
export class ClientInput implements AsyncIterable<Uint8Array> {
  readonly #stream: ClientStream;
  readonly #signal: AbortSignal;
  #abandoned = false;
  #wake: (() => void) | undefined;

  constructor(stream: ClientStream, signal: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
  }

  /** True when no byte is here to be read at once. */
  get idle(): boolean {
    return this.#stream.readableLength === 0;
  }

  /** All was read, and no more will come: known without waiting for the stream to say so. */
  get spent(): boolean {
    return this.#stream.spent === true && !this.#signal.aborted && this.#stream.errored === null;
  }

  /** Why the stream failed, when it did: the listener's own reason (a limit, a bad encoding). */
  get failure(): Error | null {
    return this.#stream.errored;
  }

  /** Ends a pull that waits, and all later ones. The stream stays as it is. */
  abandon(): void {
    this.#abandoned = true;
    this.#wake?.();
  }

  /** Throws the stream's error, or `cancelled` when the client is gone or the signal aborts. */
  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const stream = this.#stream;
    for (;;) {
      if (this.#abandoned) return { done: true, value: undefined };
      if (this.#signal.aborted) throw cancelledBy(this.#signal);
      if (this.spent) return { done: true, value: undefined };
      const chunk: unknown = stream.read();
      if (chunk instanceof Uint8Array) return { done: false, value: chunk };
      if (stream.errored !== null) throw stream.errored;
      if (stream.readableEnded) return { done: true, value: undefined };
      if (stream.destroyed) throw new QuorateError('cancelled', 'the client is gone');
      await this.#changed();
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return { next: () => this.next() };
  }

  #changed(): Promise<void> {
    const stream = this.#stream;
    return new Promise((resolve) => {
      const done = (): void => {
        stream.off('readable', done).off('end', done).off('close', done).off('error', done);
        this.#signal.removeEventListener('abort', done);
        this.#wake = undefined;
        resolve();
      };
      stream.on('readable', done).on('end', done).on('close', done).on('error', done);
      this.#signal.addEventListener('abort', done);
      this.#wake = done;
    });
  }
}
