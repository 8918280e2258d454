import type { IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough, type Readable } from 'node:stream';
import { QuorateError } from '../contract/errors.js';
import { beatMs, type Frame, FrameReader, FrameWriter, wholeFrame } from './frames.js';
import { encodeMessage } from './messages.js';
import { encodeError } from './wire-error.js';

/** What a hook may be told on its stdin: a line for each ref of the largest push. */
const maxCollectedBytes = 64 * 1024 * 1024;
/** Progress that nobody takes is not kept. */
const maxUnsentProgressBytes = 64 * 1024;

/** A call that takes and answers little, as its operation sees it: a request, or one of a channel. */
export interface SmallCall {
  readonly repositoryId: string;
  /** Random id of the process that calls. */
  readonly client: string;
  /** Aborted when the caller is gone, or gave up. Made for those calls that look at it. */
  readonly signal: AbortSignal;
  /** A part of the answer, before the result. */
  send(message: object): Promise<void>;
  /** The data that came with the arguments. */
  collect(): Promise<Buffer>;
}

export interface ServerCallOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly repositoryId: string;
  readonly client: string;
  readonly headers: Readonly<Record<string, string>>;
  /** How long a caller may be silent that has more to say. */
  readonly silenceMs: number;
}

/**
 * One call as the node sees it. A short answer goes out whole; a long one begins after half a second, with beats from
 * then on, so that the caller can tell a node that works from one that is gone.
 */
export class ServerCall implements SmallCall {
  readonly repositoryId: string;
  readonly client: string;
  readonly #response: ServerResponse;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #reader: FrameReader;
  #isGone = false;
  #gone: AbortController | undefined;
  readonly #late: NodeJS.Timeout;
  #writer: FrameWriter | undefined;
  #input: PassThrough | undefined;

  constructor(options: ServerCallOptions) {
    const { request, response, silenceMs } = options;
    this.repositoryId = options.repositoryId;
    this.client = options.client;
    this.#headers = options.headers;
    this.#response = response;
    this.#reader = new FrameReader(request, {
      silenceMs,
      silent: () => new QuorateError('cancelled', 'the caller is silent'),
    });
    this.#late = setTimeout(() => this.begin(), beatMs);
    response.once('close', () => {
      clearTimeout(this.#late);
      this.#input?.destroy();
      this.#isGone = !response.writableFinished;
      if (this.#isGone) this.#gone?.abort();
    });
    response.on('error', () => undefined);
  }

  get signal(): AbortSignal {
    if (this.#gone === undefined) {
      this.#gone = new AbortController();
      if (this.#isGone) this.#gone.abort();
    }
    return this.#gone.signal;
  }

  async arguments(): Promise<Buffer> {
    const frame = await this.#reader.next();
    if (frame?.type === 'json') return frame.payload;
    throw new QuorateError('invalid-argument', 'a call begins with its arguments');
  }

  /** Sends the head of the answer: the caller of a stream waits for it before it sends data. */
  begin(): FrameWriter {
    clearTimeout(this.#late);
    if (this.#writer === undefined) {
      this.#response.writeHead(200, this.#headers);
      this.#response.flushHeaders();
      this.#writer = new FrameWriter(this.#response);
    }
    return this.#writer;
  }

  send(message: object): Promise<void> {
    return this.begin().write('json', encodeMessage(message));
  }

  data(bytes: Uint8Array): Promise<void> {
    return this.begin().write('data', bytes);
  }

  /** Words that count: the caller bounds them. */
  text(bytes: Uint8Array): void {
    // What cannot be written any more ends the call by itself.
    this.begin()
      .write('text', bytes)
      .catch(() => undefined);
  }

  /** Words that may be lost. */
  progress(bytes: Uint8Array): void {
    if (this.#response.writableLength < maxUnsentProgressBytes) this.text(bytes);
  }

  finish(result: object | undefined): void {
    this.#end('end', result === undefined ? undefined : encodeMessage(result));
  }

  fail(error: unknown): void {
    this.#end('error', encodeError(error));
  }

  /** The data up to the next mark. */
  async *input(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const frame = await this.#next();
      if (frame.type === 'mark') return;
      if (frame.type === 'data') yield frame.payload;
    }
  }

  /** The data up to the next mark, whole. */
  async collect(): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const part of this.input()) {
      sizeBytes += part.byteLength;
      if (sizeBytes > maxCollectedBytes) {
        throw new QuorateError('resource-exhausted', 'that is too much for one call');
      }
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  /** The data up to the next mark, as a stream; what comes behind is read to know that the caller lives. */
  inputStream(): Readable {
    const stream = new PassThrough();
    stream.on('error', () => undefined);
    this.#input = stream;
    void this.#pump(stream);
    return stream;
  }

  /** Nothing more is expected but signs of life. */
  watch(): void {
    this.#reader.drain().catch(() => undefined);
  }

  async #pump(stream: PassThrough): Promise<void> {
    try {
      for await (const bytes of this.input()) {
        if (!stream.destroyed && !stream.write(bytes)) await drainedOrClosed(stream);
      }
      stream.end();
      await this.#reader.drain();
    } catch (error) {
      stream.destroy(error instanceof Error ? error : undefined);
    }
  }

  async #next(): Promise<Frame> {
    const frame = await this.#reader.next();
    if (frame !== undefined) return frame;
    throw new QuorateError('cancelled', 'the caller stopped in the middle of its data');
  }

  #end(type: 'end' | 'error', payload: Buffer | undefined): void {
    clearTimeout(this.#late);
    this.#input?.destroy();
    this.#send(type, payload);
    // What was not asked for before the call was over, of a pack that is refused, is in the way of the next call.
    this.#reader.discard().catch(() => undefined);
  }

  #send(type: 'end' | 'error', payload: Buffer | undefined): void {
    if (this.#writer !== undefined) {
      this.#writer.end(type, payload);
      return;
    }
    if (this.#response.destroyed) return;
    const whole = wholeFrame(type, payload);
    this.#response.writeHead(200, { ...this.#headers, 'Content-Length': String(whole.length) });
    this.#response.end(whole);
  }
}

function drainedOrClosed(stream: PassThrough): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done).off('close', done);
      resolve();
    };
    stream.on('drain', done).on('close', done);
    if (stream.destroyed) done();
  });
}
