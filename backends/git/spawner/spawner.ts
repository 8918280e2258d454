import { rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import { Deferred } from './deferred.js';
import { HelperProcess } from './helper-process.js';
import type { FromHelper, SpawnMessage } from './messages.js';
import { Rendezvous } from './rendezvous.js';

/** A fork, two connections and two messages: far less, even on a machine that swaps. */
const spawnTimeoutMs = 30_000;
/**
 * The helper has connected before it says that git runs; a server without free files never takes the connection. One that
 * is busy with hundreds of clones on a busy machine does, after more than five seconds (seen).
 */
const defaultConnectionMs = 60_000;
/** How long a spawn waits while every helper is being restarted. */
const helperWaitMs = 10_000;
/** Between deaths of a helper: 100 ms, doubled up to 5 s; a helper that lived longer than that starts afresh. */
const restartDelayMs = { first: 100, most: 5_000 };
/** Children of a dead helper get SIGTERM, then SIGKILL. */
const orphanGraceMs = 2_000;
const closeGraceMs = 5_000;

export interface SpawnRequest {
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** False: stdin is /dev/null. */
  readonly stdin: boolean;
  readonly leaveDescendants: boolean;
}

export interface Exit {
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The helper died under it; it was killed. */
  readonly lost: boolean;
}

export interface Spawned {
  readonly pid: number;
  readonly stdin: Socket | undefined;
  readonly stdout: Socket;
  readonly stderr: Socket;
  /** Never rejects. */
  readonly exited: Promise<Exit>;
  /** SIGTERM to the process group, SIGKILL after 5 seconds. Idempotent. */
  kill(): void;
}

interface Job {
  readonly helper: HelperProcess;
  pid: number | undefined;
  readonly spawned: Deferred<number>;
  readonly exited: Deferred<Exit>;
}

export interface SpawnerOptions {
  /** Exists, empty, mode 0700; removed on close. */
  readonly directory: string;
  readonly helpers: number;
  readonly runLock: string | undefined;
  readonly path: string;
  readonly logger: Logger;
  /** How long the streams of a process that runs are waited for. Default a minute. */
  readonly connectionMs?: number;
}

/** Starts processes from helpers, and keeps the helpers alive. */
export class Spawner {
  readonly #options: SpawnerOptions;
  readonly #socketPath: string;
  readonly #rendezvous: Rendezvous;
  readonly #helpers: (HelperProcess | undefined)[];
  readonly #jobs = new Map<number, Job>();
  readonly #readyWaiters = new Set<() => void>();
  readonly #ending = new Set<Promise<void>>();
  #nextJob = 1;
  #closed = false;

  private constructor(options: SpawnerOptions, socketPath: string, rendezvous: Rendezvous) {
    this.#options = options;
    this.#socketPath = socketPath;
    this.#rendezvous = rendezvous;
    this.#helpers = Array.from({ length: options.helpers }, () => undefined);
    this.#helpers.forEach((_, index) => this.#startHelper(index, restartDelayMs.first));
  }

  static async start(options: SpawnerOptions): Promise<Spawner> {
    const socketPath = join(options.directory, 'spawn.sock');
    const rendezvous = await Rendezvous.listen(socketPath);
    return new Spawner(options, socketPath, rendezvous);
  }

  /** Resolves when the process runs. Rejects with `unavailable` when it could not be started, or `invalid-argument`. */
  async spawn(request: SpawnRequest): Promise<Spawned> {
    const helper = await this.#pickHelper();
    const jobId = this.#nextJob++;
    const stdin = request.stdin ? this.#rendezvous.expect() : undefined;
    const stdout = this.#rendezvous.expect();
    const stderr = this.#rendezvous.expect();
    const job: Job = {
      helper,
      pid: undefined,
      spawned: new Deferred(),
      exited: new Deferred(),
    };
    this.#jobs.set(jobId, job);
    const message: SpawnMessage = {
      type: 'spawn',
      job: jobId,
      file: request.file,
      args: request.args,
      cwd: request.cwd,
      env: request.env,
      tokens: {
        ...(stdin === undefined ? {} : { stdin: stdin.token }),
        stdout: stdout.token,
        stderr: stderr.token,
      },
      leaveDescendants: request.leaveDescendants,
    };
    const timer = setTimeout(
      () => job.spawned.reject(new QuorateError('unavailable', 'git took too long to start')),
      spawnTimeoutMs,
    );
    const kill = (): void => {
      if (this.#jobs.has(jobId)) helper.send({ type: 'kill', job: jobId });
    };
    helper.send(message);
    try {
      const pid = await job.spawned.promise;
      // The helper connected before it forked, so these are here or on their way.
      const sockets = await this.#arrived(
        Promise.all([stdin?.socket, stdout.socket, stderr.socket]),
      );
      return {
        pid,
        stdin: sockets[0],
        stdout: sockets[1],
        stderr: sockets[2],
        exited: job.exited.promise,
        kill,
      };
    } catch (error) {
      kill();
      for (const expectation of [stdin, stdout, stderr]) expectation?.forget();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #arrived<T>(streams: Promise<T>): Promise<T> {
    const late = new Deferred<never>();
    const tooLate = (): void => late.reject(new QuorateError('unavailable', noStreams));
    // What has come while the main loop was busy is looked at first.
    const timer = setTimeout(
      () => setImmediate(tooLate),
      this.#options.connectionMs ?? defaultConnectionMs,
    );
    try {
      return await Promise.race([streams, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends every child and helper. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const waiter of this.#readyWaiters) waiter();
    const helpers = this.#helpers.filter((helper) => helper !== undefined);
    await Promise.all(helpers.map((helper) => helper.close(closeGraceMs)));
    await Promise.all(this.#ending);
    this.#rendezvous.close();
    await rm(this.#options.directory, { recursive: true, force: true });
  }

  #startHelper(index: number, restartMs: number): void {
    const { logger } = this.#options;
    const startedMs = performance.now();
    const startAgain = (): void => {
      const lived = performance.now() - startedMs;
      const nextMs = lived > restartDelayMs.most ? restartDelayMs.first : restartMs;
      setTimeout(() => {
        if (this.#closed) return;
        this.#startHelper(index, Math.min(nextMs * 2, restartDelayMs.most));
      }, nextMs).unref();
    };
    try {
      const helper = new HelperProcess({
        socketPath: this.#socketPath,
        runLock: this.#options.runLock,
        path: this.#options.path,
        onMessage: (message) => this.#onMessage(message),
        onExit: () => {
          this.#helpers[index] = undefined;
          this.#loseJobs(helper);
          if (this.#closed) return;
          logger.error({ component: 'git' }, 'spawn helper died; restarting it');
          startAgain();
        },
      });
      this.#helpers[index] = helper;
    } catch (error) {
      // No memory for a process: that passes, and is no reason for the server to end.
      logger.error(
        { component: 'git', err: error },
        'no spawn helper can be started; trying again',
      );
      startAgain();
    }
  }

  #onMessage(message: FromHelper): void {
    if (message.type === 'ready') {
      for (const waiter of this.#readyWaiters) waiter();
      return;
    }
    const job = this.#jobs.get(message.job);
    if (job === undefined) return;
    switch (message.type) {
      case 'spawned':
        job.pid = message.pid;
        job.spawned.resolve(message.pid);
        return;
      case 'failed':
        this.#jobs.delete(message.job);
        job.spawned.reject(spawnError(message.code));
        return;
      case 'exit':
        this.#jobs.delete(message.job);
        job.exited.resolve({ exitCode: message.exitCode, signal: message.signal, lost: false });
    }
  }

  /** What ran in a helper that died goes with it. */
  #loseJobs(helper: HelperProcess): void {
    for (const [jobId, job] of this.#jobs) {
      if (job.helper !== helper) continue;
      this.#jobs.delete(jobId);
      job.spawned.reject(new QuorateError('unavailable', 'the process that starts git died'));
      if (job.pid === undefined) continue;
      const ending = this.#endOrphan(job, job.pid).finally(() => this.#ending.delete(ending));
      this.#ending.add(ending);
    }
  }

  async #endOrphan(job: Job, pid: number): Promise<void> {
    await endOrphanedGroup(pid);
    job.exited.resolve({ exitCode: null, signal: null, lost: true });
  }

  async #pickHelper(): Promise<HelperProcess> {
    const deadlineMs = performance.now() + helperWaitMs;
    for (;;) {
      if (this.#closed) throw new QuorateError('unavailable', 'the server is shutting down');
      // The one with the fewest starts under way: one that hangs is not asked again and again.
      const [helper] = this.#helpers
        .flatMap((each) => (each?.ready === true ? [each] : []))
        .sort((a, b) => this.#starting(a) - this.#starting(b));
      if (helper !== undefined) return helper;
      const waitMs = deadlineMs - performance.now();
      if (waitMs <= 0) throw new QuorateError('unavailable', 'git cannot be started now');
      await this.#helperReady(waitMs);
    }
  }

  #starting(helper: HelperProcess): number {
    let starting = 0;
    for (const job of this.#jobs.values()) {
      if (job.helper === helper && job.pid === undefined) starting += 1;
    }
    return starting;
  }

  #helperReady(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#readyWaiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      this.#readyWaiters.add(done);
    });
  }
}

const noStreams =
  'git was started, but its streams did not arrive: the server may have no free files left (ulimit -n)';

async function endOrphanedGroup(pid: number): Promise<void> {
  if (!signalGroup(pid, 'SIGTERM')) return;
  const deadlineMs = performance.now() + orphanGraceMs;
  while (performance.now() < deadlineMs) {
    await delay(20);
    if (!signalGroup(pid, 0)) return;
  }
  signalGroup(pid, 'SIGKILL');
}

function signalGroup(pid: number, signal: 'SIGTERM' | 'SIGKILL' | 0): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

function spawnError(code: string): QuorateError {
  const details = { code };
  if (code === 'ECANCELED') return new QuorateError('cancelled', 'the request was cancelled');
  if (code === 'E2BIG') {
    return new QuorateError('invalid-argument', 'too many arguments for one git', { details });
  }
  return new QuorateError('unavailable', 'git could not be started', { details });
}
