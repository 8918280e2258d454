import { QuorateError } from '../contract/errors.js';

/** Pushes of this process that run, by the name of their repository. */
export class RunningPushes {
  readonly #counts = new Map<string, number>();
  /** Names that no push begins at just now. */
  readonly #closed = new Map<string, Promise<unknown>>();

  /** Runs a push. One that comes while `whileNone` decides waits for that. */
  async run<T>(name: string, push: () => Promise<T>): Promise<T> {
    for (let closed; (closed = this.#closed.get(name)) !== undefined;) await closed;
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    try {
      return await push();
    } finally {
      const left = (this.#counts.get(name) ?? 1) - 1;
      if (left > 0) this.#counts.set(name, left);
      else this.#counts.delete(name);
    }
  }

  /** Runs `task` while no push to the name runs. `failed-precondition` when one does. One at a time for a name. */
  async whileNone<T>(name: string, task: () => Promise<T>): Promise<T> {
    if (this.#counts.has(name)) {
      throw new QuorateError('failed-precondition', `${name} is being pushed to`);
    }
    const running = task();
    this.#closed.set(
      name,
      running.catch(() => undefined),
    );
    try {
      return await running;
    } finally {
      this.#closed.delete(name);
    }
  }
}
