import { parsePktLength } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';

/** Payload bytes looked at, to tell packets apart: `packfile\n`. */
const peekBytes = 9;

/**
 * Follows the packets of a stream that passes by, without holding it: where the next packet begins, whether the
 * client is listening on side-bands by now, and whether it was told of an error.
 */
export class PktTracker {
  /** The client has been told: an `ERR` packet or side-band 3. */
  errorTold = false;
  /** Packets carry a band by now. */
  inSideBand = false;
  #lost = false;
  #digits = '';
  #remaining = 0;
  #peek = '';

  /** True where a packet of ours could follow. */
  get atBoundary(): boolean {
    return !this.#lost && this.#digits === '' && this.#remaining === 0;
  }

  /** The bytes that pass by. What is not pkt-line (a pack without side-bands) loses the track for good. */
  see(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = 0;
    while (at < bytes.length && !this.#lost) {
      at = this.#remaining > 0 ? this.#seePayload(bytes, at) : this.#seeLength(bytes, at);
    }
  }

  #seeLength(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + 4 - this.#digits.length);
    this.#digits += bytes.toString('latin1', at, end);
    if (this.#digits.length === 4) {
      try {
        this.#remaining = Math.max(0, parsePktLength(Buffer.from(this.#digits)) - 4);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#lost = true;
      }
      this.#digits = '';
      this.#peek = '';
    }
    return end;
  }

  #seePayload(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#remaining);
    if (this.#peek.length < peekBytes) {
      const peekEnd = Math.min(end, at + peekBytes - this.#peek.length);
      this.#peek += bytes.toString('latin1', at, peekEnd);
    }
    this.#remaining -= end - at;
    if (this.#remaining === 0) this.#judge(this.#peek);
    return end;
  }

  #judge(peek: string): void {
    const first = peek.charCodeAt(0);
    if (peek.startsWith('ERR ') || first === 3) this.errorTold = true;
    if (first === 1 || first === 2 || peek === 'packfile\n') this.inSideBand = true;
  }
}
