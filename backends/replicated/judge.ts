import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type { RefCommand } from '../contract/objects.js';
import type { QuarantineKey, Replica } from '../contract/replica.js';
import { whileKept } from './kept-quarantines.js';
import type { PreparedSet } from './prepare.js';
import { type Consistency, quorumMissing, suffices } from './quorum.js';
import type { RepositoryRecord } from './records.js';
import { noAnswer, nothingToWaitFor, type Patient } from './stuck.js';
import { type Member, type ReplicaDirectory, storeTroubles } from './voters.js';

/** What rules and hooks ask of a store that is prepared. */
export type JudgingReplica = Pick<Replica, 'nonFastForwards' | 'runHook' | 'inspect'>;

export interface Judging {
  readonly key: QuarantineKey;
  readonly record: RepositoryRecord;
  readonly ready: PreparedSet;
  readonly consistency: Consistency;
  readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * So often, five seconds apart, a primary has to be seen to say that its disk hangs before another one takes over: what
 * is only busy for a moment need not run a long hook again. Where there is no other, it gets half a minute.
 */
const looksBeforeNext = 2;

/**
 * Rules and hooks, on the primary. When that dies, or says of itself that its disk hangs while it is asked, the next store
 * runs them again, from the start: at least once. Who is left so counts no more; `unavailable`, with its name, when
 * the others are too few.
 */
export async function judgeOnPrimary(
  { key, record, ready, consistency, ...environment }: Judging,
  judge: (replica: JudgingReplica) => Promise<readonly RefCommand[]>,
): Promise<{ readonly accepted: readonly RefCommand[]; readonly members: readonly Member[] }> {
  const { voters } = record;
  const stuck = new Map<string, QuorateError>();
  let { members } = ready;
  for (;;) {
    const [primary, ...others] = members;
    if (primary === undefined) throw new QuorateError('internal', 'nobody is left to judge a push');
    const rest = new Set(others.map(({ storeId }) => storeId));
    const spared = others.length > 0 && suffices(consistency, voters, rest);
    const questions = new Questions(primary, {
      ...environment,
      limitMs: Infinity,
      ...(spared ? { looks: looksBeforeNext } : {}),
    });
    try {
      const accepted = await whileKept({ ...environment, key, members }, () => judge(questions));
      return { accepted, members };
    } catch (error) {
      // What rules and hooks there are is in the coordinator: that this is away is no trouble of the store.
      if (!questions.failedWith(error)) throw error;
      if (questions.givenUp !== undefined) stuck.set(primary.storeId, questions.givenUp);
      if (!spared && questions.givenUp !== undefined) {
        throw quorumMissing(consistency, voters, rest, stuck);
      }
      if (!spared || !storeTroubles.has(asQuorateError(error).code)) throw error;
      members = others;
    } finally {
      questions.end();
    }
  }
}

/** Asks a store until it has said for long enough, while an answer is waited for, that its disk hangs. */
class Questions implements JudgingReplica {
  readonly #member: Member;
  readonly #patient: Patient;
  readonly #over = new AbortController();
  /** Reject what is asked now. */
  readonly #open = new Set<(why: QuorateError) => void>();
  #isWatched = false;
  #givenUp: QuorateError | undefined;
  /** What questions failed with. */
  readonly #failures = new WeakSet<Error>();
  /** What the caller's own part in them failed with. */
  readonly #ofCaller = new WeakSet<Error>();

  constructor(member: Member, patient: Patient) {
    this.#member = member;
    this.#patient = patient;
  }

  /** Why it is asked no more; undefined: it answers, or was not waited for that long. */
  get givenUp(): QuorateError | undefined {
    return this.#givenUp;
  }

  /** Whether this comes of what the store said, or did not say. */
  failedWith(error: unknown): boolean {
    const chain: Error[] = [];
    for (let next = error; next instanceof Error && !chain.includes(next); next = next.cause) {
      chain.push(next);
    }
    const isOf = (those: WeakSet<Error>): boolean => chain.some((one) => those.has(one));
    return isOf(this.#failures) && !isOf(this.#ofCaller);
  }

  /** The push is judged, or goes to another store. */
  end(): void {
    this.#over.abort('over');
  }

  nonFastForwards(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    const { replica } = this.#member;
    return this.#ask((either) => replica.nonFastForwards(key, commands, either), signal);
  }

  runHook(key: QuarantineKey, run: HookRun): Promise<HookEnd> {
    const { replica } = this.#member;
    // It may be running elsewhere by then, for the same pusher.
    const output = (bytes: Uint8Array): void => {
      if (this.#givenUp === undefined) run.output(bytes);
    };
    const content = (): Promise<Uint8Array> =>
      run.program.content().catch((error: unknown) => {
        if (error instanceof Error) this.#ofCaller.add(error);
        throw error;
      });
    const program = { ...run.program, content };
    return this.#ask(
      (signal) => replica.runHook(key, { ...run, program, output, signal }),
      run.signal,
    );
  }

  async *inspect(key: QuarantineKey, inspection: Inspection): AsyncGenerator<PushFact> {
    const facts = this.#member.replica.inspect(key, inspection)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.#unlessStuck(facts.next());
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      // One that hangs takes this when it goes on.
      const ended = Promise.resolve(facts.return?.());
      await this.#unlessStuck(ended).catch(() => undefined);
    }
  }

  /** What runs there is told when nobody waits for it any more. */
  async #ask<T>(question: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const ended = new AbortController();
    const end = (): void => ended.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    try {
      return await this.#unlessStuck(question(ended.signal));
    } finally {
      signal.removeEventListener('abort', end);
      if (this.#givenUp !== undefined) ended.abort('over');
    }
  }

  /** Not `Promise.race`: for each of a hundred thousand facts it would leave something with what lives longer. */
  #unlessStuck<T>(answer: Promise<T>): Promise<T> {
    if (!this.#isWatched) {
      this.#isWatched = true;
      void this.#watch();
    }
    return new Promise<T>((resolve, rejectWith) => {
      const reject = (why: unknown): void => {
        if (why instanceof Error) this.#failures.add(why);
        rejectWith(why);
      };
      answer.then(resolve, reject).finally(() => this.#open.delete(reject));
      if (this.#givenUp === undefined) this.#open.add(reject);
      else reject(this.#givenUp);
    });
  }

  /** Never rejects. */
  async #watch(): Promise<void> {
    await nothingToWaitFor(() => [this.#member], this.#patient, this.#over.signal);
    if (this.#over.signal.aborted) return;
    const why = noAnswer(this.#patient.replicas, this.#member.storeId);
    this.#givenUp = why;
    for (const giveUp of this.#open) giveUp(why);
  }
}
