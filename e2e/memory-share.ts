import { readFile } from 'node:fs/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { processTree } from './process-tree.js';

export interface SharePeak {
  /** Memory of the whole tree: PSS, in which a page that several processes share counts once in all. */
  readonly pssBytes: number;
  /** Processes below the server that are not Node's: git. */
  readonly gits: number;
  readonly samples: number;
}

/** Reading PSS walks page tables: some times a second are enough for what stays for longer. */
const intervalMs = 50;

/** Watches a process tree (Linux) until `stop`, from a thread of its own: a test that starts hundreds of processes is busy. */
export function watchShare(rootPid: number): { stop(): Promise<SharePeak> } {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { rootPid } });
  return {
    async stop() {
      const peak = new Promise<SharePeak>((resolve, reject) => {
        worker.once('message', resolve).once('error', reject);
      });
      worker.postMessage('stop');
      try {
        return await peak;
      } finally {
        await worker.terminate();
      }
    },
  };
}

async function watch(rootPid: number, signal: AbortSignal): Promise<SharePeak> {
  let peak: SharePeak = { pssBytes: 0, gits: 0, samples: 0 };
  do {
    const processes = await processTree(rootPid);
    const shares = await Promise.all(processes.map(({ pid }) => shareOf(pid)));
    peak = {
      pssBytes: Math.max(
        peak.pssBytes,
        shares.reduce((sum, bytes) => sum + bytes, 0),
      ),
      gits: Math.max(peak.gits, processes.filter(({ isNode }) => !isNode).length),
      samples: peak.samples + 1,
    };
    await sleep(intervalMs, undefined, { signal }).catch(() => undefined);
  } while (!signal.aborted);
  return peak;
}

async function shareOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0) * 1024;
}

if (!isMainThread && isWatchData(workerData)) {
  const stopping = new AbortController();
  parentPort?.once('message', () => stopping.abort());
  parentPort?.postMessage(await watch(workerData.rootPid, stopping.signal));
}

function isWatchData(data: unknown): data is { readonly rootPid: number } {
  return typeof data === 'object' && data !== null && 'rootPid' in data;
}
