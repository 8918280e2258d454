import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { failure, RequestNotTaken, statusCode, verdictOf } from './grpc-status.js';
import { connectTo, type MemberPlace } from './member-socket.js';

export interface ConnectionOptions extends MemberPlace {
  /** No further calls can be made; those that were made may go on. Called once. */
  readonly onLeaving: () => void;
}

export interface UnaryCall {
  readonly headers: OutgoingHttpHeaders;
  readonly message: Uint8Array;
  readonly timeoutMs: number;
  /** When it ends without a sign of life of the member, the connection is given up. */
  readonly isLongest: boolean;
}

interface Answer {
  status: number | undefined;
  /** The last headers: those that have the verdict. */
  headers: IncomingHttpHeaders;
  readonly parts: Buffer[];
  bytes: number;
  ended?: true;
}

const openPatienceMs = 3_000;
const largestWindow = 2 ** 31 - 1;
const messagePrefixBytes = 5;
/** Pages of ranges and transactions' reads are far below this; a bound against a mistake. */
const maxAnswerBytes = 256 * 1024 * 1024;
/** Of answers that have come and were not read, in MB: as much as `maxAnswerBytes`, and some more. */
const maxSessionMemory = 512;

/**
 * One connection to a member of etcd, for calls of one request and one answer: gRPC's `PROTOCOL-HTTP2.md`, over Node's
 * HTTP/2.
 */
export class UnaryConnection {
  /** Whether it came to be. Never rejects. */
  readonly opened: Promise<boolean>;
  readonly #socket: Socket;
  readonly #session: ClientHttp2Session;
  readonly #onLeaving: () => void;
  readonly #openTimer: NodeJS.Timeout;
  #state: 'opening' | 'usable' | 'leaving' | 'ended' = 'opening';
  #tellOpened: (opened: boolean) => void = () => undefined;
  #calls = 0;
  /** With which code the member left. Node gives it to all streams that end with the connection. */
  #farewell: number = constants.NGHTTP2_NO_ERROR;
  #reason = 'the connection was lost';

  constructor(options: ConnectionOptions) {
    this.#onLeaving = options.onLeaving;
    this.opened = new Promise((resolve) => {
      this.#tellOpened = resolve;
    });
    const socket = connectTo(options);
    this.#socket = socket;
    const scheme = options.tls === undefined ? 'http' : 'https';
    this.#session = connect(`${scheme}://${options.endpoint}`, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: largestWindow },
      maxSessionMemory,
    });
    this.#session
      .on('connect', () => this.#greet())
      .once('remoteSettings', () => this.#open())
      .on('goaway', (code) => {
        this.#farewell = code;
        this.leave();
      })
      .on('error', ({ message }) => {
        this.#reason = message;
      })
      .on('close', () => this.#end());
    this.#openTimer = setTimeout(() => this.#break('no connection in time'), openPatienceMs);
  }

  get usable(): boolean {
    return this.#state === 'usable';
  }

  /** Only when it is usable. Fails as etcd3 does, or with `RequestNotTaken`. */
  call({ headers, message, timeoutMs, isLongest }: UnaryCall): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const stream = this.#request(headers);
      const heardBefore = this.#socket.bytesRead;
      const answer: Answer = { status: undefined, headers: {}, parts: [], bytes: 0 };
      const end = (error: Error | undefined): void => {
        if (answer.ended) return;
        answer.ended = true;
        clearTimeout(timer);
        this.#done();
        const problem = error ?? whatIsWrong(answer.parts);
        if (problem === undefined) resolve(bytesOf(answer.parts).subarray(messagePrefixBytes));
        else reject(problem);
      };
      // A stream may be long in closing, when the member takes no bytes.
      const giveUp = (code: number, words: string): void => {
        end(failure(code, words));
        stream.close(constants.NGHTTP2_CANCEL);
      };
      const late = (): void => {
        if (answer.ended) return;
        giveUp(statusCode.deadlineExceeded, 'no answer in time');
        const isDead = isLongest && heardBefore === this.#socket.bytesRead;
        if (isDead) this.#break('the member says nothing');
      };
      // What has come while the main loop was busy is looked at first.
      const timer = setTimeout(() => setImmediate(late), timeoutMs);
      this.#calls += 1;
      this.#session.ref();
      hear(stream, answer, giveUp);
      stream.once('close', () => end(this.#problem(stream, answer)));
      stream.end(withPrefix(message));
    });
  }

  /** Takes no further calls, and closes when those that there are have ended. */
  leave(): void {
    if (this.#state === 'opening') this.#break('closed');
    if (this.#state !== 'usable') return;
    this.#state = 'leaving';
    this.#onLeaving();
    this.#session.close();
  }

  #request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    try {
      return this.#session.request(headers);
    } catch (error) {
      // It was closed just now, or has no numbers for streams left.
      this.leave();
      throw new RequestNotTaken(error instanceof Error ? error.message : 'no stream');
    }
  }

  #greet(): void {
    if (this.#socket instanceof TLSSocket && this.#socket.alpnProtocol !== 'h2') {
      this.#break('no HTTP/2 is spoken there');
      return;
    }
    this.#session.setLocalWindowSize(largestWindow);
  }

  #open(): void {
    if (this.#state !== 'opening') return;
    this.#state = 'usable';
    clearTimeout(this.#openTimer);
    // An idle connection does not keep the process.
    this.#session.unref();
    this.#tellOpened(true);
  }

  #done(): void {
    this.#calls -= 1;
    if (this.#calls === 0 && this.#state === 'usable') this.#session.unref();
  }

  #problem(stream: ClientHttp2Stream, { status, headers }: Answer): Error | undefined {
    const { NGHTTP2_REFUSED_STREAM: refused } = constants;
    if (stream.rstCode === refused && this.#farewell !== refused) {
      return new RequestNotTaken('the member refused the stream');
    }
    if (headers['grpc-status'] === undefined) {
      if (this.#session.destroyed) return failure(statusCode.unavailable, this.#reason);
      if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) {
        const words = `the member gave the call up (${stream.rstCode})`;
        return failure(statusCode.unavailable, words);
      }
    }
    return verdictOf(status, headers);
  }

  #break(reason: string): void {
    this.#reason = reason;
    this.#session.destroy();
    this.#socket.destroy();
    this.#end();
  }

  #end(): void {
    if (this.#state === 'ended') return;
    const isNews = this.#state !== 'leaving';
    this.#state = 'ended';
    clearTimeout(this.#openTimer);
    this.#tellOpened(false);
    if (isNews) this.#onLeaving();
  }
}

function hear(
  stream: ClientHttp2Stream,
  answer: Answer,
  giveUp: (code: number, words: string) => void,
): void {
  stream
    .on('response', (headers) => {
      answer.status = headers[':status'];
      answer.headers = headers;
    })
    .on('trailers', (headers) => {
      answer.headers = headers;
    })
    .on('data', (chunk: Buffer) => {
      if (answer.ended) return;
      answer.parts.push(chunk);
      answer.bytes += chunk.length;
      if (answer.bytes > maxAnswerBytes) {
        giveUp(statusCode.resourceExhausted, 'the answer is too large');
      }
    })
    // What it means is told by how the stream was closed.
    .on('error', () => undefined);
}

/** A message as gRPC sends it: not compressed, and its length before it. */
function withPrefix(message: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(messagePrefixBytes + message.length);
  bytes[0] = 0;
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, messagePrefixBytes);
  return bytes;
}

function bytesOf(parts: readonly Buffer[]): Buffer {
  const [only, ...more] = parts;
  return only !== undefined && more.length === 0 ? only : Buffer.concat(parts);
}

/** With what came as an answer; undefined: nothing. */
function whatIsWrong(parts: readonly Buffer[]): Error | undefined {
  const bytes = bytesOf(parts);
  const isWhole =
    bytes.length >= messagePrefixBytes &&
    bytes[0] === 0 &&
    bytes.readUInt32BE(1) === bytes.length - messagePrefixBytes;
  return isWhole ? undefined : failure(statusCode.internal, 'an answer that is no message');
}
