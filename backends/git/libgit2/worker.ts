/**
 * A process of its own that indexes small packs with libgit2: crashes, leaks and memory bombs stay in here.
 * Serves one job after the other, synchronously; ends with its parent.
 */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { writingBeginner } from './begin-writing.js';
import { indexSmallPack } from './index-small-pack.js';
import { KeptStores } from './kept-stores.js';
import { loadLibgit2, type Libgit2 } from './library.js';
import type { FromWorker, IndexJob, ToWorker } from './messages.js';

/**
 * A worker begins with some 50 MiB resident. One that a large object left above this is replaced, since malloc seldom
 * gives such memory back.
 */
const RETIRE_RSS_BYTES = 256 * 1024 ** 2;

let library: Libgit2 | undefined;
let kept: KeptStores | undefined;
const beginWriting = writingBeginner();

process.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'configure': {
      confine(message.configuration.memoryLimitBytes);
      const loaded = loadLibgit2(message.configuration.libraryNames);
      library = loaded;
      kept =
        loaded &&
        new KeptStores({ open: (path) => loaded.openStore(path), nowMs: () => performance.now() });
      tell(
        library === undefined
          ? { type: 'no-library' }
          : { type: 'ready', version: library.version },
      );
      return;
    }
    case 'index': {
      if (library === undefined || kept === undefined) {
        throw new Error('a job came before libgit2 was loaded');
      }
      const verdict = indexSmallPack(library, kept, message.job);
      if (verdict.kind === 'indexed') beginWritingOf(message.job, verdict.name);
      const residentBytes = process.memoryUsage.rss();
      const retiring = residentBytes > RETIRE_RSS_BYTES;
      kept.trim(residentBytes);
      tell({ type: 'verdict', id: message.job.id, verdict, retiring }, () => {
        if (retiring) process.disconnect();
      });
      return;
    }
  }
});
process.on('disconnect', () => process.exit(0));
// A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group; the server drains first and needs us.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

function beginWritingOf({ quarantinePackDir }: IndexJob, name: string): void {
  beginWriting(['pack', 'idx'].map((suffix) => `${quarantinePackDir}/${name}.${suffix}`));
}

function tell(message: FromWorker, sent: () => void = () => {}): void {
  process.send?.(message, undefined, undefined, sent);
}

/**
 * Linux: caps the private memory that may come on top of Node's own (the mappings of packs do not count; what V8
 * reserves differs by hundreds of megabytes between versions), leaves no core dumps of users' data, and dies with
 * the server even in the middle of a call. Elsewhere there is only the deadline.
 */
function confine(memoryLimitBytes: number): void {
  if (process.platform !== 'linux') return;
  const [RLIMIT_DATA, RLIMIT_CORE, PR_SET_PDEATHSIG, SIGKILL] = [2, 4, 1, 9];
  const c = koffi.load(null);
  const setLimit: (resource: number, limits: BigUint64Array) => number = c.func(
    'setrlimit',
    'int',
    ['int', 'void *'],
  );
  const cap = BigInt(ownDataBytes() + memoryLimitBytes);
  setLimit(RLIMIT_DATA, new BigUint64Array([cap, cap]));
  setLimit(RLIMIT_CORE, new BigUint64Array([0n, 0n]));
  const control: (...parameters: unknown[]) => number = c.func('int prctl(int option, ...)');
  control(PR_SET_PDEATHSIG, 'ulong', SIGKILL);
}

/** What the kernel holds against RLIMIT_DATA so far (`VmData`, proc(5)). */
function ownDataBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^VmData:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}
