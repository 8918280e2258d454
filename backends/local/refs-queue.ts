interface Task {
  readonly begin: () => Promise<void>;
}

/**
 * Runs tasks one after another. Judging a push takes a millisecond and lets its commit share the next apply, where an
 * apply takes ten: so it goes before what waits, but for every second turn, which is the others'.
 */
export class RefsQueue {
  readonly #judging: Task[] = [];
  readonly #others: Task[] = [];
  #running = false;
  #judgedLast = false;

  /** Tasks running or waiting. Its users are bounded, hence so is this. */
  get length(): number {
    return this.#judging.length + this.#others.length + (this.#running ? 1 : 0);
  }

  run<T>(task: () => Promise<T>): Promise<T> {
    return this.#enqueue(this.#others, task);
  }

  judge<T>(task: () => Promise<T>): Promise<T> {
    return this.#enqueue(this.#judging, task);
  }

  #enqueue<T>(lane: Task[], task: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const begin = async (): Promise<void> => {
        try {
          resolve(await task());
        } catch (error) {
          reject(error);
        }
      };
      lane.push({ begin });
      if (!this.#running) void this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#running = true;
    for (let next = this.#next(); next !== undefined; next = this.#next()) await next.begin();
    this.#running = false;
  }

  #next(): Task | undefined {
    const judges = this.#judging.length > 0 && !(this.#judgedLast && this.#others.length > 0);
    this.#judgedLast = judges;
    return judges ? this.#judging.shift() : this.#others.shift();
  }
}
