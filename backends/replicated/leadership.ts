import { z } from 'zod';
import type { Coordinator, Lease, Operation, ProcessLease } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { encodeRecord } from './records.js';

/** Absent in records of earlier versions. */
const schema = z.object({ nodeId: z.string(), repairing: z.number().int().min(0).default(0) });

interface Held {
  readonly lease: Lease;
  /** Of our record: another's has another one. */
  readonly createRevision: number;
}

/** One process of the cluster keeps the replica sets; another takes over when it resigns, or its lease ends. */
export class Leadership {
  readonly #coordinator: Coordinator;
  readonly #lease: ProcessLease;
  readonly #nodeId: string;
  #held: Held | undefined;
  #told: number | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly lease: ProcessLease;
    readonly nodeId: string;
  }) {
    this.#coordinator = dependencies.coordinator;
    this.#lease = dependencies.lease;
    this.#nodeId = dependencies.nodeId;
  }

  /**
   * Whether this process leads, after trying to. Only for who works and who waits: what is done is made safe by the
   * compares of its own transactions.
   */
  async lead(): Promise<boolean> {
    if (this.leads) return true;
    const lease = await this.#lease.current();
    const { succeeded, revision, results } = await this.#coordinator.transaction({
      compares: [{ key: keys.controller, target: 'createRevision', op: '=', operand: 0 }],
      success: [this.#record(lease, 0)],
      failure: [{ type: 'get', key: keys.controller }],
    });
    const [there] = results.flatMap((one) => (one.type === 'get' ? one.entries : []));
    // Ours already when an answer was lost: nobody else could lead for as long as our lease lives.
    const createRevision = succeeded
      ? revision
      : there?.lease === lease.id
        ? there.createRevision
        : undefined;
    this.#held = createRevision === undefined ? undefined : { lease, createRevision };
    this.#told = succeeded ? 0 : undefined;
    return this.leads;
  }

  /** Lets another process lead. */
  async resign(): Promise<void> {
    this.#held = undefined;
    await this.#lease.leave(keys.controller);
  }

  /** Whether this process led when it tried to, and its lease has not ended since. */
  get leads(): boolean {
    return this.#held !== undefined && !this.#held.lease.lost.aborted;
  }

  /** Tells all others how many sets are being changed, or wait for it. */
  async tell(repairing: number): Promise<void> {
    if (this.#held === undefined || this.#told === repairing) return;
    const { lease, createRevision } = this.#held;
    const { succeeded } = await this.#coordinator.transaction({
      compares: [
        { key: keys.controller, target: 'createRevision', op: '=', operand: createRevision },
      ],
      success: [this.#record(lease, repairing)],
      failure: [],
    });
    if (succeeded) this.#told = repairing;
    else this.#held = undefined;
  }

  #record(lease: Lease, repairing: number): Operation {
    const value = encodeRecord({ nodeId: this.#nodeId, repairing });
    return { type: 'put', key: keys.controller, value, lease: lease.id };
  }
}

/** How many sets are being changed, or wait for it, as whoever leads told last; 0 while nobody leads. */
export async function readRepairing(coordinator: Coordinator): Promise<number> {
  const kv = await coordinator.get(keys.controller);
  if (kv === undefined) return 0;
  return schema.parse(JSON.parse(new TextDecoder().decode(kv.value))).repairing;
}
