import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import {
  type ChannelKeys,
  fits,
  maxChannelCalls,
  maxMessageBytes,
  maxUnsentBytes,
  type Message,
  MessageReader,
  MessageWriter,
} from './channel-wire.js';
import { beatMs, garbled, type TypedPayload } from './frames.js';
import { encodeMessage } from './messages.js';
import type { SmallCall } from './server-call.js';
import { encodeError } from './wire-error.js';

export interface ServerChannelOptions {
  readonly socket: Duplex & Pick<Socket, 'setTimeout' | 'setNoDelay'>;
  readonly head: Buffer;
  readonly keys: ChannelKeys | undefined;
  /** Random id of the process that calls. */
  readonly client: string;
  /** How long the caller may be silent: it gives a sign of life every second. */
  readonly silenceMs: number;
  /** Runs a call, and answers it whatever happens. */
  readonly run: (call: ChannelCall, args: Buffer) => void;
  /** Why the channel was ended, when it was not the caller who did. */
  readonly ended: (error: QuorateError) => void;
}

/** The node's end of a channel. */
export class ServerChannel {
  readonly #options: ServerChannelOptions;
  readonly #writer: MessageWriter;
  readonly #reader: MessageReader;
  readonly #calls = new Map<number, ChannelCall>();
  readonly #silence: NodeJS.Timeout;
  #beats: NodeJS.Timeout | undefined;
  #last = 0;
  #heardMs = performance.now();
  #over = false;

  constructor(options: ServerChannelOptions) {
    const { keys, silenceMs } = options;
    this.#options = options;
    this.#writer = new MessageWriter(keys?.toCaller);
    this.#reader = new MessageReader(keys?.toNode, (message) => this.#take(message));
    this.#silence = setInterval(() => this.#look(), silenceMs / 4);
  }

  /** Takes calls from now on. */
  start(): void {
    const { socket, head } = this.#options;
    socket.setTimeout(0);
    socket.setNoDelay(true);
    const broken = (): void => this.#end();
    socket.on('error', broken).on('end', broken).on('close', broken);
    socket.on('data', (bytes: Buffer) => this.#hear(bytes));
    if (head.length > 0) this.#hear(head);
  }

  get client(): string {
    return this.#options.client;
  }

  /** Called once for each call. */
  answer(number: number, frames: readonly TypedPayload[]): void {
    this.#calls.delete(number);
    this.#send(number, frames);
  }

  #send(number: number, frames: readonly TypedPayload[]): void {
    if (this.#over) return;
    const { socket } = this.#options;
    socket.write(this.#writer.message(number, frames));
    if (socket.writableLength <= maxUnsentBytes) return;
    this.#end(new QuorateError('resource-exhausted', 'the caller does not take its answers'));
  }

  #hear(bytes: Buffer): void {
    this.#heardMs = performance.now();
    try {
      this.#reader.read(bytes);
    } catch (error) {
      this.#end(asQuorateError(error));
    }
  }

  #take({ number, frames }: Message): void {
    if (this.#over) return;
    if (frames.length === 0) {
      // It may have been answered meanwhile.
      this.#calls.get(number)?.giveUp();
      return;
    }
    const [name, args, data, ...more] = frames;
    const target = name?.type === 'text' ? callTarget.exec(name.payload.toString('latin1')) : null;
    const good =
      number > this.#last &&
      this.#calls.size < maxChannelCalls &&
      target !== null &&
      args?.type === 'json' &&
      (data === undefined || data.type === 'data') &&
      more.length === 0;
    if (!good) throw garbled();
    this.#last = number;
    const call = new ChannelCall(this, { number, target, data: data?.payload });
    this.#calls.set(number, call);
    this.#beats ??= setInterval(() => this.#beat(), beatMs);
    this.#options.run(call, args.payload);
  }

  /** Tells of each call that it is being worked on. */
  #beat(): void {
    for (const number of this.#calls.keys()) this.#send(number, []);
    if (this.#calls.size > 0) return;
    clearInterval(this.#beats);
    this.#beats = undefined;
  }

  /** As in `FrameReader`: who was busy looks at what came before it judges. */
  #look(): void {
    const heardMs = this.#heardMs;
    // Who waits for an answer need not say more.
    if (this.#calls.size > 0 || performance.now() - heardMs < this.#options.silenceMs) return;
    setImmediate(() => {
      setImmediate(() => {
        if (this.#heardMs === heardMs)
          this.#end(new QuorateError('cancelled', 'the caller is silent'));
      });
    });
  }

  #end(error?: QuorateError): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#silence);
    clearInterval(this.#beats);
    this.#options.socket.destroy();
    for (const call of this.#calls.values()) call.giveUp();
    this.#calls.clear();
    if (error !== undefined) this.#options.ended(error);
  }
}

const callTarget = /^(?:attend|([0-9a-f]{32})\/([A-Za-z]{1,32}))$/;

/** One call of a channel as the node sees it. Its answer is kept until it is whole. */
export class ChannelCall implements SmallCall {
  /** Empty for a call that has no repository. */
  readonly repositoryId: string;
  readonly name: string;
  readonly #channel: ServerChannel;
  readonly #number: number;
  readonly #data: Buffer;
  readonly #sent: TypedPayload[] = [];
  #sentBytes = 0;
  #isGone = false;
  #gone: AbortController | undefined;

  constructor(
    channel: ServerChannel,
    call: {
      readonly number: number;
      readonly target: RegExpExecArray;
      readonly data: Buffer | undefined;
    },
  ) {
    const [, repositoryId = '', name = 'attend'] = call.target;
    this.#channel = channel;
    this.#number = call.number;
    this.#data = call.data ?? empty;
    this.repositoryId = repositoryId;
    this.name = name;
  }

  get client(): string {
    return this.#channel.client;
  }

  get signal(): AbortSignal {
    if (this.#gone === undefined) {
      this.#gone = new AbortController();
      if (this.#isGone) this.#gone.abort();
    }
    return this.#gone.signal;
  }

  /** The caller wants no answer any more. */
  giveUp(): void {
    this.#isGone = true;
    this.#gone?.abort();
  }

  send(message: object): Promise<void> {
    // Of an answer that is too long only its size matters.
    if (this.#sentBytes <= maxMessageBytes) {
      const payload = encodeMessage(message);
      this.#sent.push(['json', payload]);
      this.#sentBytes += payload.length;
    }
    return Promise.resolve();
  }

  collect(): Promise<Buffer> {
    return Promise.resolve(this.#data);
  }

  finish(result: object | undefined): void {
    const payload = result === undefined ? empty : encodeMessage(result);
    this.#sentBytes += payload.length;
    this.#sent.push(['end', payload]);
    const whole = fits(this.#sent.length, this.#sentBytes);
    this.#channel.answer(this.#number, whole ? this.#sent : tooLong);
  }

  fail(error: unknown): void {
    const payload = encodeError(error);
    this.#channel.answer(this.#number, fits(1, payload.length) ? [['error', payload]] : tooLong);
  }
}

const empty = Buffer.alloc(0);
const tooLong: readonly TypedPayload[] = [['mark', empty]];
