import type { OutgoingHttpHeaders } from 'node:http';
import { Writable } from 'node:stream';
import { type HttpResponse, writeHead } from './http-message.js';

/** An answer that is complete below this size goes out in one write, with a Content-Length. */
const holdBytes = 64 * 1024;

/** Up to this size joining a body with its header is cheaper than handing the system two pieces. */
const textBytes = 16 * 1024;

/**
 * The body of a 200, as a stream for the service. Nothing is sent before the service wrote something, so that whatever
 * fails before can still become a status. First bytes are held for one turn of the event loop: an answer that is ready
 * at once is one segment with a length, a long one is chunked and never waits.
 */
export class GitReply extends Writable {
  sentBytes = 0;
  readonly #response: HttpResponse;
  /** The same, as a stream. */
  readonly #sink: Writable;
  readonly #headers: OutgoingHttpHeaders;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #flush: NodeJS.Immediate | undefined;
  #started = false;

  constructor(response: HttpResponse, headers: OutgoingHttpHeaders) {
    super({ highWaterMark: holdBytes });
    this.#response = response;
    this.#sink = response;
    this.#headers = headers;
    this.on('error', () => {});
  }

  /** True once bytes of the 200 are on their way: no other status can follow. */
  get started(): boolean {
    return this.#started;
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.sentBytes += chunk.length;
    if (this.#started) {
      this.#send(chunk, done);
      return;
    }
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes >= holdBytes) {
      this.#start(done);
      return;
    }
    this.#flush ??= setImmediate(() => this.#start(() => {}));
    done();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#cancelFlush();
    if (this.#started) {
      this.#sink.end(done);
      return;
    }
    this.#started = true;
    const body = this.#takeHeld();
    writeHead(this.#response, 200, { ...this.#headers, 'Content-Length': body.length });
    // As text, Node sends the header and the body in one piece; latin1 is the one encoding that keeps all bytes.
    if (body.length <= textBytes) this.#sink.end(body.toString('latin1'), 'latin1', done);
    else this.#sink.end(body, done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#cancelFlush();
    this.#held = [];
    done(error);
  }

  #start(done: (error?: Error | null) => void): void {
    this.#cancelFlush();
    this.#started = true;
    writeHead(this.#response, 200, this.#headers);
    this.#send(this.#takeHeld(), done);
  }

  #send(chunk: Buffer, done: (error?: Error | null) => void): void {
    // When the client leaves, `drain` never comes; the exchange destroys this stream then, and no answer is needed.
    // Large chunks are lent by writers that use their memory again: those are done when the socket has taken them.
    if (chunk.length >= holdBytes) this.#sink.write(chunk, done);
    else if (this.#sink.write(chunk)) done();
    else this.#sink.once('drain', done);
  }

  #takeHeld(): Buffer {
    const [only] = this.#held;
    const held = this.#held.length === 1 && only !== undefined ? only : Buffer.concat(this.#held);
    this.#held = [];
    return held;
  }

  #cancelFlush(): void {
    if (this.#flush !== undefined) clearImmediate(this.#flush);
    this.#flush = undefined;
  }
}
