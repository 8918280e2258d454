/*
 * pkt-line, the framing of every Git protocol (gitprotocol-common(5), gitprotocol-v2(5)).
 *
 *   pkt-line      = data-pkt / flush-pkt / delim-pkt / response-end-pkt
 *   data-pkt      = pkt-len pkt-payload        ; pkt-len = 4HEXDIG, counts itself, 4 to 65520
 *   flush-pkt     = "0000"
 *   delim-pkt     = "0001"
 *   response-end-pkt = "0002"                  ; "0003" is an error
 *   error-line    = PKT-LINE("ERR" SP explanation-text)
 */
import { isUtf8 } from 'node:buffer';
import { excerpt, WireError } from './wire-error.js';

/** Longest packet, its 4 length digits included (git's LARGE_PACKET_MAX). */
export const maxPktBytes = 65_520;
/** Longest payload of one packet. */
export const maxPktPayloadBytes = maxPktBytes - 4;

export type Pkt =
  | { readonly type: 'data'; readonly payload: Buffer }
  | { readonly type: 'flush' }
  | { readonly type: 'delim' }
  | { readonly type: 'response-end' };

export const flushPkt: Buffer = Buffer.from('0000');
export const delimPkt: Buffer = Buffer.from('0001');
export const responseEndPkt: Buffer = Buffer.from('0002');

const flush: Pkt = { type: 'flush' };
const delim: Pkt = { type: 'delim' };
const responseEnd: Pkt = { type: 'response-end' };

/** The 4 digits before a payload of `payloadBytes`. Throws RangeError for a payload that no packet can hold. */
export function pktLength(payloadBytes: number): string {
  if (payloadBytes > maxPktPayloadBytes) {
    throw new RangeError(`a pkt-line holds at most ${maxPktPayloadBytes} bytes`);
  }
  return (payloadBytes + 4).toString(16).padStart(4, '0');
}

/** One data packet. Text is written as UTF-8 and gets no line feed added. */
export function writePkt(payload: string | Uint8Array): Buffer {
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
  return Buffer.concat([Buffer.from(pktLength(bytes.length)), bytes]);
}

/** The packet as text, for joining many before they are encoded once. */
export function pktText(text: string): string {
  return pktLength(Buffer.byteLength(text)) + text;
}

/** An `ERR` packet: the peer shows `message` and gives up. Overlong messages are cut. */
export function writeErrorPkt(message: string): Buffer {
  const text = message.length > 1000 ? `${message.slice(0, 997)}...` : message;
  return writePkt(`ERR ${text}`);
}

/** The message of an `ERR` packet's payload, or undefined for any other payload. */
export function parseErrorPkt(payload: Uint8Array): string | undefined {
  const text = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString();
  return text.startsWith('ERR ') ? text.slice(4).replace(/\n$/, '') : undefined;
}

/** A payload as text less one final line feed. Names are handled as UTF-8; other bytes are refused, not replaced. */
export function parsePktText(payload: Buffer): string {
  if (!isUtf8(payload)) throw new WireError('malformed', 'a line is not UTF-8');
  const end = payload.at(-1) === 0x0a ? payload.length - 1 : payload.length;
  return payload.toString('utf8', 0, end);
}

/**
 * The length that 4 digits announce. `digits` starts at `offset`; 0, 1 and 2 are the special packets.
 * Throws WireError `malformed`.
 */
export function parsePktLength(bytes: Uint8Array, offset = 0): number {
  let length = 0;
  for (let index = offset; index < offset + 4; index += 1) {
    const value = hexValue(bytes[index]);
    if (value === undefined) {
      const digits = Buffer.from(bytes.subarray(offset, offset + 4)).toString('latin1');
      throw new WireError('malformed', `bad pkt-line length '${excerpt(digits)}'`);
    }
    length = length * 16 + value;
  }
  if (length === 3 || length > maxPktBytes) {
    throw new WireError('malformed', `bad pkt-line length ${length}`);
  }
  return length;
}

function hexValue(byte: number | undefined): number | undefined {
  if (byte === undefined) return undefined;
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  if (byte >= 0x61 && byte <= 0x66) return byte - 0x57;
  if (byte >= 0x41 && byte <= 0x46) return byte - 0x37;
  return undefined;
}

/** Where packets come from. */
export interface PktSource extends AsyncIterable<Uint8Array> {
  /** Nothing more will come, as is known without asking. */
  readonly spent?: boolean;
}

/**
 * Reads packets from a byte stream, no further than it must: what follows the last packet read comes out of `rest()`
 * untouched. Holds at most one packet and one chunk of the source, plus what is being recorded.
 */
export class PktReader {
  readonly #origin: PktSource;
  readonly #source: AsyncIterator<Uint8Array>;
  #buffered: Buffer = Buffer.alloc(0);
  #budgetBytes = Number.POSITIVE_INFINITY;
  #recorded: Buffer[] | undefined;

  constructor(source: PktSource) {
    this.#origin = source;
    this.#source = source[Symbol.asyncIterator]();
  }

  /** From here on packets of at most this many bytes in all are read; then `too-large`. */
  limit(budgetBytes: number): void {
    this.#budgetBytes = budgetBytes;
  }

  /** Keeps the bytes of the packets read from here on, for handing a section on as it came. */
  record(): void {
    this.#recorded = [];
  }

  /** The bytes recorded since `record()`, and stops recording. */
  takeRecorded(): Buffer {
    const bytes = Buffer.concat(this.#recorded ?? []);
    this.#recorded = undefined;
    return bytes;
  }

  /**
   * The next packet; undefined when the stream ended before it. Throws WireError `truncated`, `malformed`,
   * `too-large`; errors of the source pass through.
   */
  async read(): Promise<Pkt | undefined> {
    if (this.#buffered.length < 4 && !(await this.#fill(4))) {
      if (this.#buffered.length === 0) return undefined;
      throw new WireError('truncated', 'the stream ended inside a pkt-line length');
    }
    const length = parsePktLength(this.#buffered);
    const size = Math.max(length, 4);
    // Spent before the payload is awaited: an oversized section costs no more than its bound.
    this.#budgetBytes -= size;
    if (this.#budgetBytes < 0) throw new WireError('too-large', 'the request is too long');
    if (this.#buffered.length < size && !(await this.#fill(size))) {
      throw new WireError('truncated', 'the stream ended inside a pkt-line');
    }
    const packet = this.#buffered.subarray(0, size);
    this.#buffered = this.#buffered.subarray(size);
    this.#recorded?.push(packet);
    if (length >= 4) return { type: 'data', payload: packet.subarray(4) };
    return length === 0 ? flush : length === 1 ? delim : responseEnd;
  }

  /** All bytes not read as packets, where all are here; undefined, with nothing taken, where more may come. */
  takeRest(): Buffer | undefined {
    if (this.#origin.spent !== true) return undefined;
    const rest = this.#buffered;
    this.#buffered = Buffer.alloc(0);
    return rest;
  }

  /** All bytes not read as packets, as they come. Reading packets after this is an error of the caller. */
  async *rest(): AsyncGenerator<Uint8Array, void, undefined> {
    const buffered = this.#buffered;
    this.#buffered = Buffer.alloc(0);
    if (buffered.length > 0) yield buffered;
    for (;;) {
      const next = await this.#source.next();
      if (next.done === true) return;
      yield next.value;
    }
  }

  /** Buffers at least `size` bytes; false when the stream ends before. */
  async #fill(size: number): Promise<boolean> {
    const parts: Buffer[] = [this.#buffered];
    let length = this.#buffered.length;
    let ended = false;
    while (length < size && !ended) {
      const next = await this.#source.next();
      if (next.done === true) {
        ended = true;
      } else {
        const { buffer, byteOffset, byteLength } = next.value;
        const chunk = Buffer.from(buffer, byteOffset, byteLength);
        // The usual case, a small request in one chunk, is not copied.
        if (length === 0) parts.length = 0;
        parts.push(chunk);
        length += byteLength;
      }
    }
    const [only] = parts;
    this.#buffered = parts.length === 1 && only !== undefined ? only : Buffer.concat(parts, length);
    return !ended;
  }
}
