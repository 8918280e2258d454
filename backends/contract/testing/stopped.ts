import type { ChildProcess } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { until } from './until.js';

/**
 * SIGSTOP, and waits until each thread stands: the first of them to be scheduled takes the signal, and on a busy machine the
 * others can go on answering until then.
 */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (!child.kill('SIGSTOP')) return;
  await until('its threads to stand', async () => {
    const threads = await readdir(`/proc/${child.pid}/task`).catch(() => []);
    const states = await Promise.all(
      threads.map((thread) => stateOf(`${child.pid}/task/${thread}`)),
    );
    return states.every((state) => 'TtZX'.includes(state));
  });
}

/** One letter, see proc(5). `X` when it has gone. */
async function stateOf(thread: string): Promise<string> {
  const stat = await readFile(`/proc/${thread}/stat`, 'latin1').catch(() => ') X');
  return stat.charAt(stat.lastIndexOf(')') + 2);
}
