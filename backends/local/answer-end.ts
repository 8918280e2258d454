/** Finds the flush packet that ends a v2 answer (gitprotocol-v2(5)) in the bytes that pass by. */
export class AnswerEnd {
  reached = false;
  /** What came is not in packets: there is no end to be found. */
  lost = false;
  /** What came behind the end. */
  rest: Buffer = Buffer.alloc(0);
  #digits = '';
  #remaining = 0;

  see(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.reached && !this.lost) {
      if (this.#remaining > 0) {
        const length = Math.min(this.#remaining, chunk.length - at);
        this.#remaining -= length;
        at += length;
        continue;
      }
      const end = Math.min(chunk.length, at + 4 - this.#digits.length);
      this.#digits += chunk.toString('latin1', at, end);
      at = end;
      if (this.#digits.length === 4) this.#begin();
    }
    if (this.reached) this.rest = chunk.subarray(at);
  }

  #begin(): void {
    const length = /^[0-9a-f]{4}$/i.test(this.#digits) ? Number.parseInt(this.#digits, 16) : 3;
    this.#digits = '';
    if (length === 0) this.reached = true;
    else if (length === 3) this.lost = true;
    else this.#remaining = Math.max(0, length - 4);
  }
}
