/**
 * Most that is gathered: every step behind it then takes a large pack in some hundred pieces, and what a connection
 * holds stays small.
 */
const mostBytes = 128 * 1024;

/**
 * Gathers what a client sends within one turn of the event loop into one chunk. A pack comes in pieces of 8 to 32 KiB
 * (HTTP chunks, SSH packets), and what a piece costs on its way to git hardly depends on its size.
 */
export class GatheredChunks {
  readonly #deliver: (chunk: Buffer) => void;
  #pieces: Buffer[] = [];
  #sizeBytes = 0;
  #turn: NodeJS.Immediate | undefined;

  constructor(deliver: (chunk: Buffer) => void) {
    this.#deliver = deliver;
  }

  /** Delivers at once when enough has come, else at the end of this turn. */
  add(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#sizeBytes += piece.length;
    if (this.#sizeBytes >= mostBytes) this.flush();
    else this.#turn ??= setImmediate(this.#atTurn);
  }

  /** Delivers what has come: before the end is told. */
  flush(): void {
    const pieces = this.#pieces;
    const [only] = pieces;
    const sizeBytes = this.#sizeBytes;
    this.drop();
    if (only !== undefined) {
      this.#deliver(pieces.length === 1 ? only : Buffer.concat(pieces, sizeBytes));
    }
  }

  /** Forgets what has come. */
  drop(): void {
    clearImmediate(this.#turn);
    this.#turn = undefined;
    this.#pieces = [];
    this.#sizeBytes = 0;
  }

  readonly #atTurn = (): void => {
    this.#turn = undefined;
    this.flush();
  };
}
