/** Runs tasks one after another, in the order in which they came. Its users are bounded, hence so is its length. */
export class SerialQueue {
  #tail: Promise<unknown> = Promise.resolve();
  #length = 0;

  /** Tasks running or waiting. */
  get length(): number {
    return this.#length;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    this.#length++;
    const result = this.#tail.then(task);
    this.#tail = result.catch(() => undefined);
    try {
      return await result;
    } finally {
      this.#length--;
    }
  }
}
