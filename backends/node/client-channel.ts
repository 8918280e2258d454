import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import {
  type ChannelKeys,
  fits,
  maxChannelCalls,
  maxUnsentBytes,
  type Message,
  MessageReader,
  MessageWriter,
} from './channel-wire.js';
import { garbled, type TypedPayload } from './frames.js';
import { decodeError } from './wire-error.js';

export interface ClientChannelOptions {
  readonly socket: Duplex & Pick<Socket, 'setTimeout' | 'setNoDelay'>;
  /** What came with the answer that opened the channel. */
  readonly head: Buffer;
  readonly keys: ChannelKeys | undefined;
  /** How long the node may say nothing while something is awaited of it. */
  readonly silenceMs: number;
  readonly silent: () => QuorateError;
  /** The node broke the rules of the wire, and the channel was ended. */
  readonly misled: (error: QuorateError) => void;
}

export interface ChannelCallOptions {
  /** The call's name, behind the repository's id where it has one. */
  readonly target: string;
  readonly args: Uint8Array;
  readonly data?: Uint8Array | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The call is given up then, as by its signal; seen to some seconds later. */
  readonly timeoutMs: number;
  readonly onFrame?: ((payload: Buffer) => void) | undefined;
}

/** Not answered over the channel, and not known to have begun: to be made as a request. */
export class NotAnswered extends Error {}

interface Waiting {
  readonly options: ChannelCallOptions;
  readonly sinceMs: number;
  readonly resolve: (result: Buffer) => void;
  readonly reject: (error: Error) => void;
  readonly giveUp: () => void;
  /** The node said that it works on it. */
  begun: boolean;
}

/** The caller's end of a channel. */
export class ClientChannel {
  readonly #options: ClientChannelOptions;
  readonly #writer: MessageWriter;
  readonly #reader: MessageReader;
  /** In the order in which they began, with those that were given up: the node answers these, too. */
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;
  #over = false;
  #retired = false;
  #heardMs = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ClientChannelOptions) {
    const { socket, head, keys } = options;
    this.#options = options;
    this.#writer = new MessageWriter(keys?.toNode);
    this.#reader = new MessageReader(keys?.toCaller, (message) => this.#take(message));
    socket.setTimeout(0);
    socket.setNoDelay(true);
    const broken = (): void => this.#end();
    socket.on('error', broken).on('end', broken).on('close', broken);
    socket.on('data', (bytes: Buffer) => this.#hear(bytes));
    if (head.length > 0) this.#hear(head);
  }

  /** Takes calls. */
  get open(): boolean {
    return !this.#over && !this.#retired;
  }

  /** False when a call of such a size has to be a request. A sign of life need not ask. */
  takes(sizeBytes: number): boolean {
    return (
      this.open &&
      this.#waiting.size < maxChannelCalls - 1 &&
      this.#options.socket.writableLength < maxUnsentBytes &&
      fits(framesOfCall, sizeBytes)
    );
  }

  /**
   * The result of a call. Throws `NotAnswered` when the channel broke before the node said anything of the call, or its
   * answer is too long.
   */
  call(options: ChannelCallOptions): Promise<Buffer> {
    const { target, args, data, signal } = options;
    if (!this.open) return Promise.reject(new NotAnswered('the channel is closed'));
    return new Promise((resolve, reject) => {
      const number = (this.#last += 1);
      const sinceMs = performance.now();
      // The node's silence counts from when something is expected of it.
      if (this.#waiting.size === 0) this.#heardMs = sinceMs;
      const giveUp = (): void => this.#giveUp(number);
      this.#waiting.set(number, { options, sinceMs, resolve, reject, giveUp, begun: false });
      signal?.addEventListener('abort', giveUp);
      const frames: TypedPayload[] = [
        ['text', Buffer.from(target, 'latin1')],
        ['json', args],
      ];
      if (data !== undefined) frames.push(['data', data]);
      this.#options.socket.write(this.#writer.message(number, frames));
      this.#timer ??= setTimeout(() => this.#look(), this.#options.silenceMs);
    });
  }

  /** Ends when the calls that run are over. */
  retire(): void {
    this.#retired = true;
    if (this.#waiting.size === 0) this.#end();
  }

  /** What runs fails with this. */
  close(error: QuorateError): void {
    this.#end(error);
  }

  #hear(bytes: Buffer): void {
    this.#heardMs = performance.now();
    try {
      this.#reader.read(bytes);
    } catch (error) {
      if (this.#over) return;
      this.#end();
      this.#options.misled(asQuorateError(error));
    }
  }

  #take({ number, frames }: Message): void {
    if (this.#over) return;
    const waiting = this.#waiting.get(number);
    if (waiting === undefined) throw garbled();
    const last = frames.at(-1);
    if (last === undefined) {
      waiting.begun = true;
      return;
    }
    this.#waiting.delete(number);
    waiting.options.signal?.removeEventListener('abort', waiting.giveUp);
    if (this.#retired && this.#waiting.size === 0) this.#end();
    if (last.type === 'end') this.#answer(waiting, frames.slice(0, -1), last.payload);
    else if (last.type === 'error') waiting.reject(decodeError(last.payload));
    else if (last.type === 'mark') waiting.reject(new NotAnswered('the answer is long'));
    else {
      waiting.reject(garbled());
      throw garbled();
    }
  }

  #answer(waiting: Waiting, before: Message['frames'], result: Buffer): void {
    try {
      for (const { type, payload } of before) {
        if (type === 'json') waiting.options.onFrame?.(payload);
      }
      waiting.resolve(result);
    } catch (error) {
      waiting.reject(asQuorateError(error));
    }
  }

  #giveUp(number: number): void {
    const waiting = this.#waiting.get(number);
    if (waiting === undefined) return;
    waiting.options.signal?.removeEventListener('abort', waiting.giveUp);
    waiting.reject(new QuorateError('cancelled', 'the caller gave up'));
    this.#options.socket.write(this.#writer.message(number, []));
  }

  /**
   * As in `FrameReader`: a process that was busy itself looks at what came before it judges. The timer is not set anew
   * for each call, so it may come early.
   */
  #look(): void {
    this.#timer = undefined;
    if (this.#over || this.#waiting.size === 0) return;
    const { silenceMs } = this.#options;
    const heardMs = this.#heardMs;
    const nowMs = performance.now();
    for (const { options, sinceMs, giveUp } of this.#waiting.values()) {
      if (options.signal === undefined && nowMs - sinceMs > options.timeoutMs) giveUp();
    }
    const leftMs = heardMs + silenceMs - nowMs;
    if (leftMs > 0) {
      this.#timer = setTimeout(() => this.#look(), Math.ceil(leftMs));
      return;
    }
    setImmediate(() => {
      setImmediate(() => {
        if (this.#over) return;
        if (this.#heardMs === heardMs && this.#waiting.size > 0) this.#end(this.#options.silent());
        else this.#timer ??= setTimeout(() => this.#look(), silenceMs);
      });
    });
  }

  /** Without an error: the connection broke. */
  #end(error?: QuorateError): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#options.socket.destroy();
    for (const { options, giveUp, begun, reject } of this.#waiting.values()) {
      options.signal?.removeEventListener('abort', giveUp);
      if (error !== undefined) reject(error);
      else if (begun) reject(brokenOff());
      else reject(new NotAnswered('the channel broke'));
    }
    this.#waiting.clear();
  }
}

const framesOfCall = 3;

function brokenOff(): QuorateError {
  return new QuorateError('unavailable', 'the answer of a storage node broke off');
}
