import assert from 'node:assert/strict';

/** Where the server is in its life. It only ever moves forward. */
export type ServerState =
  | { readonly phase: 'starting' }
  | { readonly phase: 'serving' }
  /** Takes no new work and finishes what runs, until `deadlineMs` on the monotonic clock. */
  | { readonly phase: 'draining'; readonly deadlineMs: number }
  | { readonly phase: 'stopped' };

const order: readonly ServerState['phase'][] = ['starting', 'serving', 'draining', 'stopped'];

export class Lifecycle {
  #state: ServerState = { phase: 'starting' };

  get state(): ServerState {
    return this.#state;
  }

  /** Asserts that the life moves forward. */
  enter(next: ServerState): void {
    const forward = order.indexOf(next.phase) > order.indexOf(this.#state.phase);
    assert.ok(forward, `a server that is ${this.#state.phase} cannot become ${next.phase}`);
    this.#state = next;
  }
}
