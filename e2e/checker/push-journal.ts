/** What a client knows of one ref of one push. `unknown`: the connection ended before a verdict. */
export type Verdict = 'acknowledged' | 'refused' | 'unknown';

export const zeroOid = '0'.repeat(40);

export interface RecordedUpdate {
  readonly ref: string;
  /** What the client took the ref to be; zeros: absent. */
  readonly old: string;
  /** Never the same value twice for one ref; zeros: the ref is deleted. */
  readonly new: string;
  readonly verdict: Verdict;
}

/** One push, as its client saw it. */
export interface RecordedPush {
  readonly client: string;
  readonly repository: string;
  readonly atomic: boolean;
  readonly updates: readonly RecordedUpdate[];
}

/** The clients' own record: all that the checker believes. Nothing in it comes from the server's files or logs. */
export class PushJournal {
  readonly totals = { pushes: 0, acknowledged: 0, refused: 0, unknown: 0 };
  #pushes: RecordedPush[] = [];

  add(push: RecordedPush): void {
    this.#pushes.push(push);
    this.totals.pushes += 1;
    for (const { verdict } of push.updates) this.totals[verdict] += 1;
  }

  /** Everything since the last call. */
  take(): readonly RecordedPush[] {
    const taken = this.#pushes;
    this.#pushes = [];
    return taken;
  }
}
