/** The first of many keys, in order, without those that come after: at most twice as many are kept as are wanted. */
export class FirstKeys {
  readonly #wanted: number;
  #kept: string[] = [];
  /** The last of the wanted ones so far, once some were left out. */
  #end: string | undefined;

  constructor(wanted: number) {
    this.#wanted = wanted;
  }

  add(key: string): void {
    if (this.#end !== undefined && key > this.#end) return;
    this.#kept.push(key);
    if (this.#kept.length >= 2 * this.#wanted) this.#sort();
  }

  /** Sorted by their characters, each once. `hasMore`: there are others, all of them after these. */
  end(): { readonly keys: readonly string[]; readonly hasMore: boolean } {
    this.#sort();
    return { keys: this.#kept, hasMore: this.#end !== undefined };
  }

  #sort(): void {
    const sorted = [...new Set(this.#kept)].sort();
    this.#kept = sorted.slice(0, this.#wanted);
    if (sorted.length > this.#wanted) this.#end = this.#kept.at(-1);
  }
}
