import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Peer } from './peers/peer.js';
import { treeCpuSeconds, treePids } from './process-tree.js';

/** Tells how much CPU time servers have used. */
export interface CpuAccounting {
  /** How, in a sentence for the report. */
  readonly description: string;
  /** User and system seconds of a peer's processes so far; undefined where they cannot be told. */
  seconds(peer: Peer): number | undefined;
  /** When the servers have ended. */
  close(): Promise<void>;
}

/**
 * A control group for each server where that is allowed (root, cgroup v2): it counts to the microsecond, and what is
 * detached or never waited for as well. Elsewhere the process tree, in ticks of 10 ms.
 */
export function openCpuAccounting(peers: readonly Peer[]): CpuAccounting {
  const groups = new Map<string, string>();
  try {
    const root = groupRoot();
    if (root === undefined) return processTrees;
    for (const { pids } of peers) {
      const key = pids.join(' ');
      if (groups.has(key)) continue;
      const path = join(root, `quorate-bench-${process.pid}-${pids[0]}`);
      mkdirSync(path);
      groups.set(key, path);
      moveInto(path, pids);
    }
  } catch {
    // No permission, or a read-only hierarchy as in most containers. Groups that hold processes by now stay until those end.
    return processTrees;
  }
  return {
    description: 'CPU is counted by control groups.',
    seconds: ({ pids }) => {
      const path = groups.get(pids.join(' '));
      if (path === undefined) throw new Error('a server that is in no control group');
      const usage = /^usage_usec (\d+)$/m.exec(readFileSync(join(path, 'cpu.stat'), 'utf8'))?.[1];
      return Number(usage) / 1e6;
    },
    close: async () => {
      for (const path of groups.values()) await removeGroup(path);
    },
  };
}

const processTrees: CpuAccounting = {
  description:
    'CPU is counted by process trees, in steps of 10 ms: as root with cgroup v2 it is exact, and there for nginx too (fcgiwrap never waits for its children, so their time is lost).',
  seconds: ({ pids, losesCpuTime }) => (losesCpuTime ? undefined : treeCpuSeconds(pids)),
  close: () => Promise.resolve(),
};

/** Processes that were killed take a moment to leave; after five seconds the group is left to whoever finds it. */
async function removeGroup(path: string): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      rmdirSync(path);
      return;
    } catch {
      await delay(100);
    }
  }
}

/** Where cgroup v2 is mounted: alone, or beside version 1. */
function groupRoot(): string | undefined {
  const mounts = readFileSync('/proc/mounts', 'utf8');
  return /^\S+ (\S+) cgroup2 /m.exec(mounts)?.[1];
}

/** All processes of the trees, those too that are born meanwhile: at most a few generations are. */
function moveInto(group: string, pids: readonly number[]): void {
  for (let tries = 0; tries < 10; tries++) {
    const inside = new Set(readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n'));
    const outside = treePids(pids).filter((pid) => !inside.has(String(pid)));
    if (outside.length === 0) return;
    for (const pid of outside) writeFileSync(join(group, 'cgroup.procs'), String(pid));
  }
  throw new Error('processes are born faster than they can be moved');
}
