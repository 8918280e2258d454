import type { Readable } from 'node:stream';
import { QuorateError } from '../../backends/contract/errors.js';
import { cancelledBy } from './service-error.js';

/**
 * The client's bytes, pulled one chunk at a time. Unlike a stream's own iterator it never destroys the stream when it
 * is left (the listener still has to answer over that connection), keeps no listener on it between pulls (so that the
 * listener can drain it), and can be left while a pull waits.
 */
export class ClientInput implements AsyncIterable<Uint8Array> {
  readonly #stream: Readable;
  readonly #signal: AbortSignal;
  #abandoned = false;
  #wake: (() => void) | undefined;

  constructor(stream: Readable, signal: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
  }

  /** True when no byte is here to be read at once. */
  get idle(): boolean {
    return this.#stream.readableLength === 0;
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
