import { asQuorateError } from '../contract/errors.js';

/**
 * Keeps pruning and judging apart. A push is judged by what the object store holds; between that moment and the
 * moment its refs are written, nothing that it relies on may be pruned.
 */
export class PruneGate {
  #judging = 0;
  #pruning: { readonly over: Promise<unknown>; readonly stop: AbortController } | undefined;

  /** Pushes between their judgement and their refs. */
  get judging(): number {
    return this.#judging;
  }

  /** True while a push is between its judgement and its refs, or a prune runs. */
  get occupied(): boolean {
    return this.#judging > 0 || this.#pruning !== undefined;
  }

  /**
   * Ends a prune that runs, which may take hours and can be begun again, and waits until it is over. Returns the
   * function that ends the push's stay. Calling it twice is harmless.
   */
  async enter(): Promise<() => void> {
    while (this.#pruning !== undefined) {
      this.#pruning.stop.abort();
      await this.#pruning.over;
    }
    this.#judging++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#judging--;
    };
  }

  /**
   * Runs `prune` if no push is between its judgement and its refs; false when one is, or when one came and ended it
   * by the signal.
   */
  async tryPrune(prune: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    if (this.occupied) return false;
    const stop = new AbortController();
    const running = prune(stop.signal);
    this.#pruning = { over: running.catch(() => undefined), stop };
    try {
      await running;
      return true;
    } catch (error) {
      if (stop.signal.aborted && asQuorateError(error).code === 'cancelled') return false;
      throw error;
    } finally {
      this.#pruning = undefined;
    }
  }
}
