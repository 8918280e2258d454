import type { DryRun, RefFailure } from '../git/ref-dry-run.js';
import type { AbandonedLocks } from '../git/abandoned-locks.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import type { RefsQueue } from './refs-queue.js';

type Failures = ReadonlyMap<string, RefFailure>;

interface Waiting {
  readonly run: DryRun;
  readonly settle: (failures: Failures | Promise<Failures>) => void;
}

export interface DryRunDependencies {
  readonly refs: RefTransactions;
}

/** As many updates as one apply takes together. */
const maxUpdatesTogether = 1000;

/**
 * Dry runs of one repository. Those that wait together become one transaction, as their commits will: nearly always
 * git takes all of it. When it does not, each is tried by itself.
 */
export class DryRuns {
  readonly #queue: RefsQueue;
  readonly #locks: Pick<AbandonedLocks, 'remove'>;
  #waiting: Waiting[] = [];

  constructor(queue: RefsQueue, locks: Pick<AbandonedLocks, 'remove'>) {
    this.#queue = queue;
    this.#locks = locks;
  }

  /** Which updates git would not apply; the others it would apply all together. Changes nothing. */
  judge(dependencies: DryRunDependencies, run: DryRun): Promise<Failures> {
    return new Promise((settle) => {
      this.#waiting.push({ run, settle });
      // A turn for each, so that whoever was left over by the group before has one; some find nothing to do.
      void this.#queue.judge(() => this.#judgeWaiting(dependencies));
    });
  }

  /** Never rejects: each is told by itself. */
  async #judgeWaiting(dependencies: DryRunDependencies): Promise<void> {
    const group = this.#takeGroup();
    const together = group.length > 1 && (await passTogether(dependencies, group));
    for (const { run, settle } of group) {
      const failures = together
        ? Promise.resolve<Failures>(new Map())
        : this.#dryRun(dependencies, run);
      settle(failures);
      await failures.catch(() => undefined);
    }
  }

  /** A ref that git does not take may only be locked by a git that was killed: then it is tried again. */
  async #dryRun({ refs }: DryRunDependencies, run: DryRun): Promise<Failures> {
    const failures = await refs.dryRun(run);
    const refused = [...failures].flatMap(([ref, failure]) => (failure === 'refused' ? [ref] : []));
    if (refused.length === 0) return failures;
    const removed = await this.#locks.remove(run.gitDir, refused);
    return removed === 0 ? failures : refs.dryRun(run);
  }

  /** Those whose refs are different. What stays has a turn of its own in the queue. */
  #takeGroup(): readonly Waiting[] {
    const names = new Set<string>();
    const group: Waiting[] = [];
    const rest: Waiting[] = [];
    for (const waiting of this.#waiting) {
      const { updates } = waiting.run;
      const joins =
        group.length === 0 ||
        (names.size + updates.length <= maxUpdatesTogether &&
          !updates.some(({ ref }) => names.has(ref)));
      (joins ? group : rest).push(waiting);
      if (joins) for (const { ref } of updates) names.add(ref);
    }
    this.#waiting = rest;
    return group;
  }
}

function passTogether({ refs }: DryRunDependencies, group: readonly Waiting[]): Promise<boolean> {
  // Each finds out by itself what is wrong.
  return refs.passTogether(group.map(({ run }) => run)).catch(() => false);
}
