import type { Clock, Logger, Meter } from '../../contract/environment.js';
import { countingLogger, countingMeter } from './happenings.js';
import type { Scheduler } from './scheduler.js';
import type { SeededRandom } from './seeded-random.js';

/** Where a process may be made to die. */
export type CrashPoint = 'fsync' | 'rename' | 'disk' | 'message' | 'any';

export interface ProcessOptions {
  /** `front-end-1`, `store-2`: stays through restarts. */
  readonly name: string;
  /** How many times it was started before. */
  readonly boot: number;
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  /** How far the wall clock is off, in milliseconds. */
  readonly skewMs: number;
  /** Seconds that the monotonic clock counts in a true second. */
  readonly rate: number;
  /** Absent: nobody wants to read it. */
  readonly log: ((line: string) => void) | undefined;
  /** Told of what the code says it did, as far as anybody counts it (happenings.ts). */
  readonly happened: (what: string) => void;
}

/**
 * One life of one process. What it awaits from outside (time, disk, messages) comes through here: when it is dead
 * nothing comes any more, so that its code simply stops; when it is paused, everything waits.
 */
export class SimulatedProcess {
  readonly name: string;
  readonly boot: number;
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Tells that something came about, for the summary of a run. */
  readonly count: (what: string) => void;
  readonly #skewMs: number;
  readonly #rate: number;
  readonly #onDeath: (() => void)[] = [];
  /** Take listeners away from signals. */
  readonly #listening = new Set<() => void>();
  #alive = true;
  /** Points that it has passed. */
  readonly passed: CrashPoint[] = [];
  /** On which side of a change of the disk it dies, if it is to; undefined leaves it to chance. */
  side: 'before' | 'after' | undefined;
  #pausedUntilMs = 0;
  #trap: { readonly point: CrashPoint; left: number; readonly spring: () => void } | undefined;

  constructor(options: ProcessOptions) {
    this.name = options.name;
    this.boot = options.boot;
    this.scheduler = options.scheduler;
    this.random = options.random;
    this.#skewMs = options.skewMs;
    this.#rate = options.rate;
    this.clock = {
      nowMs: () => 1_700_000_000_000 + this.#skewMs + this.scheduler.nowMs * this.#rate,
      monotonicMs: () => this.scheduler.nowMs * this.#rate,
      sleep: (ms, signal) => this.#sleep(ms, signal),
    };
    const { log, happened } = options;
    this.count = happened;
    this.meter = countingMeter(happened);
    this.logger = countingLogger(happened, log === undefined ? undefined : logger(this, log, {}));
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Stopped, and not by itself: SIGSTOP, a hypervisor, swapping. */
  get paused(): boolean {
    return this.#pausedUntilMs > this.scheduler.nowMs;
  }

  /** Everything that would happen in it happens after this long. */
  pause(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.scheduler.nowMs + ms);
  }

  /** Nothing happens in it any more. */
  die(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const forget of this.#listening) forget();
    for (const tell of this.#onDeath.splice(0)) tell();
  }

  onDeath(tell: () => void): void {
    this.#onDeath.push(tell);
  }

  /** Calls `run` when the signal aborts, in this life. Node keeps combined signals for as long as somebody listens. */
  onAbort(signal: AbortSignal, run: () => void): () => void {
    const forget = (): void => {
      signal.removeEventListener('abort', run);
      this.#listening.delete(forget);
    };
    signal.addEventListener('abort', run, { once: true });
    this.#listening.add(forget);
    return forget;
  }

  /** Dies at the `count`th point of this kind from now on, just before or just after it. */
  trap(point: CrashPoint, count: number, spring: () => void): void {
    this.#trap = { point, left: count, spring };
  }

  untrap(): void {
    this.#trap = undefined;
  }

  /** To be called around what the process does to the world. */
  passes(point: CrashPoint): void {
    this.passed.push(point);
    const trap = this.#trap;
    if (trap === undefined) return;
    const meant = trap.point === 'any' || trap.point === point;
    // Whatever changes the disk does.
    if (!meant && (trap.point !== 'disk' || point === 'message')) return;
    if (--trap.left > 0) return;
    this.#trap = undefined;
    trap.spring();
  }

  /** Runs `run` in this process after a delay; never, if it dies before; later, if it is paused then. */
  after(delayMs: number, run: () => void): () => void {
    let cancel: (() => void) | undefined;
    const begin = (ms: number): void => {
      cancel = this.scheduler.after(ms, () => {
        if (!this.#alive) return;
        const leftMs = this.#pausedUntilMs - this.scheduler.nowMs;
        if (leftMs > 0) begin(leftMs);
        else run();
      });
    };
    begin(delayMs);
    return () => cancel?.();
  }

  /** Runs `run` in this process, to which something came, at once; never, if it is dead; later, if it is paused. */
  arrive(run: () => void): void {
    if (this.paused) this.after(0, run);
    else if (this.#alive) run();
  }

  /** What `run` answers after a delay. Never settles if the process dies before, or while it runs. */
  effect<T>(delayMs: number, run: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.after(delayMs, () => {
        try {
          const result = run();
          if (this.#alive) resolve(result);
        } catch (error) {
          if (this.#alive) reject(error);
        }
      });
    });
  }

  /** What `run` answers now. Never settles when the process is dead. */
  async immediate<T>(run: () => T): Promise<T> {
    if (!this.#alive) return never();
    return run();
  }

  #sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const wake = (): void => {
        cancel();
        forget?.();
        resolve();
      };
      const cancel = this.after(ms / this.#rate, wake);
      const forget = signal === undefined ? undefined : this.onAbort(signal, wake);
    });
  }
}

export function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

function logger(process: SimulatedProcess, write: (line: string) => void, bound: object): Logger {
  const say = (level: string) => (fields: object, message: string) => {
    if (!process.alive) return;
    const facts = { ...bound, ...fields };
    const time = process.scheduler.nowMs.toFixed(3).padStart(11);
    write(`${time} ${process.name}.${process.boot} ${level} ${message} ${describe(facts)}`);
  };
  return {
    debug: say('debug'),
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: (fields) => logger(process, write, { ...bound, ...fields }),
  };
}

function describe(facts: object): string {
  return Object.entries(facts)
    .map(([name, value]) => `${name}=${describeValue(value)}`)
    .join(' ');
}

/** An error with its code and what brought it about; anything else as it is. */
export function describeValue(value: unknown): string {
  if (!(value instanceof Error)) return typeof value === 'string' ? value : JSON.stringify(value);
  const code = 'code' in value && typeof value.code === 'string' ? `${value.code}: ` : '';
  const cause = value.cause === undefined ? '' : ` <- ${describeValue(value.cause)}`;
  return `${code}${value.message}${cause}`;
}
