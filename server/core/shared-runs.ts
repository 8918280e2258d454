/**
 * Fetches that ask the same of the same state of a repository share one git: fifty jobs of a CI system that fetch one
 * commit at one moment cost what one costs. What is the same, the caller says with a key.
 */
import type { GitStream } from '../../backends/contract/backend.js';
import type { Clock, Meter } from '../../backends/contract/environment.js';
import { cancelledBy } from './service-error.js';
import { SharedOutput } from './shared-output.js';
import { Spools } from './spool.js';

export interface SharedRunLimits {
  /** Of one run, what stays in memory for who comes later; of all, those that have ended included. */
  readonly runMemoryBytes: number;
  readonly memoryBytes: number;
  /** How long the answer of a run that was asked for more than once is given to others when it has ended. */
  readonly keptMs: number;
  /** Of one run on disk, and how many there may be. */
  readonly spoolBytes: number;
  readonly spools: number;
}

const MIB = 1024 ** 2;

export const defaultSharedRunLimits: SharedRunLimits = {
  runMemoryBytes: 2 * MIB,
  memoryBytes: 32 * MIB,
  // A webhook reaches the last runner of a fleet some seconds after the first.
  keptMs: 5_000,
  spoolBytes: 512 * MIB,
  spools: 8,
};

/** What a reader sees of the git that it shares. */
export interface SharedGit extends Pick<GitStream, 'exited' | 'kill'> {
  readonly stdout: AsyncIterable<Uint8Array>;
}

export interface SharedAsk {
  /** Equal keys: one answer is as good as another, and whoever asks may see all of it. Undefined: not to be shared. */
  readonly key: string | undefined;
  /** Of who asks. Its abort is not the end of a run that others share. */
  readonly signal: AbortSignal;
  /** Told when a wait for another's run begins and ends. */
  readonly onHold?: ((held: boolean) => void) | undefined;
  /** Starts git, whose run `signal` ends. Whoever is first starts it, and waits for its admission. */
  readonly start: (signal: AbortSignal) => Promise<GitStream>;
}

/** `started`: a git for this one alone, so far. `joined`: another's. */
export type Sharing = 'started' | 'joined';

/** How often one waits for others to start what they then do not. */
const maxTries = 3;

/** What was asked lately: some hundred bytes each. */
const maxAsked = 10_000;

export class SharedRuns {
  readonly #limits: SharedRunLimits;
  readonly #clock: Clock;
  readonly #meter: Meter;
  readonly #spools: Spools;
  /** In the order in which they began. */
  readonly #runs = new Map<string, Run>();
  /** What was asked lately, and until when that counts; the oldest first. */
  readonly #asked = new Map<string, number>();

  constructor(
    limits: SharedRunLimits,
    parts: { readonly clock: Clock; readonly meter: Meter; readonly spoolDirectory: string },
  ) {
    this.#limits = limits;
    this.#clock = parts.clock;
    this.#meter = parts.meter;
    this.#spools = new Spools(parts.spoolDirectory, {
      most: limits.spools,
      sizeBytes: limits.spoolBytes,
    });
  }

  /** The answer of a git that runs for the same, or of a new one. Rejects as `start` does, or when the signal aborts. */
  async share(ask: SharedAsk): Promise<{ readonly git: SharedGit; readonly sharing: Sharing }> {
    const { key } = ask;
    let wanted = key !== undefined && (this.#asked.get(key) ?? 0) > this.#clock.monotonicMs();
    // Between finding no run and noting one nothing may be awaited, or two would start.
    for (let tries = 0; tries < maxTries; tries++) {
      const run = key === undefined ? undefined : this.#runs.get(key);
      if (run === undefined) break;
      wanted = true;
      if (!(await startedBy(run, ask))) continue;
      if (!run.joinable) break;
      run.popular = true;
      this.#meter.count('shared_fetches', { outcome: 'joined' });
      return { git: run.open(), sharing: 'joined' };
    }
    this.#meter.count('shared_fetches', { outcome: 'started' });
    return { git: await this.#start(ask, wanted), sharing: 'started' };
  }

  async #start(ask: SharedAsk, wanted: boolean): Promise<SharedGit> {
    const { runMemoryBytes } = this.#limits;
    const memoryBytes = this.#makeRoom(runMemoryBytes) ? runMemoryBytes : 0;
    const run = new Run(
      new SharedOutput({ memoryBytes, wanted, openSpool: () => this.#spools.open() }),
    );
    run.popular = wanted;
    const { key } = ask;
    if (key !== undefined) {
      this.#runs.delete(key);
      this.#runs.set(key, run);
    }
    try {
      const git = await ask.start(run.signal);
      return run.begin(git, (whole) => this.#ended(key, run, whole));
    } catch (error) {
      this.#forget(key, run);
      run.settle(false);
      throw error;
    }
  }

  /**
   * A whole answer is kept for a moment, if more than one has asked for it. Most are asked for once; to keep those as
   * well would cost the collection of garbage more than the rest of a small fetch.
   */
  #ended(key: string | undefined, run: Run, whole: boolean): void {
    if (key !== undefined && whole) this.#noteAsked(key);
    const keeps = whole && run.popular && run.output.keepable;
    if (key === undefined || this.#runs.get(key) !== run || !keeps) {
      this.#forget(key, run);
      return;
    }
    const { keptMs } = this.#limits;
    run.kept = true;
    void this.#clock.sleep(keptMs).then(() => this.#forget(key, run));
  }

  #noteAsked(key: string): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [old, untilMs] of this.#asked) {
      if (untilMs > nowMs && this.#asked.size < maxAsked) break;
      this.#asked.delete(old);
    }
    this.#asked.delete(key);
    this.#asked.set(key, nowMs + this.#limits.keptMs);
  }

  #forget(key: string | undefined, run: Run): void {
    if (key !== undefined && this.#runs.get(key) === run) this.#runs.delete(key);
    run.output.release();
  }

  /** Whether so much more may stay in memory. Answers of runs that have ended go for it. */
  #makeRoom(bytes: number): boolean {
    let held = bytes;
    for (const { output } of this.#runs.values()) held += output.memoryBytes;
    for (const [key, run] of this.#runs) {
      if (held <= this.#limits.memoryBytes) break;
      if (!run.kept) continue;
      held -= run.output.memoryBytes;
      this.#forget(key, run);
    }
    return held <= this.#limits.memoryBytes;
  }
}

/** One git, and those who read its answer. */
class Run {
  readonly output: SharedOutput;
  /** More than one has asked for it. */
  popular = false;
  /** It has ended, and its answer is kept for who comes a moment later. */
  kept = false;
  /** Whether git was started, once that is known. */
  readonly started: Promise<boolean>;
  settle!: (started: boolean) => void;
  readonly #abort = new AbortController();
  #git: GitStream | undefined;

  constructor(output: SharedOutput) {
    this.output = output;
    this.started = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  /** Ends git. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get joinable(): boolean {
    return !this.signal.aborted && this.output.joinable;
  }

  /** The first reader's view. `ended` is told whether git ended well, and all that it said was taken. */
  begin(git: GitStream, ended: (whole: boolean) => void): SharedGit {
    this.#git = git;
    const view = this.open();
    const taken = this.output.take(git.stdout);
    void Promise.all([git.exited, taken]).then(([{ exitCode }]) => ended(exitCode === 0));
    this.settle(true);
    return view;
  }

  open(): SharedGit {
    const git = this.#git;
    if (git === undefined) throw new Error('a run that has not begun was joined');
    const reader = this.output.open(() => this.#end());
    let leave: (() => void) | undefined;
    const left = new Promise<Awaited<GitStream['exited']>>((resolve) => {
      leave = () => resolve({ exitCode: null, signal: 'SIGTERM', stderr: '' });
    });
    return {
      stdout: reader,
      exited: Promise.race([git.exited, left]),
      kill: () => {
        reader.leave();
        // Who leaves last sees git's end, so that no git outlives its request; the others go on without this one.
        if (!this.signal.aborted) leave?.();
      },
    };
  }

  /** Nobody reads any more. */
  #end(): void {
    this.#abort.abort();
    this.#git?.kill();
  }
}

/** Whether it was started; false, too, when it could not be. Rejects when the signal of who waits aborts. */
async function startedBy({ started }: Run, { signal, onHold }: SharedAsk): Promise<boolean> {
  if (signal.aborted) throw cancelledBy(signal);
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(cancelledBy(signal));
    signal.addEventListener('abort', onAbort);
  });
  onHold?.(true);
  try {
    return await Promise.race([started, aborted]);
  } finally {
    onHold?.(false);
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}
