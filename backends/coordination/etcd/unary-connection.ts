import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import {
  type FrameHead,
  flag,
  frame,
  frameHeadBytes,
  frameType,
  readFrameHead,
  setting,
  windowUpdate,
  withoutPadding,
} from './frames.js';
import { HeaderReader } from './header-block.js';
import { connectTo, type MemberPlace } from './member-socket.js';
import { failure, RequestNotTaken, statusCode, verdictOf } from './grpc-status.js';

export interface ConnectionOptions extends MemberPlace {
  /** No further calls can be made; those that were made may go on. Called once. */
  readonly onLeaving: () => void;
}

export interface UnaryCall {
  /** Of the request, in wire form. */
  readonly headers: Uint8Array;
  readonly message: Uint8Array;
  readonly timeoutMs: number;
  /** When it ends without a sign of life of the member, the connection is given up. */
  readonly isLongest: boolean;
}

interface Stream {
  readonly call: UnaryCall;
  readonly settle: (answer: Buffer) => void;
  readonly fail: (error: Error) => void;
  timer?: NodeJS.Timeout;
  /** 0 while it waits for others to end. */
  id: number;
  /** Of the request's body. */
  unsent: Buffer;
  /** Bytes that the member takes of it now. */
  window: number;
  /** Count of what had come on the connection when it was sent. */
  heardBefore: number;
  status: string;
  readonly parts: Buffer[];
  answerBytes: number;
  ended: boolean;
}

const openPatienceMs = 3_000;
const defaultWindow = 65_535;
const largestWindow = 2 ** 31 - 1;
const maxFrameBytes = 16_384;
const messagePrefixBytes = 5;
/** Pages of ranges and transactions' reads are far below this; a bound against a mistake. */
const maxAnswerBytes = 256 * 1024 * 1024;
/** Of header blocks; etcd's have some hundred bytes. */
const maxHeaderBytes = 64 * 1024;
/** Ids of streams have 31 bits, and those of clients are odd: after a billion calls comes another connection. */
const lastId = 2 ** 31 - 3;

const settingHeaderTableSize = 1;
const settingEnablePush = 2;
const settingMaxStreams = 3;
const settingInitialWindow = 4;
const codeCancel = 8;
const codeRefusedStream = 7;

/**
 * One connection to a member of etcd, for calls of one request and one answer: gRPC over HTTP/2 (RFC 9113, and
 * `PROTOCOL-HTTP2.md` of gRPC). Node's own HTTP/2 makes each call a stream object with its events, and grpc-js puts ten
 * layers of calls on it; a request here is some frames in one write with those of the same turn of the main loop, and
 * costs a tenth.
 */
export class UnaryConnection {
  /** Whether it came to be. Never rejects. */
  readonly opened: Promise<boolean>;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #headers = new HeaderReader();
  readonly #streams = new Map<number, Stream>();
  /** Calls beyond what the member takes at once. */
  readonly #queue: Stream[] = [];
  /** With a body that is not sent yet, the first first. */
  readonly #sending: Stream[] = [];
  #state: 'opening' | 'usable' | 'leaving' | 'ended' = 'opening';
  #tellOpened: (opened: boolean) => void = () => undefined;
  readonly #openTimer: NodeJS.Timeout;
  #outgoing: Buffer[] = [];
  #rest: Buffer | undefined;
  #block: { readonly id: number; readonly ends: boolean; readonly parts: Buffer[] } | undefined;
  #nextId = 1;
  #window = defaultWindow;
  #initialWindow = defaultWindow;
  #maxStreams = Number.POSITIVE_INFINITY;
  #consumed = 0;
  #heard = 0;
  #reason = 'the connection was lost';

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.opened = new Promise((resolve) => {
      this.#tellOpened = resolve;
    });
    this.#socket = connectTo(options);
    this.#socket.setNoDelay(true);
    this.#socket.on(options.tls === undefined ? 'connect' : 'secureConnect', () => this.#greet());
    this.#socket.on('data', (chunk: Buffer) => this.#hear(chunk));
    this.#socket.on('error', ({ message }) => {
      this.#reason = message;
    });
    this.#socket.on('close', () => this.#end());
    this.#openTimer = setTimeout(() => this.#break('no connection in time'), openPatienceMs);
  }

  get usable(): boolean {
    return this.#state === 'usable';
  }

  /** Only when it is usable. Fails as etcd3 does, or with `RequestNotTaken`. */
  call(call: UnaryCall): Promise<Buffer> {
    return new Promise((settle, fail) => {
      const stream: Stream = {
        call,
        settle,
        fail,
        id: 0,
        unsent: withPrefix(call.message),
        window: 0,
        heardBefore: this.#heard,
        status: '',
        parts: [],
        answerBytes: 0,
        ended: false,
      };
      // What has come while the main loop was busy is looked at first.
      stream.timer = setTimeout(() => setImmediate(() => this.#late(stream)), call.timeoutMs);
      if (this.#streams.size === 0) this.#socket.ref();
      if (this.#streams.size < this.#maxStreams) this.#begin(stream);
      else this.#queue.push(stream);
    });
  }

  /** Takes no further calls, and closes when those that there are have ended. */
  leave(): void {
    if (this.#state === 'opening') this.#break('closed');
    if (this.#state !== 'usable') return;
    this.#state = 'leaving';
    this.#options.onLeaving();
    for (const stream of this.#queue.splice(0)) {
      this.#settle(stream, new RequestNotTaken('the connection is left'));
    }
    this.#closeIfDone();
  }

  #greet(): void {
    if (this.#socket instanceof TLSSocket && this.#socket.alpnProtocol !== 'h2') {
      this.#break('no HTTP/2 is spoken there');
      return;
    }
    const settings = Buffer.concat([
      setting(settingHeaderTableSize, 0),
      setting(settingEnablePush, 0),
      setting(settingInitialWindow, largestWindow),
    ]);
    this.#send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'));
    this.#send(frame(frameType.settings, 0, 0, settings));
    this.#send(windowUpdate(largestWindow - defaultWindow));
  }

  #begin(stream: Stream): void {
    stream.id = this.#nextId;
    this.#nextId += 2;
    stream.window = this.#initialWindow;
    stream.heardBefore = this.#heard;
    this.#streams.set(stream.id, stream);
    this.#send(frame(frameType.headers, flag.endHeaders, stream.id, stream.call.headers));
    this.#sending.push(stream);
    this.#sendBodies();
    if (this.#nextId > lastId) this.leave();
  }

  /** As much as the member takes now. */
  #sendBodies(): void {
    for (let index = 0; index < this.#sending.length;) {
      const stream = this.#sending[index];
      if (stream === undefined) return;
      while (stream.unsent.length > 0) {
        const size = Math.min(stream.unsent.length, stream.window, this.#window, maxFrameBytes);
        if (size <= 0) break;
        const ends = size === stream.unsent.length ? flag.endStream : 0;
        this.#send(frame(frameType.data, ends, stream.id, stream.unsent.subarray(0, size)));
        stream.unsent = stream.unsent.subarray(size);
        stream.window -= size;
        this.#window -= size;
      }
      if (stream.unsent.length === 0) this.#sending.splice(index, 1);
      else index += 1;
    }
  }

  /** All that is sent in one turn goes out at once. */
  #send(bytes: Buffer): void {
    this.#outgoing.push(bytes);
    if (this.#outgoing.length > 1) return;
    process.nextTick(() => this.#flush());
  }

  #flush(): void {
    const [only, ...more] = this.#outgoing;
    this.#outgoing = [];
    if (this.#state === 'ended' || only === undefined) return;
    this.#socket.write(more.length === 0 ? only : Buffer.concat([only, ...more]));
  }

  #hear(chunk: Buffer): void {
    this.#heard += 1;
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = undefined;
    let at = 0;
    try {
      for (;;) {
        const head = readFrameHead(bytes, at);
        if (head === undefined) break;
        if (head.size > maxFrameBytes) throw new Error('a frame that is too large');
        const end = at + frameHeadBytes + head.size;
        if (end > bytes.length) break;
        this.#take(head, bytes.subarray(at + frameHeadBytes, end));
        at = end;
      }
    } catch (error) {
      this.#break(`no sense in what it says: ${error instanceof Error ? error.message : ''}`);
      return;
    }
    if (at < bytes.length) this.#rest = bytes.subarray(at);
  }

  #take(head: FrameHead, payload: Buffer): void {
    if (this.#state === 'opening' && head.type !== frameType.settings) {
      throw new Error('no greeting');
    }
    if (this.#block !== undefined && head.type !== frameType.continuation) {
      throw new Error('headers that are cut');
    }
    switch (head.type) {
      case frameType.data:
        this.#takeData(head, payload);
        return;
      case frameType.headers:
        this.#block = { id: head.id, ends: (head.flags & flag.endStream) !== 0, parts: [] };
        this.#takeBlock(head, withoutPadding(head, payload));
        return;
      case frameType.continuation:
        this.#takeBlock(head, payload);
        return;
      case frameType.reset:
        this.#takeReset(head.id, payload.readUInt32BE(0));
        return;
      case frameType.settings:
        if ((head.flags & flag.ack) === 0) this.#takeSettings(payload);
        return;
      case frameType.ping:
        if ((head.flags & flag.ack) === 0) this.#send(frame(frameType.ping, flag.ack, 0, payload));
        return;
      case frameType.goAway:
        this.#takeGoAway(payload.readUInt32BE(0) % 2 ** 31);
        return;
      case frameType.windowUpdate:
        this.#takeWindow(head.id, payload.readUInt32BE(0) % 2 ** 31);
        return;
      default:
      // Frames of unknown types are to be ignored.
    }
  }

  #takeData(head: FrameHead, payload: Buffer): void {
    this.#consumed += payload.length;
    if (this.#consumed >= largestWindow / 4) {
      this.#send(windowUpdate(this.#consumed));
      this.#consumed = 0;
    }
    const stream = this.#streams.get(head.id);
    if (stream === undefined) return;
    const data = withoutPadding(head, payload);
    stream.parts.push(data);
    stream.answerBytes += data.length;
    if (stream.answerBytes > maxAnswerBytes) {
      this.#reset(stream, failure(statusCode.resourceExhausted, 'the answer is too large'));
    } else if ((head.flags & flag.endStream) !== 0) {
      this.#settle(stream, failure(statusCode.unknown, 'an answer without a status'));
    }
  }

  #takeBlock(head: FrameHead, payload: Buffer): void {
    const block = this.#block;
    if (block?.id !== head.id) throw new Error('a continuation of nothing');
    // Shares its memory with what is read; one frame is nearly always all.
    block.parts.push(payload);
    const size = block.parts.reduce((sum, part) => sum + part.length, 0);
    if (size > maxHeaderBytes) throw new Error('headers that are too large');
    if ((head.flags & flag.endHeaders) === 0) return;
    this.#block = undefined;
    const [only, ...more] = block.parts;
    const headers = this.#headers.read(
      more.length === 0 && only !== undefined ? only : Buffer.concat(block.parts),
    );
    const stream = this.#streams.get(block.id);
    if (stream === undefined) return;
    stream.status = headers.get(':status') ?? stream.status;
    if (block.ends) this.#settle(stream, verdictOf(stream.status, headers));
  }

  #takeReset(id: number, code: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    this.#settle(
      stream,
      code === codeRefusedStream
        ? new RequestNotTaken('the member refused the stream')
        : failure(statusCode.unavailable, `the member gave the call up (${code})`),
    );
  }

  #takeSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      switch (payload.readUInt16BE(at)) {
        case settingMaxStreams:
          this.#maxStreams = value;
          break;
        case settingInitialWindow:
          for (const stream of this.#streams.values()) stream.window += value - this.#initialWindow;
          this.#initialWindow = value;
          break;
        default:
        // Larger frames than the least that all take are not sent, and no dynamic table is used.
      }
    }
    this.#send(frame(frameType.settings, flag.ack, 0, Buffer.alloc(0)));
    this.#sendBodies();
    this.#beginQueued();
    if (this.#state !== 'opening') return;
    this.#state = 'usable';
    clearTimeout(this.#openTimer);
    // An idle connection does not keep the process.
    if (this.#streams.size === 0) this.#socket.unref();
    this.#tellOpened(true);
  }

  /** Later streams were not looked at, and earlier ones are answered. */
  #takeGoAway(last: number): void {
    this.leave();
    for (const stream of this.#streams.values()) {
      if (stream.id > last) this.#settle(stream, new RequestNotTaken('the member is stopping'));
    }
  }

  #takeWindow(id: number, more: number): void {
    if (id === 0) this.#window += more;
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.window += more;
    this.#sendBodies();
  }

  #late(stream: Stream): void {
    if (stream.ended) return;
    if (stream.id === 0) {
      this.#queue.splice(this.#queue.indexOf(stream), 1);
      this.#settle(stream, new RequestNotTaken('the member takes no more requests at once'));
      return;
    }
    const isDead = stream.call.isLongest && stream.heardBefore === this.#heard;
    this.#reset(stream, failure(statusCode.deadlineExceeded, 'no answer in time'));
    if (isDead) this.#break('the member says nothing');
  }

  #reset(stream: Stream, error: Error): void {
    const code = Buffer.alloc(4);
    code.writeUInt32BE(codeCancel);
    this.#send(frame(frameType.reset, 0, stream.id, code));
    this.#settle(stream, error);
  }

  /** Ends a call, with what came of its answer or with an error. */
  #settle(stream: Stream, error: Error | undefined): void {
    clearTimeout(stream.timer);
    stream.ended = true;
    this.#streams.delete(stream.id);
    if (stream.unsent.length > 0) {
      const index = this.#sending.indexOf(stream);
      if (index !== -1) this.#sending.splice(index, 1);
    }
    if (error !== undefined) stream.fail(error);
    else settleWith(stream);
    this.#beginQueued();
    if (this.#streams.size > 0 || this.#queue.length > 0) return;
    this.#socket.unref();
    this.#closeIfDone();
  }

  #beginQueued(): void {
    while (this.#streams.size < this.#maxStreams && this.#state === 'usable') {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#begin(next);
    }
  }

  #closeIfDone(): void {
    if (this.#state !== 'leaving' || this.#streams.size > 0) return;
    this.#send(frame(frameType.goAway, 0, 0, Buffer.alloc(8)));
    this.#flush();
    this.#socket.destroySoon();
  }

  #break(reason: string): void {
    this.#reason = reason;
    this.#socket.destroy();
    this.#end();
  }

  #end(): void {
    if (this.#state === 'ended') return;
    const isNews = this.#state !== 'leaving';
    this.#state = 'ended';
    clearTimeout(this.#openTimer);
    this.#tellOpened(false);
    if (isNews) this.#options.onLeaving();
    for (const stream of this.#queue.splice(0)) {
      this.#settle(stream, new RequestNotTaken(this.#reason));
    }
    for (const stream of this.#streams.values()) {
      this.#settle(stream, failure(statusCode.unavailable, this.#reason));
    }
  }
}

/** A message as gRPC sends it: not compressed, and its length before it. */
function withPrefix(message: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(messagePrefixBytes + message.length);
  bytes[0] = 0;
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, messagePrefixBytes);
  return bytes;
}

function settleWith({ parts, settle, fail }: Stream): void {
  const [only, ...more] = parts;
  const bytes = only !== undefined && more.length === 0 ? only : Buffer.concat(parts);
  const isWhole =
    bytes.length >= messagePrefixBytes &&
    bytes[0] === 0 &&
    bytes.readUInt32BE(1) === bytes.length - messagePrefixBytes;
  if (isWhole) settle(bytes.subarray(messagePrefixBytes));
  else fail(failure(statusCode.internal, 'an answer that is no message'));
}
