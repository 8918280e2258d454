import type { ClientRequest, IncomingMessage } from 'node:http';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { type Frame, FrameReader, FrameWriter } from './frames.js';
import { decodeError } from './wire-error.js';

export interface ClientCallOptions {
  readonly request: ClientRequest;
  readonly response: IncomingMessage;
  /** True when the request's body stays open for more than the arguments. */
  readonly duplex: boolean;
  readonly silenceMs: number;
  readonly silent: () => QuorateError;
  /** Called once, when the call is over in whatever way. */
  readonly over: () => void;
}

/** Of one frame: the other side gets a stream in turns. */
const maxDataBytes = 1024 * 1024;

/** Who gave up is told that, whatever broke for it. */
export function settledError(error: unknown, signal: AbortSignal | undefined): QuorateError {
  if (signal?.aborted !== true) return asQuorateError(error);
  return new QuorateError('cancelled', 'the caller gave up', { cause: error });
}

/** One call as the caller sees it, from the head of the answer on. */
export class ClientCall {
  readonly #request: ClientRequest;
  readonly #reader: FrameReader;
  readonly #writer: FrameWriter | undefined;
  readonly #over: () => void;
  #finished = false;

  constructor(options: ClientCallOptions) {
    const { request, response, duplex, silenceMs, silent, over } = options;
    this.#request = request;
    this.#over = over;
    this.#reader = new FrameReader(response, { silenceMs, silent });
    this.#writer = duplex ? new FrameWriter(request) : undefined;
    response.once('close', () => {
      this.#writer?.stop();
      over();
    });
  }

  /** The next frame of the answer; the last one is `end`. Throws the error that the node answered. */
  async next(): Promise<Frame> {
    const frame = await this.#reader.next();
    if (frame === undefined) {
      throw new QuorateError('unavailable', 'the answer of a storage node broke off');
    }
    if (frame.type === 'error') {
      this.#finish();
      throw decodeError(frame.payload);
    }
    if (frame.type === 'end') this.#finish();
    return frame;
  }

  /** Throws `cancelled` when the node takes no more. */
  async data(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength; at += maxDataBytes) {
      await this.#writer?.write('data', bytes.subarray(at, at + maxDataBytes));
    }
  }

  /** Ends a part of the data. */
  async mark(): Promise<void> {
    await this.#writer?.write('mark');
  }

  /** Gives the call up. Nothing happens when it is over. */
  abandon(): void {
    if (!this.#finished) this.#request.destroy();
  }

  /** Lets the connection serve another call. */
  #finish(): void {
    this.#finished = true;
    // From here on the connection may be another call's.
    this.#over();
    this.#writer?.stop();
    // The request ends after the answer: Node takes a connection whose request ended just before for free twice, and
    // closes it.
    this.#reader.drain().then(
      () => this.#writer !== undefined && this.#request.end(),
      () => undefined,
    );
  }
}

/** Reads an answer to its end: the result. What comes before goes to `onFrame`. */
export async function answerOf(
  call: ClientCall,
  onFrame: (type: string, payload: Buffer) => void | Promise<void>,
): Promise<Buffer> {
  for (;;) {
    const { type, payload } = await call.next();
    if (type === 'end') return payload;
    await onFrame(type, payload);
  }
}
