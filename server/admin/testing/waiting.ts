/** A promise that somebody else resolves (`Promise.withResolvers` came with Node 22). */
export class Gate {
  readonly promise: Promise<void>;
  #open: (() => void) | undefined;

  constructor() {
    this.promise = new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  resolve(): void {
    this.#open?.();
  }
}
