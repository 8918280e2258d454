import { readFile, readdir, readlink, realpath } from 'node:fs/promises';

/** A process below a server, or the server itself. */
export interface TreeProcess {
  readonly pid: number;
  readonly parent: number;
  /** Runs Node: the server, a spawn helper, a libgit2 worker. Else it is git, or a hook. */
  readonly isNode: boolean;
  /** Arguments, each followed by a space. */
  readonly commandLine: string;
  readonly rssBytes: number;
}

/** The process and all that descend from it (Linux). */
export async function processTree(rootPid: number): Promise<readonly TreeProcess[]> {
  const node = await realpath(process.execPath);
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map((pid) => look(pid, node)))).flat();
  const found = all.filter(({ pid }) => pid === rootPid);
  // Grows while it is walked: each generation brings the next.
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid));
  return found;
}

/** Empty for a process that is gone. */
async function look(pid: number, node: string): Promise<readonly TreeProcess[]> {
  const [status, commandLine, program] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''),
    readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
    readlink(`/proc/${pid}/exe`).catch(() => ''),
  ]);
  if (status === '' || /^State:\s+Z/m.test(status)) return [];
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
  return [
    {
      pid,
      parent: field('PPid'),
      isNode: program === node,
      commandLine: commandLine.replaceAll('\0', ' '),
      rssBytes: field('VmRSS') * 1024,
    },
  ];
}
