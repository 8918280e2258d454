import type { Readable, Writable } from 'node:stream';
import { QuorateError } from '../contract/errors.js';

/**
 * What goes over a connection between members of a cluster, both ways, inside an HTTP/1.1 body:
 *
 *     body   = *frame
 *     frame  = type length payload
 *     type   = 1 byte (`frameTypes`)
 *     length = 4 bytes, big endian: bytes of the payload
 *
 * A call's first frame is `json`, its arguments. An answer closes with `end` (its payload the result as JSON, or
 * nothing) or `error`; a body that stops before that is an answer that was lost. `mark` ends one of several parts of a
 * request's data. `beat` says that the sender lives, and nothing else.
 */
const frameTypes = ['beat', 'json', 'data', 'text', 'mark', 'end', 'error'] as const;
export type FrameType = (typeof frameTypes)[number];

export interface Frame {
  readonly type: Exclude<FrameType, 'beat'>;
  /** Of a `data` frame: what has arrived of it, at least a byte. Of any other: all of it. */
  readonly payload: Buffer;
}

const headerBytes = 5;
/** 50,000 ref updates with names of a kilobyte, the most that a push may bring by default. */
const maxPayloadBytes = 64 * 1024 * 1024;
/** Below this, one copy costs less than one more write. */
const smallBytes = 4096;

export function frameHeader(type: FrameType, lengthBytes: number): Buffer {
  if (lengthBytes > maxPayloadBytes) {
    throw new QuorateError('resource-exhausted', 'that is too much for one message to a node', {
      details: { type, lengthBytes },
    });
  }
  const header = Buffer.allocUnsafe(headerBytes);
  header[0] = frameTypes.indexOf(type);
  header.writeUInt32BE(lengthBytes, 1);
  return header;
}

export function wholeFrame(type: FrameType, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([frameHeader(type, payload.byteLength), payload]);
}

/** Bytes that a whole frame takes. */
export function frameSizeBytes(payload: Uint8Array): number {
  return headerBytes + payload.byteLength;
}

/** Writes a whole frame into `target`; returns where it ends. */
export function putFrame(target: Buffer, at: number, [type, payload]: TypedPayload): number {
  target[at] = frameTypes.indexOf(type);
  target.writeUInt32BE(payload.byteLength, at + 1);
  target.set(payload, at + headerBytes);
  return at + headerBytes + payload.byteLength;
}

export type TypedPayload = readonly [type: Frame['type'], payload: Uint8Array];

/** The frames that bytes are made of, all of them whole. Throws when they are none. */
export function framesIn(bytes: Buffer): readonly Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const from = at + headerBytes;
    const type = frameTypes[bytes[at] ?? frameTypes.length];
    if (type === undefined || type === 'beat' || from > bytes.length) throw garbled();
    at = from + bytes.readUInt32BE(from - 4);
    if (at > bytes.length) throw garbled();
    frames.push({ type, payload: bytes.subarray(from, at) });
  }
  return frames;
}

export interface Silence {
  /** How long the other side may be silent while something is expected of it. */
  readonly silenceMs: number;
  /** What a reader is told after that. */
  readonly silent: () => QuorateError;
}

/**
 * Reads frames as they are asked for; who does not ask is not sent more. The other side's silence counts only while
 * something is asked for: it may be silent because nobody took what it sent.
 */
export class FrameReader {
  readonly #stream: Readable;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #silence: Silence;
  #chunk: Buffer = Buffer.alloc(0);
  /** Of the `data` frame that is being read. */
  #dataLeftBytes = 0;
  #waitingSinceMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: Readable, silence: Silence) {
    this.#stream = stream;
    this.#silence = silence;
    // The iterator tells of it.
    stream.on('error', () => undefined);
    this.#chunks = stream.iterator({ destroyOnReturn: false });
  }

  /** Undefined at the end of the stream. Throws when it is cut off, when it is silent, or is no stream of frames. */
  async next(): Promise<Frame | undefined> {
    for (;;) {
      if (this.#dataLeftBytes > 0) {
        const payload = await this.#takeSome(this.#dataLeftBytes);
        this.#dataLeftBytes -= payload.length;
        return { type: 'data', payload };
      }
      const header = await this.#takeHeader();
      if (header === undefined) return undefined;
      const type = frameTypes[header[0] ?? frameTypes.length];
      const lengthBytes = header.readUInt32BE(1);
      if (type === undefined || lengthBytes > maxPayloadBytes) throw garbled();
      if (type === 'data') this.#dataLeftBytes = lengthBytes;
      else if (type !== 'beat') return { type, payload: await this.#take(lengthBytes) };
    }
  }

  /** Reads and forgets what is left, so that the connection can serve another call. */
  async drain(): Promise<void> {
    while ((await this.next()) !== undefined);
  }

  /**
   * Reads and forgets what is left, whatever it is: also the rest of a frame, and what another read waits for. Nothing
   * may be asked for after it.
   */
  async discard(): Promise<void> {
    while (await this.#more());
  }

  async #takeHeader(): Promise<Buffer | undefined> {
    if (this.#chunk.length === 0 && !(await this.#more())) return undefined;
    return this.#take(headerBytes);
  }

  async #takeSome(maxBytes: number): Promise<Buffer> {
    if (this.#chunk.length === 0 && !(await this.#more())) throw cutOff();
    const taken = this.#chunk.subarray(0, maxBytes);
    this.#chunk = this.#chunk.subarray(taken.length);
    return taken;
  }

  async #take(lengthBytes: number): Promise<Buffer> {
    if (lengthBytes === 0) return Buffer.alloc(0);
    if (this.#chunk.length >= lengthBytes) return this.#takeSome(lengthBytes);
    const parts: Buffer[] = [];
    for (let left = lengthBytes; left > 0;) {
      const part = await this.#takeSome(left);
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }

  /** Waits for the next chunk. False at the end of the stream. */
  async #more(): Promise<boolean> {
    this.#watch();
    try {
      for (;;) {
        const result = await this.#chunks.next();
        if (result.done === true) return false;
        this.#chunk = result.value;
        if (this.#chunk.length > 0) return true;
      }
    } catch (error) {
      if (error instanceof QuorateError) throw error;
      throw cutOff(error);
    } finally {
      this.#waitingSinceMs = undefined;
      // Kept for the next wait; it looks whether anybody waits at all.
      this.#timer?.unref();
    }
  }

  #watch(): void {
    this.#waitingSinceMs = performance.now();
    if (this.#timer === undefined) {
      this.#timer = setTimeout(() => this.#look(), this.#silence.silenceMs);
      this.#stream.once('close', () => clearTimeout(this.#timer));
    } else {
      this.#timer.ref();
      this.#timer.refresh();
    }
  }

  /**
   * A process that was itself busy for long runs its timers before it looks at its sockets: what came meanwhile gets a
   * turn of the loop to be seen.
   */
  #look(): void {
    const since = this.#waitingSinceMs;
    if (since === undefined) return;
    setImmediate(() => {
      setImmediate(() => {
        if (this.#waitingSinceMs === since) this.#stream.destroy(this.#silence.silent());
      });
    });
  }
}

/** What a peer is told that breaks the rules of the wire. */
export function garbled(): QuorateError {
  return new QuorateError('internal', 'a member of the cluster sent what is no message');
}

function cutOff(cause?: unknown): QuorateError {
  return new QuorateError('unavailable', 'the connection to a member of the cluster broke', {
    cause,
  });
}

/** How often a sender without anything to say says that it lives. */
export const beatMs = 500;

/** Writes frames with back-pressure, and beats while there is nothing else to write. */
export class FrameWriter {
  readonly #stream: Writable;
  readonly #beats: NodeJS.Timeout;
  #quiet = false;
  #over = false;

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on('error', () => undefined);
    this.#beats = setInterval(() => this.#beat(), beatMs);
    stream.once('close', () => this.stop());
  }

  /** Resolves when more may be written. Throws `cancelled` when nobody reads any more. */
  async write(type: FrameType, payload: Uint8Array = Buffer.alloc(0)): Promise<void> {
    this.#refuseWhenOver();
    this.#quiet = false;
    if (!this.#put(type, payload)) await this.#drained();
  }

  /** Writes the last frame, if any, and ends the body. */
  end(type?: FrameType, payload?: Uint8Array): void {
    if (this.#over || this.#stream.destroyed) return;
    this.stop();
    this.#stream.end(type === undefined ? undefined : wholeFrame(type, payload));
  }

  /** Nothing is written any more. */
  stop(): void {
    this.#over = true;
    clearInterval(this.#beats);
  }

  #put(type: FrameType, payload: Uint8Array): boolean {
    if (payload.byteLength <= smallBytes) return this.#stream.write(wholeFrame(type, payload));
    this.#stream.cork();
    this.#stream.write(frameHeader(type, payload.byteLength));
    const more = this.#stream.write(payload);
    this.#stream.uncork();
    // Node 24 may have told of the drain by now, within `uncork`.
    return more || !this.#stream.writableNeedDrain;
  }

  #beat(): void {
    // What waits to be sent says as much.
    if (this.#quiet && !this.#stream.writableNeedDrain) this.#stream.write(wholeFrame('beat'));
    this.#quiet = true;
  }

  #drained(): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#stream.off('drain', settle).off('close', settle);
        if (this.#stream.destroyed) reject(goneAway());
        else resolve();
      };
      this.#stream.on('drain', settle).on('close', settle);
      if (this.#stream.destroyed) settle();
    });
  }

  #refuseWhenOver(): void {
    if (this.#over || this.#stream.destroyed) throw goneAway();
  }
}

function goneAway(): QuorateError {
  return new QuorateError('cancelled', 'the other side went away');
}
