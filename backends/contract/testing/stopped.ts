import type { ChildProcess } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { until } from './until.js';

/** SIGSTOP, and waits until it stands. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.pid !== undefined && child.kill('SIGSTOP')) await standing(child.pid);
}

/**
 * Waits until each thread of a process that was sent SIGSTOP stands, or has gone: the first of them to be scheduled takes
 * the signal, and on a busy machine the others can go on answering until then. Who waits in the kernel, for a disk or for
 * a child that was stopped before it became a program, stands when it comes back.
 */
export async function standing(pid: number): Promise<void> {
  await until('its threads to stand', async () => {
    const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
    const states = await Promise.all(threads.map((thread) => stateOf(`${pid}/task/${thread}`)));
    return states.every((state) => 'DTtZX'.includes(state));
  });
}

/** One letter, see proc(5). `X` when it has gone. */
async function stateOf(thread: string): Promise<string> {
  const stat = await readFile(`/proc/${thread}/stat`, 'latin1').catch(() => ') X');
  return stat.charAt(stat.lastIndexOf(')') + 2);
}
