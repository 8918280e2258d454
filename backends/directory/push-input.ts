import { Readable } from 'node:stream';

/**
 * What `git receive-pack` reads: the commands, then the pack. When the pack fails or the push is stopped, the input
 * just ends: git then finds the pack cut off and changes nothing, or has it all and finishes what it has begun.
 * Killing it could come between two refs. Until `begin` there is nothing to read.
 */
export class PushInput extends Readable {
  readonly #pack: AsyncIterator<Uint8Array> | undefined;
  #head: string | undefined;
  #begun = false;
  #ended = false;
  #failure: unknown;

  constructor(head: string, pack: AsyncIterable<Uint8Array> | undefined) {
    super({ highWaterMark: 256 * 1024 });
    this.#head = head;
    this.#pack = pack?.[Symbol.asyncIterator]();
  }

  /** Why the pack could not be read to its end, if so. */
  get failure(): unknown {
    return this.#failure;
  }

  begin(): void {
    this.#begun = true;
    this.#feed();
  }

  /** Ends the input here. Idempotent. */
  stop(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.push(null);
    // A pull may be waiting for the client; whoever feeds the pack ends that in time.
    void this.#pack?.return?.().catch(() => {});
  }

  override _read(): void {
    this.#feed();
  }

  #feed(): void {
    if (this.#ended || !this.#begun) return;
    if (this.#head !== undefined) {
      const head = this.#head;
      this.#head = undefined;
      this.push(head);
      return;
    }
    void this.#pull();
  }

  async #pull(): Promise<void> {
    try {
      const next = await this.#pack?.next();
      if (this.#ended) return;
      if (next === undefined || next.done === true) {
        this.#ended = true;
        this.push(null);
      } else {
        this.push(next.value);
      }
    } catch (error) {
      this.#failure = error;
      this.stop();
    }
  }
}
