import { z } from 'zod';
import type { Coordinator, Lease, Operation, ProcessLease } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { GivenUpFill } from './failed-fills.js';
import { encodeRecord } from './records.js';

/** What is defaulted is absent in records of earlier versions. */
const schema = z.object({
  nodeId: z.string(),
  repairing: z.number().int().min(0).default(0),
  givenUp: z
    .array(
      z.object({
        repositoryId: z.string(),
        storeId: z.string(),
        times: z.number().int(),
        reason: z.string(),
      }),
    )
    .default([]),
  behind: z.record(z.string(), z.int().min(0)).default({}),
});

/** What whoever leads tells of the sets. */
export interface ToldRepairs {
  /** How many are being changed, or wait for it. */
  readonly repairing: number;
  /** Copies whose fill was given up, some of them if there are many. */
  readonly givenUp: readonly GivenUpFill[];
  /** Copies of voters that lack what the push log holds no more, by node; see `CopiesBehind`. */
  readonly behind: Readonly<Record<string, number>>;
}

const nothingTold: ToldRepairs = { repairing: 0, givenUp: [], behind: {} };

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
  /** As JSON. */
  #told: string | undefined;

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
      success: [this.#record(lease, nothingTold)],
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
    this.#told = succeeded ? JSON.stringify(nothingTold) : undefined;
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

  /** Tells all others how the sets are. */
  async tell(repairs: ToldRepairs): Promise<void> {
    const told = JSON.stringify(repairs);
    if (this.#held === undefined || this.#told === told) return;
    const { lease, createRevision } = this.#held;
    const { succeeded } = await this.#coordinator.transaction({
      compares: [
        { key: keys.controller, target: 'createRevision', op: '=', operand: createRevision },
      ],
      success: [this.#record(lease, repairs)],
      failure: [],
    });
    if (succeeded) this.#told = told;
    else this.#held = undefined;
  }

  #record(lease: Lease, repairs: ToldRepairs): Operation {
    const value = encodeRecord({ nodeId: this.#nodeId, ...repairs });
    return { type: 'put', key: keys.controller, value, lease: lease.id };
  }
}

/** As whoever leads told last; nothing while nobody leads. */
export async function readRepairs(coordinator: Coordinator): Promise<ToldRepairs> {
  const kv = await coordinator.get(keys.controller);
  if (kv === undefined) return nothingTold;
  return schema.parse(JSON.parse(new TextDecoder().decode(kv.value)));
}
