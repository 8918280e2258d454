import assert from 'node:assert/strict';

/** Generous: it is only reached when what is waited for never comes. */
const patienceMs = 10_000;

/** Resolves once `holds` does. Fails after ten seconds. */
export async function eventually(holds: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (!holds()) {
    assert.ok(performance.now() < deadlineMs, 'it never came');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

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
