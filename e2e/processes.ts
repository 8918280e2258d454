import { readFile, readdir, readlink } from 'node:fs/promises';
import path from 'node:path';

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
