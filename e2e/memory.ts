import { setTimeout as sleep } from 'node:timers/promises';
import { processTree } from './process-tree.js';

/** The highest sums of resident memory (RSS, shared pages counted in each process) seen at one time, in bytes. */
export interface MemoryPeak {
  /** The server's Node processes: the server itself, spawn helpers, libgit2 workers. */
  readonly nodeBytes: number;
  /** Everything else below it: git. */
  readonly otherBytes: number;
  readonly totalBytes: number;
  readonly samples: number;
}

/** Short enough to see a git of a tenth of a second. */
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
  let peak: MemoryPeak = { nodeBytes: 0, otherBytes: 0, totalBytes: 0, samples: 0 };
  do {
    const processes = await processTree(rootPid);
    const sum = (wanted: boolean): number =>
      processes
        .filter(({ isNode }) => isNode === wanted)
        .reduce((bytes, { rssBytes }) => bytes + rssBytes, 0);
    const [node, other] = [sum(true), sum(false)];
    peak = {
      nodeBytes: Math.max(peak.nodeBytes, node),
      otherBytes: Math.max(peak.otherBytes, other),
      totalBytes: Math.max(peak.totalBytes, node + other),
      samples: peak.samples + 1,
    };
    await sleep(intervalMs, undefined, { signal }).catch(() => undefined);
  } while (!signal.aborted);
  return peak;
}
