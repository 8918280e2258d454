import { Worker } from 'node:worker_threads';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import { failedAt, type FileStep, takeFileSteps } from '../file-steps.js';
import type { Answer, Order } from './messages.js';

export interface FileThreadsOptions {
  /**
   * At most; 0: Node's thread pool does everything. Default 6, some 8 MB each: where many repositories are pushed to
   * at once, two that wait for the disk leave much to the pool, which costs a seventh more.
   */
  readonly threads?: number;
  readonly logger: Logger;
  /** A thread that had nothing to do for this long ends (default 30 s). */
  readonly idleMs?: number;
  /** After a thread could not be started, or ended by itself, none is started for so long (default 10 s). */
  readonly pauseMs?: number;
  /** Starts one with `thread.ts` as its program. */
  readonly start?: () => Worker;
}

/** What is written is a few hundred bytes, but for the intents of pushes with thousands of refs. */
const maxTextLength = 1024 * 1024;
/** Far more than orders with such texts take. */
const resourceLimits = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 1 };
/** Each pause is twice as long as the one before, up to here, until a thread has done something. */
const longestPauseMs = 600_000;

function startThread(): Worker {
  return new Worker(new URL('./thread.js', import.meta.url), { resourceLimits });
}

/**
 * Takes the steps of a push in few threads of their own. Where none can be had, for lack of memory or of threads, Node's
 * thread pool takes them, and threads are tried again after a pause. On Node's thread pool each step, each open and each close is a
 * trip to another thread and back, at some 50 µs of CPU; here all steps that follow each other are one.
 */
export class FileThreads {
  readonly #size: number;
  readonly #logger: Logger;
  readonly #idleMs: number;
  readonly #start: () => Worker;
  readonly #firstPauseMs: number;
  #nextPauseMs: number;
  /** On the monotonic clock: until then none is started. */
  #pausedUntilMs = 0;
  #threads: FileThread[] = [];
  #closed = false;

  constructor({
    threads = 6,
    logger,
    idleMs = 30_000,
    pauseMs = 10_000,
    start = startThread,
  }: FileThreadsOptions) {
    this.#size = threads;
    this.#idleMs = idleMs;
    this.#firstPauseMs = pauseMs;
    this.#nextPauseMs = pauseMs;
    this.#start = start;
    this.#logger = logger;
  }

  /** Threads that there are. */
  get open(): number {
    return this.#threads.length;
  }

  /** See `TakeFileSteps`. */
  readonly take = (steps: readonly FileStep[]): Promise<void> => {
    const thread = textLength(steps) > maxTextLength ? undefined : this.#thread();
    return thread === undefined ? takeFileSteps(steps) : thread.take(steps);
  };

  /** When all that was begun has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /**
   * One with nothing to do. They start when they are first needed. Nothing waits for a thread that waits for the disk:
   * those of Node's pool do so side by side.
   */
  #thread(): FileThread | undefined {
    if (this.#closed) return undefined;
    const idle = this.#threads.find(({ orders }) => orders === 0);
    if (idle !== undefined || this.#threads.length >= this.#size) return idle;
    return performance.now() < this.#pausedUntilMs ? undefined : this.#started();
  }

  #started(): FileThread | undefined {
    try {
      const started = new FileThread(this.#start, this.#idleMs, {
        idle: () => {
          this.#threads = this.#threads.filter((thread) => thread !== started);
          void started.close();
        },
        works: () => {
          this.#nextPauseMs = this.#firstPauseMs;
        },
        failed: (error) => {
          this.#threads = this.#threads.filter((thread) => thread !== started);
          this.#pause(error);
        },
      });
      this.#threads.push(started);
      return started;
    } catch (error) {
      this.#pause(error);
      return undefined;
    }
  }

  /** Several that fail together make one pause. */
  #pause(error: unknown): void {
    const nowMs = performance.now();
    if (nowMs < this.#pausedUntilMs) return;
    const pauseMs = this.#nextPauseMs;
    this.#pausedUntilMs = nowMs + pauseMs;
    this.#nextPauseMs = Math.min(2 * pauseMs, longestPauseMs);
    this.#logger.warn(
      { component: 'files', pause_ms: pauseMs, err: error },
      'a thread for files could not be had; without it pushes cost more',
    );
  }
}

function textLength(steps: readonly FileStep[]): number {
  let length = 0;
  for (const step of steps) if ('text' in step) length += step.text.length;
  return length;
}

interface Waiting {
  readonly steps: readonly FileStep[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface ThreadEvents {
  /** It had nothing to do for long; no order may come any more. */
  readonly idle: () => void;
  /** It has carried out its first order. */
  readonly works: () => void;
  /** It ended by itself. */
  readonly failed: (error: Error) => void;
}

class FileThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #idleTimer: NodeJS.Timeout;
  #lastId = 0;
  #begun = false;
  #works: (() => void) | undefined;
  #closing = false;
  #done: (() => void) | undefined;

  constructor(start: () => Worker, idleMs: number, events: ThreadEvents) {
    this.#worker = start();
    this.#works = events.works;
    // Nobody's process is kept alive by a thread that has nothing to do.
    this.#worker.unref();
    this.#idleTimer = setTimeout(() => {
      if (this.orders === 0) events.idle();
      else this.#idleTimer.refresh();
    }, idleMs).unref();
    let cause = new QuorateError('storage-failure', 'the thread that writes files is gone');
    this.#worker.once('online', () => {
      this.#begun = true;
    });
    this.#worker.on('error', (error) => {
      cause = new QuorateError(cause.code, cause.message, { cause: error });
    });
    this.#worker.once('exit', () => {
      clearTimeout(this.#idleTimer);
      if (!this.#closing) events.failed(cause);
      for (const waiting of this.#waiting.values()) this.#abandon(waiting, cause);
      this.#waiting.clear();
      this.#done?.();
    });
    this.#worker.on('message', (answer: Answer) => this.#settle(answer));
  }

  /** Being worked on, or waiting. */
  get orders(): number {
    return this.#waiting.size;
  }

  take(steps: readonly FileStep[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#lastId += 1;
      const order: Order = { id: this.#lastId, steps };
      this.#waiting.set(order.id, { steps, resolve, reject });
      if (this.#waiting.size === 1) this.#worker.ref();
      this.#worker.postMessage(order, []);
    });
  }

  /** When what was begun has ended. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#waiting.size > 0) await new Promise<void>((resolve) => (this.#done = resolve));
    // Its end is waited for.
    this.#worker.ref();
    await this.#worker.terminate();
  }

  /** A thread that never ran has done nothing of its orders. */
  #abandon({ steps, resolve, reject }: Waiting, cause: QuorateError): void {
    if (this.#begun) reject(cause);
    else takeFileSteps(steps).then(resolve, reject);
  }

  #settle({ id, failure }: Answer): void {
    this.#works?.();
    this.#works = undefined;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) {
      this.#worker.unref();
      this.#idleTimer.refresh();
      this.#done?.();
    }
    if (failure === undefined) {
      waiting?.resolve();
      return;
    }
    const { step, code, message } = failure;
    const error = Object.assign(new Error(message), { code });
    failedAt(step, error);
    waiting?.reject(error);
  }
}
