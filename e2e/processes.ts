import { readFile, readdir, readlink } from 'node:fs/promises';
import path from 'node:path';
import { standing } from '../backends/contract/testing/stopped.js';

export interface ProcessInfo {
  readonly pid: number;
  readonly commandLine: string;
}

/**
 * Processes (Linux) that have to do with `directory`: they work in it, were started with it in their arguments or
 * environment, or hold a file below it open. This process itself is left out.
 */
export async function processesUsing(directory: string): Promise<readonly ProcessInfo[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids
      .filter((pid) => pid !== process.pid)
      .map(async (pid) => ((await uses(pid, directory)) ? [pid] : [])),
  );
  return Promise.all(
    found.flat().map(async (pid) => ({ pid, commandLine: await procText(pid, 'cmdline') })),
  );
}

/** Whether a process (Linux) was started with this variable in its environment. */
export async function wasStartedWith(pid: number, name: string, value: string): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
  return text.split('\0').includes(`${name}=${value}`);
}

/** Ids of a process and of everything it started, as far as their parents still live. */
export async function processTree(root: number): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const parents = new Map(
    await Promise.all(
      pids.map(async (pid) => {
        // The second field, the command, is in parentheses and may hold anything.
        const fields = (await procText(pid, 'stat')).replace(/^.*\) /s, '').split(' ');
        return [pid, Number(fields[1])] as const;
      }),
    ),
  );
  const tree = [root];
  for (const pid of tree) {
    for (const [child, parent] of parents) if (parent === pid) tree.push(child);
  }
  return tree;
}

/** Stops a process and everything it started, until nothing new is found: who does not stand yet may start another. */
export async function stopTree(root: number): Promise<readonly number[]> {
  const stopped = new Set<number>();
  for (let before = -1; before !== stopped.size;) {
    before = stopped.size;
    const found = (await processTree(root)).filter((pid) => !stopped.has(pid));
    for (const pid of found) {
      sendSignal(pid, 'SIGSTOP');
      stopped.add(pid);
    }
    await Promise.all(found.map((pid) => standing(pid)));
  }
  return [...stopped];
}

/** Whether a process or something that it started was stopped, and not gone on with. */
export async function isOneStopped(root: number): Promise<boolean> {
  const states = await Promise.all(
    (await processTree(root)).map(
      async (pid) => /^.*\) (.)/s.exec(await procText(pid, 'stat'))?.[1],
    ),
  );
  return states.includes('T');
}

/** To a process that may be gone. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

async function uses(pid: number, directory: string): Promise<boolean> {
  const texts = await Promise.all([
    procText(pid, 'cmdline'),
    procText(pid, 'environ'),
    procLink(pid, 'cwd'),
  ]);
  if (texts.some((text) => text.includes(directory))) return true;
  const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const targets = await Promise.all(files.map((fd) => procLink(pid, path.join('fd', fd))));
  return targets.some((target) => target.startsWith(directory));
}

/** Empty for a process that is gone, a zombie, or somebody else's. */
async function procText(pid: number, name: string): Promise<string> {
  const text = await readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
  return text.replaceAll('\0', ' ').trim();
}

function procLink(pid: number, name: string): Promise<string> {
  return readlink(`/proc/${pid}/${name}`).catch(() => '');
}
