import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Processes of a group, from /proc (proc(5)); those that end meanwhile do not count. */
export async function groupSize(groupId: number): Promise<number> {
  let size = 0;
  for (const pid of await processIds()) {
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
    // The name in brackets may hold anything; behind it: state, parent, group.
    const group = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2];
    if (group === String(groupId)) size += 1;
  }
  return size;
}

/** Kills every process that was started with this variable, which has a value that nothing else has. */
export async function killMarked(variable: string): Promise<void> {
  for (const pid of await processIds()) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (!environment.split('\0').includes(variable)) continue;
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
}

/** Tasks of this user: what RLIMIT_NPROC counts. */
export async function tasksOfUser(userId: number): Promise<number> {
  let tasks = 0;
  for (const pid of await processIds()) {
    const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
    const owner = /^Uid:\t(\d+)/m.exec(status)?.[1];
    const threads = /^Threads:\t(\d+)/m.exec(status)?.[1];
    if (owner === String(userId)) tasks += Number(threads ?? 1);
  }
  return tasks;
}

/** The most that this process may set RLIMIT_NPROC to; undefined: anything. */
export async function hardTaskLimit(): Promise<number | undefined> {
  const limits = await readFile('/proc/self/limits', 'latin1').catch(() => '');
  const hard = /^Max processes +\S+ +(\S+)/m.exec(limits)?.[1];
  return hard === undefined || hard === 'unlimited' ? undefined : Number(hard);
}

/** Names of the files in a directory (its real path) that processes of this user have open. */
export async function openFilesIn(directory: string): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (const pid of await processIds()) {
    const descriptors = join('/proc', pid, 'fd');
    for (const descriptor of await readdir(descriptors).catch((): string[] => [])) {
      const path = await readlink(join(descriptors, descriptor)).catch(() => '');
      if (dirname(path) === directory) names.add(basename(path));
    }
  }
  return names;
}

async function processIds(): Promise<readonly string[]> {
  const names = await readdir('/proc').catch((): string[] => []);
  return names.filter((name) => /^\d+$/.test(name));
}
