import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { processTree } from './process-tree.js';

export interface SharePeak {
  /** Memory of the whole tree: PSS, in which a page that several processes share counts once in all. */
  readonly pssBytes: number;
  /** Processes below the server that are not Node's: git. */
  readonly gits: number;
  readonly samples: number;
}

/** Watches a process tree (Linux) until `stop`; reading PSS walks page tables, so it is done a few times a second only. */
export function watchShare(rootPid: number): { stop(): Promise<SharePeak> } {
  const stopping = new AbortController();
  const watching = watch(rootPid, stopping.signal);
  return {
    stop: () => {
      stopping.abort();
      return watching;
    },
  };
}

async function watch(rootPid: number, signal: AbortSignal): Promise<SharePeak> {
  let peak: SharePeak = { pssBytes: 0, gits: 0, samples: 0 };
  do {
    const processes = await processTree(rootPid);
    const shares = await Promise.all(processes.map(({ pid }) => shareOf(pid)));
    const pssBytes = shares.reduce((sum, bytes) => sum + bytes, 0);
    peak = {
      pssBytes: Math.max(peak.pssBytes, pssBytes),
      gits: Math.max(peak.gits, processes.filter(({ isNode }) => !isNode).length),
      samples: peak.samples + 1,
    };
    await sleep(100, undefined, { signal }).catch(() => undefined);
  } while (!signal.aborted);
  return peak;
}

async function shareOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0) * 1024;
}
