import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
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

/** Shared with the watching thread, in this order. */
const places = { stop: 0, pssBytes: 1, gits: 2, samples: 3 };

/** Watches a process tree (Linux) until `stop`, from a thread of its own: a test that starts hundreds of processes is busy. */
export function watchShare(rootPid: number): { stop(): Promise<SharePeak> } {
  const shared = new Float64Array(new SharedArrayBuffer(4 * Float64Array.BYTES_PER_ELEMENT));
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { rootPid, shared } });
  const ended = once(worker, 'exit');
  return {
    async stop() {
      shared[places.stop] = 1;
      await ended;
      return {
        pssBytes: shared[places.pssBytes] ?? 0,
        gits: shared[places.gits] ?? 0,
        samples: shared[places.samples] ?? 0,
      };
    },
  };
}

async function watch(rootPid: number, shared: Float64Array): Promise<void> {
  const raise = (place: number, value: number): void => {
    shared[place] = Math.max(shared[place] ?? 0, value);
  };
  for (let samples = 1; shared[places.stop] !== 1; samples += 1) {
    const processes = await processTree(rootPid);
    const shares = await Promise.all(processes.map(({ pid }) => shareOf(pid)));
    const pssBytes = shares.reduce((sum, bytes) => sum + bytes, 0);
    raise(places.pssBytes, pssBytes);
    raise(places.gits, processes.filter(({ isNode }) => !isNode).length);
    raise(places.samples, samples);
    await sleep(intervalMs);
  }
}

async function shareOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0) * 1024;
}

interface WatchData {
  readonly rootPid: number;
  readonly shared: Float64Array;
}

function isWatchData(data: unknown): data is WatchData {
  return typeof data === 'object' && data !== null && 'rootPid' in data && 'shared' in data;
}

if (!isMainThread && isWatchData(workerData)) await watch(workerData.rootPid, workerData.shared);
