import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks a second of /proc (USER_HZ): 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

interface ProcessTimes {
  readonly parent: number;
  /** Own time and that of children it has waited for, in ticks. */
  readonly ticks: number;
}

/**
 * CPU seconds, user and system, that the trees below these processes have used so far: living processes, and dead ones
 * that were waited for. A child's time moves to its parent when it is reaped, so differences between two calls hold.
 */
export function treeCpuSeconds(roots: readonly number[]): number {
  const processes = readProcesses();
  const wanted = new Set(roots);
  let ticks = 0;
  for (const [pid, { ticks: own }] of processes) {
    if (hasAncestor(processes, pid, wanted)) ticks += own;
  }
  return ticks / ticksPerSecond;
}

/** The processes that these trees are made of now. */
export function treePids(roots: readonly number[]): readonly number[] {
  const processes = readProcesses();
  const wanted = new Set(roots);
  return [...processes.keys()].filter((pid) => hasAncestor(processes, pid, wanted));
}

/** Resident memory of the trees, in bytes. */
export function treeMemoryBytes(roots: readonly number[]): number {
  const processes = readProcesses();
  const wanted = new Set(roots);
  let bytes = 0;
  for (const pid of processes.keys()) {
    if (hasAncestor(processes, pid, wanted)) bytes += residentBytes(pid);
  }
  return bytes;
}

function hasAncestor(
  processes: ReadonlyMap<number, ProcessTimes>,
  pid: number,
  wanted: ReadonlySet<number>,
): boolean {
  for (
    let at: number | undefined = pid;
    at !== undefined && at > 1;
    at = processes.get(at)?.parent
  ) {
    if (wanted.has(at)) return true;
  }
  return false;
}

function readProcesses(): ReadonlyMap<number, ProcessTimes> {
  const processes = new Map<number, ProcessTimes>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = readIfThere(`/proc/${name}/stat`);
    // The command is in parentheses and may hold anything; fields are counted after it (proc(5)).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields.length < 15) continue;
    const [utime, stime, cutime, cstime] = fields.slice(11, 15).map(Number);
    processes.set(Number(name), {
      parent: Number(fields[1]),
      ticks: (utime ?? 0) + (stime ?? 0) + (cutime ?? 0) + (cstime ?? 0),
    });
  }
  return processes;
}

function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readIfThere(`/proc/${pid}/status`));
  return Number(match?.[1] ?? 0) * 1024;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
