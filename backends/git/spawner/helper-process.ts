import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import {
  isFromHelper,
  runLockVariable,
  socketVariable,
  type FromHelper,
  type ToHelper,
} from './messages.js';

/** Node starts in 50 ms; a loaded machine takes its time. */
const startTimeoutMs = 30_000;

export interface HelperOptions {
  readonly socketPath: string;
  readonly runLock: string | undefined;
  readonly path: string;
  readonly onMessage: (message: FromHelper) => void;
  /** Once, when the process is gone, however. */
  readonly onExit: () => void;
}

/** One running helper. */
export class HelperProcess {
  readonly #process: ChildProcess;
  #ready = false;
  #gone = false;
  readonly exited: Promise<void>;

  constructor(options: HelperOptions) {
    this.#process = fork(fileURLToPath(new URL('./helper.js', import.meta.url)), [], {
      // Small heaps: what forks cheaply is a process with little memory.
      execArgv: ['--max-old-space-size=64', '--max-semi-space-size=1', '--no-warnings'],
      env: {
        PATH: options.path,
        [socketVariable]: options.socketPath,
        [runLockVariable]: options.runLock ?? '',
      },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const startTimer = setTimeout(() => this.#process.kill('SIGKILL'), startTimeoutMs);
    this.#process.on('message', (message: unknown) => {
      if (!isFromHelper(message)) return;
      if (message.type === 'ready') {
        clearTimeout(startTimer);
        this.#ready = true;
      }
      options.onMessage(message);
    });
    // Without its channel a helper is as good as dead: it ends its children and exits, and gets no new ones.
    this.#process.on('disconnect', () => (this.#ready = false));
    this.exited = new Promise((resolve) => {
      const gone = (): void => {
        if (this.#gone) return;
        this.#gone = true;
        this.#ready = false;
        clearTimeout(startTimer);
        options.onExit();
        resolve();
      };
      this.#process.on('exit', gone);
      // Also what a failed fork and a failed kill emit.
      this.#process.on('error', () => {
        if (this.#process.pid === undefined) gone();
      });
    });
  }

  /** It has said that it takes jobs, and its channel is open. */
  get ready(): boolean {
    return this.#ready;
  }

  send(message: ToHelper): void {
    // A failed send means that the channel is closing; `onExit` follows and settles every job.
    if (this.#process.connected) this.#process.send(message, () => {});
  }

  /** Ends it and what it started; resolves when it is gone, by force after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    if (this.#process.connected) this.#process.disconnect();
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), graceMs);
    await this.exited;
    clearTimeout(timer);
  }
}
