import type { Logger } from '../../contract/environment.js';
import type { IndexJob, Verdict, WorkerConfiguration } from './messages.js';
import { startWorkerProcess, type WorkerProcess } from './worker-process.js';

export interface Libgit2PoolOptions {
  readonly configuration: WorkerConfiguration;
  readonly workers: number;
  /** Longest that one pack may take before its worker is killed. */
  readonly jobTimeoutMs: number;
  readonly logger: Logger;
}

/** libgit2 in worker processes. */
export interface Libgit2Pool {
  /** `1.5.1` */
  readonly version: string;
  readonly queued: number;
  /** Process ids of the workers that live. */
  readonly pids: readonly number[];
  /**
   * Never rejects: what goes wrong is an undecided verdict, and so are a full queue and a pool without workers.
   * No worker touches the quarantine any more once this has resolved.
   */
  index(job: Omit<IndexJob, 'id'>): Promise<Verdict>;
  /** Kills the workers; jobs that wait or run come back undecided. Idempotent. */
  close(): Promise<void>;
}

/** A small pack takes milliseconds, so this is under a second of waiting; more waiters are better off with git. */
const MAX_QUEUED = 128;
/** Wait before replacing a crashed worker: doubles from 100 ms to 10 s, and starts over after a good pack. */
const MIN_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 10_000;

interface Waiting {
  readonly job: IndexJob;
  readonly resolve: (verdict: Verdict) => void;
}

/** Undefined when this machine has no libgit2 1.x that can be loaded. */
export async function startLibgit2Pool(
  options: Libgit2PoolOptions,
): Promise<Libgit2Pool | undefined> {
  const first = await startWorkerProcess(options.configuration);
  if (first === undefined) return undefined;
  const pool = new WorkerPool(options, first.libgit2Version);
  pool.adopt(first);
  for (let i = 1; i < options.workers; i++) pool.startAnother(0);
  return pool;
}

class WorkerPool implements Libgit2Pool {
  readonly version: string;
  readonly #options: Libgit2PoolOptions;
  readonly #live = new Set<WorkerProcess>();
  readonly #idle: WorkerProcess[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #starting = new Set<Promise<void>>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #backoffMs = MIN_BACKOFF_MS;
  #nextId = 1;
  #closed = false;

  constructor(options: Libgit2PoolOptions, version: string) {
    this.#options = options;
    this.version = version;
  }

  get queued(): number {
    return this.#waiting.length;
  }

  get pids(): readonly number[] {
    return [...this.#live].map((worker) => worker.pid);
  }

  index(job: Omit<IndexJob, 'id'>): Promise<Verdict> {
    if (this.#closed || this.#live.size === 0 || this.#waiting.length >= MAX_QUEUED) {
      return Promise.resolve({ kind: 'undecided', reason: 'no worker is free' });
    }
    return new Promise((resolve) => {
      this.#waiting.push({ job: { ...job, id: this.#nextId++ }, resolve });
      this.#assign();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#dismissWaiting();
    await Promise.all(this.#starting);
    const exits = [...this.#live].map((worker) => worker.exited);
    for (const worker of this.#live) worker.kill();
    await Promise.all(exits);
  }

  /** Takes a started worker in, and replaces it when it ends. */
  adopt(worker: WorkerProcess): void {
    this.#live.add(worker);
    this.#idle.push(worker);
    void this.#replaceWhenGone(worker);
    this.#assign();
  }

  async #replaceWhenGone(worker: WorkerProcess): Promise<void> {
    const { expected, stderr } = await worker.exited;
    this.#live.delete(worker);
    const at = this.#idle.indexOf(worker);
    if (at >= 0) this.#idle.splice(at, 1);
    if (!expected) {
      this.#options.logger.warn({ component: 'libgit2', stderr }, 'a libgit2 worker ended');
    }
    if (this.#live.size === 0) this.#dismissWaiting();
    this.startAnother(expected ? 0 : this.#backoffMs);
    if (!expected) this.#backoffMs = Math.min(this.#backoffMs * 2, MAX_BACKOFF_MS);
  }

  startAnother(delayMs: number): void {
    if (this.#closed) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      const started = this.#start();
      this.#starting.add(started);
      void started.finally(() => this.#starting.delete(started));
    }, delayMs);
    this.#timers.add(timer);
  }

  async #start(): Promise<void> {
    const worker = await startWorkerProcess(this.#options.configuration);
    if (worker === undefined) {
      this.#options.logger.warn({ component: 'libgit2' }, 'a libgit2 worker did not start');
      this.startAnother(MAX_BACKOFF_MS);
    } else if (this.#closed) {
      worker.kill();
      await worker.exited;
    } else {
      this.adopt(worker);
    }
  }

  #assign(): void {
    while (this.#idle.length > 0 && this.#waiting.length > 0) {
      const worker = this.#idle.shift();
      const next = this.#waiting.shift();
      if (worker === undefined || next === undefined) return;
      void this.#work(worker, next);
    }
  }

  async #work(worker: WorkerProcess, { job, resolve }: Waiting): Promise<void> {
    const { verdict, reusable } = await worker.index(job, this.#options.jobTimeoutMs);
    if (verdict.kind === 'indexed') this.#backoffMs = MIN_BACKOFF_MS;
    resolve(verdict);
    if (reusable && this.#live.has(worker)) {
      this.#idle.push(worker);
      this.#assign();
    }
  }

  #dismissWaiting(): void {
    for (const { resolve } of this.#waiting.splice(0)) {
      resolve({ kind: 'undecided', reason: 'no worker lives' });
    }
  }
}
