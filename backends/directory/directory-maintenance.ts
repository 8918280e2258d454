import { join } from 'node:path';
import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import type { Clock, Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { GitRunner } from '../git/git-runner.js';
import { readObjectStoreStats } from '../git/repository-files.js';
import { runMaintenanceGit } from '../git/run-maintenance-git.js';
import { SerialQueue } from '../local/serial-queue.js';

export interface DirectoryMaintenanceOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly meter: Meter;
}

interface Waiting {
  readonly report: Promise<MaintenanceReport>;
  readonly listeners: ((progress: MaintenanceProgress) => void)[];
}

/**
 * Runs `git maintenance run` in a repository, which does what the repository's own configuration says; git's own
 * grace period protects what a push brings meanwhile. One at a time on this machine.
 */
export class DirectoryMaintenance {
  readonly #options: DirectoryMaintenanceOptions;
  readonly #queue = new SerialQueue();
  /** Runs that have not started yet, by repository: whoever asks for one joins it. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #stopped = new AbortController();

  constructor(options: DirectoryMaintenanceOptions) {
    this.#options = options;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** A caller that aborts stops waiting; the run goes on for the others. */
  async run(
    gitDir: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport> {
    const waiting = this.#waiting.get(gitDir) ?? this.#enqueue(gitDir);
    if (options.progress !== undefined) waiting.listeners.push(options.progress);
    return new Promise((resolve, reject) => {
      const abort = (): void =>
        reject(new QuorateError('cancelled', 'nobody waits for it any more'));
      options.signal.addEventListener('abort', abort, { once: true });
      if (options.signal.aborted) abort();
      waiting.report.then(resolve, reject).finally(() => {
        options.signal.removeEventListener('abort', abort);
      });
    });
  }

  /** Ends what runs. git leaves a sound repository behind wherever it is ended. */
  async close(): Promise<void> {
    this.#stopped.abort();
    await Promise.allSettled([...this.#waiting.values()].map(({ report }) => report));
    await this.#queue.run(() => Promise.resolve());
  }

  #enqueue(gitDir: string): Waiting {
    const listeners: Waiting['listeners'] = [];
    const report = this.#queue.run(async () => {
      this.#waiting.delete(gitDir);
      return this.#maintain(gitDir, (progress) => listeners.forEach((tell) => tell(progress)));
    });
    const waiting = { report, listeners };
    this.#waiting.set(gitDir, waiting);
    return waiting;
  }

  async #maintain(
    gitDir: string,
    progress: (progress: MaintenanceProgress) => void,
  ): Promise<MaintenanceReport> {
    const { git, clock, meter } = this.#options;
    const objectsDir = join(gitDir, 'objects');
    const startedMs = clock.monotonicMs();
    const before = await readObjectStoreStats(objectsDir);
    progress({ step: 'maintenance', done: 0, total: 1 });
    try {
      await runMaintenanceGit(
        { git, gitDir, signal: this.#stopped.signal },
        { args: ['maintenance', 'run', '--quiet'] },
      );
      meter.count('maintenance_runs', { outcome: 'ok' });
    } catch (error) {
      meter.count('maintenance_runs', { outcome: 'error' });
      throw error;
    }
    progress({ step: 'maintenance', done: 1, total: 1 });
    const after = await readObjectStoreStats(objectsDir);
    return {
      packsBefore: before.packCount + before.cruftPackCount,
      packsAfter: after.packCount + after.cruftPackCount,
      sizeBytesBefore: before.sizeBytes,
      sizeBytesAfter: after.sizeBytes,
      durationMs: clock.monotonicMs() - startedMs,
    };
  }
}
