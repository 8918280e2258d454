/** Lets work through while it is open, and says when none is left inside. */
export class Gate {
  /** Undefined while it is open. */
  #opening: Opening | undefined = opening();
  #inside = 0;
  #emptied: (() => void)[] = [];

  open(): void {
    this.#opening?.resolve();
    this.#opening = undefined;
  }

  /** Nobody enters from now on. */
  close(): void {
    this.#opening ??= opening();
  }

  /** Resolves when whoever was inside has left. */
  async empty(): Promise<void> {
    if (this.#inside > 0) await new Promise<void>((resolve) => this.#emptied.push(resolve));
  }

  async run(work: () => Promise<void>): Promise<void> {
    while (this.#opening !== undefined) await this.#opening.promise;
    this.#inside += 1;
    try {
      await work();
    } finally {
      this.#inside -= 1;
      if (this.#inside === 0) for (const tell of this.#emptied.splice(0)) tell();
    }
  }
}

interface Opening {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

function opening(): Opening {
  let tell: (() => void) | undefined;
  const promise = new Promise<void>((resolve) => (tell = resolve));
  return { promise, resolve: () => tell?.() };
}
