import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { HookEnd, HookLimits } from '../contract/hook.js';
import { QuorateError } from '../contract/errors.js';
import { groupSize, killMarked } from './process-group.js';
import type { Spawned } from './spawner/spawner.js';

/** A program other than git, of an administrator. */
export interface ProgramCommand {
  /** Absolute. */
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd: string;
  /** Added to the fixed minimal environment. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * One of `env`, with a value that no other run has, ever: by it are found the processes that left the group of the
   * program.
   */
  readonly marker: string;
  readonly stdin: Uint8Array;
  readonly limits: HookLimits;
  readonly output: (bytes: Uint8Array) => void;
  readonly signal: AbortSignal;
}

/** How often the processes of a program are counted: a program that ends sooner is never looked at. */
const countingMs = 250;
/** For output that something still holds open after the program has ended and its group was told to. */
const streamGraceMs = 1_000;

type Bound = 'too-long' | 'too-much-output' | 'too-many-processes' | 'cancelled';

/** Watches over a started program until it and all that it started are gone. */
export async function watchProgram(spawned: Spawned, command: ProgramCommand): Promise<HookEnd> {
  const { limits, signal, output } = command;
  const watch = new Watch(spawned);
  let outputBytes = 0;
  const hear = (bytes: Buffer): void => {
    outputBytes += bytes.length;
    if (outputBytes > limits.maxOutputBytes) watch.end('too-much-output');
    else output(bytes);
  };
  spawned.stdout.on('data', hear);
  spawned.stderr.on('data', hear);
  // What it does not read is its own affair.
  spawned.stdin?.end(command.stdin);
  const cancel = (): void => watch.end('cancelled');
  signal.addEventListener('abort', cancel);
  if (signal.aborted) cancel();
  const timer = setTimeout(() => watch.end('too-long'), limits.timeoutMs);
  const counting = setInterval(() => void watch.count(limits.maxProcesses), countingMs);
  try {
    const exit = await spawned.exited;
    clearInterval(counting);
    watch.gone = true;
    await Promise.all([spawned.stdout, spawned.stderr].map(drained));
    await killMarked(`${command.marker}=${command.env[command.marker] ?? ''}`);
    if (watch.bound !== undefined) return { how: watch.bound };
    if (exit.lost) throw new QuorateError('unavailable', 'the process that runs hooks died');
    return exit.exitCode === null
      ? { how: 'killed', signal: exit.signal ?? 'unknown' }
      : { how: 'exited', exitCode: exit.exitCode };
  } finally {
    clearInterval(counting);
    clearTimeout(timer);
    signal.removeEventListener('abort', cancel);
    spawned.stdin?.destroy();
  }
}

class Watch {
  readonly #spawned: Spawned;
  /** The first bound that was passed. */
  bound: Bound | undefined;
  gone = false;
  #counting = false;

  constructor(spawned: Spawned) {
    this.#spawned = spawned;
  }

  end(bound: Bound): void {
    if (this.bound !== undefined || this.gone) return;
    this.bound = bound;
    if (bound === 'too-much-output' || bound === 'too-many-processes') this.#killNow();
    else this.#spawned.kill();
  }

  async count(maxProcesses: number): Promise<void> {
    if (this.#counting || this.gone) return;
    this.#counting = true;
    const size = await groupSize(this.#spawned.pid);
    this.#counting = false;
    if (size > maxProcesses) this.end('too-many-processes');
  }

  /** What runs away is not asked first. */
  #killNow(): void {
    try {
      // Its leader has not been reaped: the id is still this group's.
      process.kill(-this.#spawned.pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
    this.#spawned.kill();
  }
}

async function drained(stream: Socket): Promise<void> {
  if (stream.closed) return;
  const timer = setTimeout(() => stream.destroy(), streamGraceMs);
  await once(stream, 'close').catch(() => undefined);
  clearTimeout(timer);
}
