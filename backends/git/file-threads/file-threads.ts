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
}

/** What is written is a few hundred bytes, but for the intents of pushes with thousands of refs. */
const maxTextLength = 1024 * 1024;
/** Far more than orders with such texts take. */
const resourceLimits = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 1 };

/**
 * Takes the steps of a push in few threads of their own. On Node's thread pool each step, each open and each close is a
 * trip to another thread and back, at some 50 µs of CPU; here all steps that follow each other are one.
 */
export class FileThreads {
  #size: number;
  readonly #logger: Logger;
  readonly #idleMs: number;
  #threads: FileThread[] = [];
  #closed = false;

  constructor({ threads = 6, logger, idleMs = 30_000 }: FileThreadsOptions) {
    this.#size = threads;
    this.#idleMs = idleMs;
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
    const started = new FileThread(this.#idleMs, {
      idle: () => {
        this.#threads = this.#threads.filter((thread) => thread !== started);
        void started.close();
      },
      failed: (error) => {
        this.#threads = this.#threads.filter((thread) => thread !== started);
        // Nothing in it may fail; on a machine on which it does, there is another way.
        this.#size = 0;
        this.#logger.error({ component: 'files', err: error }, 'a file thread ended');
      },
    });
    this.#threads.push(started);
    return started;
  }
}

function textLength(steps: readonly FileStep[]): number {
  let length = 0;
  for (const step of steps) if ('text' in step) length += step.text.length;
  return length;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface ThreadEvents {
  /** It had nothing to do for long; no order may come any more. */
  readonly idle: () => void;
  /** It ended by itself. */
  readonly failed: (error: Error) => void;
}

class FileThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #idleTimer: NodeJS.Timeout;
  #lastId = 0;
  #closing = false;
  #done: (() => void) | undefined;

  constructor(idleMs: number, events: ThreadEvents) {
    this.#worker = new Worker(new URL('./thread.js', import.meta.url), { resourceLimits });
    // Nobody's process is kept alive by a thread that has nothing to do.
    this.#worker.unref();
    this.#idleTimer = setTimeout(() => {
      if (this.orders === 0) events.idle();
      else this.#idleTimer.refresh();
    }, idleMs).unref();
    let cause = new QuorateError('storage-failure', 'the thread that writes files is gone');
    this.#worker.on('error', (error) => {
      cause = new QuorateError(cause.code, cause.message, { cause: error });
    });
    this.#worker.once('exit', () => {
      clearTimeout(this.#idleTimer);
      if (!this.#closing) events.failed(cause);
      for (const { reject } of this.#waiting.values()) reject(cause);
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
      this.#waiting.set(order.id, { resolve, reject });
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

  #settle({ id, failure }: Answer): void {
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
