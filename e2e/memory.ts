import { readFile, readdir, readlink, realpath } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** The highest sums of resident memory (RSS, shared pages counted in each process) seen at one time, in bytes. */
export interface MemoryPeak {
  /** The server's Node processes: the server itself, spawn helpers, libgit2 workers. */
  readonly nodeBytes: number;
  /** Everything else below it: git. */
  readonly otherBytes: number;
  readonly samples: number;
}

/** Long-lived growth is seen with any interval; short enough that a git of a tenth of a second is seen too. */
const intervalMs = 25;

/** Watches a process tree (Linux) until `stop`. */
export function watchMemory(rootPid: number): { stop(): Promise<MemoryPeak> } {
  const stopping = new AbortController();
  const watching = watch(rootPid, stopping.signal);
  return {
    stop: () => {
      stopping.abort();
      return watching;
    },
  };
}

async function watch(rootPid: number, signal: AbortSignal): Promise<MemoryPeak> {
  const node = await realpath(process.execPath);
  let peak: MemoryPeak = { nodeBytes: 0, otherBytes: 0, samples: 0 };
  do {
    const processes = await tree(rootPid);
    const sum = (isNode: boolean): number =>
      processes
        .filter(({ program }) => (program === node) === isNode)
        .reduce((bytes, { rssBytes }) => bytes + rssBytes, 0);
    peak = {
      nodeBytes: Math.max(peak.nodeBytes, sum(true)),
      otherBytes: Math.max(peak.otherBytes, sum(false)),
      samples: peak.samples + 1,
    };
    await sleep(intervalMs, undefined, { signal }).catch(() => undefined);
  } while (!signal.aborted);
  return peak;
}

interface Measured {
  readonly pid: number;
  readonly parent: number;
  readonly program: string;
  readonly rssBytes: number;
}

async function tree(rootPid: number): Promise<readonly Measured[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map(measure))).flat();
  const found = all.filter(({ pid }) => pid === rootPid);
  // Grows while it is walked: each generation brings the next.
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid));
  return found;
}

/** Empty for a process that is gone. */
async function measure(pid: number): Promise<readonly Measured[]> {
  const [status, program] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''),
    readlink(`/proc/${pid}/exe`).catch(() => ''),
  ]);
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
  if (status === '') return [];
  return [{ pid, parent: field('PPid'), program, rssBytes: field('VmRSS') * 1024 }];
}
