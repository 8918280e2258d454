import type { LeaseSource } from '../coordination/lock-lease.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { encodeRecord } from './records.js';

/** One process of the cluster keeps the replica sets; another takes over when its lease ends. */
export class Leadership {
  readonly #coordinator: Coordinator;
  readonly #leases: Pick<LeaseSource, 'current'>;
  readonly #nodeId: string;
  #held: AbortSignal | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly leases: Pick<LeaseSource, 'current'>;
    readonly nodeId: string;
  }) {
    this.#coordinator = dependencies.coordinator;
    this.#leases = dependencies.leases;
    this.#nodeId = dependencies.nodeId;
  }

  /**
   * Whether this process leads, after trying to. Only for who works and who waits: what is done is made safe by the
   * compares of its own transactions.
   */
  async lead(): Promise<boolean> {
    if (this.#held !== undefined && !this.#held.aborted) return true;
    const lease = await this.#leases.current();
    const { succeeded } = await this.#coordinator.transaction({
      compares: [{ key: keys.controller, target: 'createRevision', op: '=', operand: 0 }],
      success: [
        {
          type: 'put',
          key: keys.controller,
          value: encodeRecord({ nodeId: this.#nodeId }),
          lease: lease.id,
        },
      ],
      failure: [],
    });
    this.#held = succeeded ? lease.lost : undefined;
    return succeeded;
  }
}
