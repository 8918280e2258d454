import { fork, type ChildProcess, type ForkOptions } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FromWorker, IndexJob, ToWorker, Verdict, WorkerConfiguration } from './messages.js';

/** Loading Node, koffi and libgit2 takes 0.1 s; a machine so slow that it takes this long has no use for workers. */
const START_TIMEOUT_MS = 30_000;
const STDERR_BYTES = 4096;

/** One running worker. Takes one job at a time. */
export interface WorkerProcess {
  readonly pid: number;
  readonly libgit2Version: string;
  /**
   * Resolves in every case: a worker that dies or takes longer than `timeoutMs` (it is killed) is undecided.
   * `reusable`: it takes another job.
   */
  index(
    job: IndexJob,
    timeoutMs: number,
  ): Promise<{ readonly verdict: Verdict; readonly reusable: boolean }>;
  /** Resolves once the process is gone, with what it last wrote to stderr; `expected` when it was meant to end. */
  readonly exited: Promise<{ readonly expected: boolean; readonly stderr: string }>;
  kill(): void;
}

/** Resolves to undefined when the worker found no libgit2 or could not start. */
export async function startWorkerProcess(
  configuration: WorkerConfiguration,
): Promise<WorkerProcess | undefined> {
  const child = forkWorker();
  if (child === undefined) return undefined;
  const state = { expected: false };
  const exited = watchExit(child, state);
  if (child.pid === undefined) {
    await exited;
    return undefined;
  }
  const { pid } = child;
  const next = messagesOf(child);
  const kill = (): void => {
    state.expected = true;
    child.kill('SIGKILL');
  };
  send(child, { type: 'configure', configuration });
  const first = await next(START_TIMEOUT_MS);
  if (first?.type !== 'ready') {
    kill();
    await exited;
    return undefined;
  }
  return {
    pid,
    libgit2Version: first.version,
    async index(job, timeoutMs) {
      send(child, { type: 'index', job });
      const answer = await next(timeoutMs);
      if (answer?.type === 'verdict' && answer.id === job.id) {
        if (answer.retiring) state.expected = true;
        return { verdict: answer.verdict, reusable: !answer.retiring };
      }
      child.kill('SIGKILL');
      // Nothing writes into the quarantine any more once it is gone.
      await exited;
      const reason = 'the worker died or took too long';
      return { verdict: { kind: 'undecided', reason }, reusable: false };
    },
    exited,
    kill,
  };
}

/**
 * Undefined, or without an id, when the machine has no memory, processes or files for it: that is no reason for the
 * server to end. One without an id has no channel, and tells of it by an `error`.
 */
function forkWorker(): ChildProcess | undefined {
  const options: ForkOptions = {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    cwd: '/',
    // No configuration of the person who runs the server reaches libgit2.
    env: { HOME: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent' },
    // The server's own flags (an inspector's port, say) are not for its workers.
    execArgv: [],
  };
  try {
    return fork(fileURLToPath(new URL('worker.js', import.meta.url)), [], options);
  } catch {
    return undefined;
  }
}

function send(child: ChildProcess, message: ToWorker): void {
  // A failure shows as an exit; the callback keeps it from being thrown as an 'error' event.
  child.send(message, () => {});
}

function watchExit(
  child: ChildProcess,
  state: { readonly expected: boolean },
): WorkerProcess['exited'] {
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_BYTES);
  });
  return new Promise((resolve) => {
    const done = (): void => resolve({ expected: state.expected, stderr });
    child.once('exit', done);
    // Could not be spawned: there is no exit then.
    child.once('error', done);
  });
}

/**
 * What a process says: each call waits for the next message, one call at a time; undefined when the process ends or says
 * nothing for `timeoutMs`. Listens once for all of them: to come and go costs more than a message does.
 */
function messagesOf(child: ChildProcess): (timeoutMs: number) => Promise<FromWorker | undefined> {
  let tell: ((message: FromWorker | undefined) => void) | undefined;
  const onEnd = (): void => tell?.(undefined);
  child.on('message', (message: FromWorker) => tell?.(message));
  child.once('exit', onEnd);
  child.once('error', onEnd);
  return (timeoutMs) =>
    new Promise((resolve) => {
      const timer = setTimeout(onEnd, timeoutMs);
      tell = (message) => {
        tell = undefined;
        clearTimeout(timer);
        resolve(message);
      };
      if (child.exitCode !== null || child.signalCode !== null) onEnd();
    });
}
