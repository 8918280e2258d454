import type { ReadSession } from '../../backends/contract/backend.js';

/** A read that is released when nobody holds it any more: a git that others share may outlive the request it began in. */
export class HeldSession {
  readonly session: ReadSession;
  #holds = 1;

  /** Held once, by whoever makes it. */
  constructor(session: ReadSession) {
    this.session = session;
  }

  hold(): void {
    this.#holds += 1;
  }

  letGo(): void {
    this.#holds -= 1;
    if (this.#holds === 0) this.session.release();
  }
}
