import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { isOneStopped } from '../processes.js';
import type { ServerProcess } from '../server-process.js';
import { waitFor } from '../wait.js';

/* Faults at a chosen system call, by strace(1): the process is hit on its way into the call, which then never runs. */

/** The calls that change what a crash leaves on the disk, but for writes into open files. */
export const changingCalls = [
  'mkdir',
  'pwrite64',
  'ftruncate',
  'fdatasync',
  'fsync',
  'link',
  'rename',
  'unlink',
  'rmdir',
] as const;

export interface Fault {
  readonly signal: 'KILL' | 'STOP';
  readonly call: (typeof changingCalls)[number];
  /** The first is 1. */
  readonly nth: number;
  /** Where strace writes what it sees. */
  readonly output: string;
}

/** Each thread counts for itself: only with one file thread does `nth` say which call of the server it is. */
export const oneFileThread = {
  env: { UV_THREADPOOL_SIZE: '1' },
  flags: ['--set', 'store.threads=0'],
} as const;

/** Arguments of strace. */
export function straceArguments({ signal, call, nth, output }: Fault): readonly string[] {
  const inject = `inject=${call}:signal=${signal}:when=${nth}`;
  return ['-f', '-o', output, '-e', `trace=${call}`, '-e', inject];
}

/** A tracer attached to processes that run, and to all that they start from now on. */
export class Tracer {
  readonly #process: ChildProcess;
  readonly #output: string;
  #stderr = '';

  private constructor(child: ChildProcess, output: string) {
    this.#process = child;
    this.#output = output;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
  }

  static async attach(pids: readonly number[], fault: Fault): Promise<Tracer> {
    const targets = pids.flatMap((pid) => ['-p', String(pid)]);
    const child = spawn('strace', [...straceArguments(fault), ...targets], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const tracer = new Tracer(child, fault.output);
    await waitFor('strace to attach', () => {
      // It may have attached and been done already: what works in the background meets the fault at once.
      // "attached" of each, or "attach: ptrace(...)" of one that has just ended.
      if (tracer.#stderr.split('attach').length > pids.length) return true;
      if (child.exitCode !== null) throw new Error(`strace cannot attach: ${tracer.#stderr}`);
      return false;
    });
    return tracer;
  }

  /** Whether a process was hit so far. */
  async hit(): Promise<boolean> {
    return wasHit(this.#output);
  }

  /** Lets go of what still runs. By force: asked politely, strace 6.1 may wait for threads that were killed. */
  async detach(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await gone;
  }
}

/**
 * Pushes, or does something else, until it is answered or hit, and for a moment more; then lets go, and sees to it that
 * the server serves: again if it was hit, or with what it started. Returns the answer, and whether there was a hit.
 */
export async function cutShort<T>(
  tracer: Tracer,
  {
    server,
    signal,
    act,
  }: { server: ServerProcess; signal: Fault['signal']; act: () => Promise<T> },
): Promise<{ hit: boolean; result: T }> {
  let answered = false;
  const acting = act().finally(() => (answered = true));
  await waitFor('an answer or a fault', async () => answered || (await tracer.hit()));
  // What goes on behind the answer: a moment for the faults that it meets.
  await waitFor('a late fault', () => tracer.hit(), 150).catch(() => undefined);
  const early = await tracer.hit();
  if (early && signal === 'STOP') await server.killTree();
  await tracer.detach();
  // One more may have come until the tracer was gone, which may not have had the time to write it down.
  const stood = !early && signal === 'STOP' && (await isOneStopped(server.pid));
  const hit = stood || (await tracer.hit());
  if (hit && !early && signal === 'STOP') await server.killTree();
  const result = await acting;
  // Who is being killed answers nothing.
  await waitFor('an end or a life', async () => !server.running || (await lives(server)));
  if (!server.running) {
    await server.exited();
    await server.relaunch().ready();
  }
  return { hit, result };
}

function lives({ opsUrl }: ServerProcess): Promise<boolean> {
  return fetch(`${opsUrl}/healthz`).then(
    ({ ok }) => ok,
    () => false,
  );
}

export async function wasHit(output: string): Promise<boolean> {
  const text = await readFile(output, 'utf8').catch(() => '');
  return text.includes('+++ killed by SIGKILL') || text.includes('--- stopped by SIGSTOP');
}
