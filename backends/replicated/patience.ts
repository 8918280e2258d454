/** For a store of which nothing bad is known. On a machine that is busy, stores that are well answer that far apart. */
const usualMs = 1_000;
/** For stores that are late all the time: a disk that hangs must not hold up every push. */
const shortMs = 200;
/** So often in a row is all the time. */
const lateInRow = 3;
/** More stores than a cluster has. */
const maxStores = 10_000;

/**
 * How long those that are not prepared yet are waited for, once enough stores are. To leave one out that was about to
 * answer is dear: it gets the push from a peer then, by way of git on both sides.
 */
export class Patience {
  /** Pushes in a row for which a store was late. */
  readonly #late = new Map<string, number>();

  /** With several, as long as for the best of them. */
  graceMs(storeIds: readonly string[]): number {
    const isHopeless = (storeId: string): boolean => (this.#late.get(storeId) ?? 0) >= lateInRow;
    return storeIds.every(isHopeless) ? shortMs : usualMs;
  }

  answered(storeId: string): void {
    this.#late.delete(storeId);
  }

  late(storeId: string): void {
    if (this.#late.size >= maxStores) this.#late.clear();
    this.#late.set(storeId, (this.#late.get(storeId) ?? 0) + 1);
  }
}
