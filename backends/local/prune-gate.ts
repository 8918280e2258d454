/**
 * Keeps pruning and judging apart. A push is judged by what the object store holds; between that moment and the
 * moment its refs are written, nothing that it relies on may be pruned.
 */
export class PruneGate {
  #judging = 0;
  #pruning: Promise<void> | undefined;

  /** Waits for a prune that runs; returns the function that ends the push's stay. Calling it twice is harmless. */
  async enter(): Promise<() => void> {
    while (this.#pruning !== undefined) await this.#pruning;
    this.#judging++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#judging--;
    };
  }

  /** Runs `prune` if no push is between its judgement and its refs; false when one is. */
  async tryPrune(prune: () => Promise<void>): Promise<boolean> {
    if (this.#judging > 0 || this.#pruning !== undefined) return false;
    const running = prune();
    this.#pruning = running.then(
      () => undefined,
      () => undefined,
    );
    try {
      await running;
    } finally {
      this.#pruning = undefined;
    }
    return true;
  }
}
