import { constants, PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';

const mib = 1024 ** 2;

/**
 * What the heap and the buffers beside it may grow by before V8 collects all of it: more than the buffers of a large
 * pack come to before a collection of the young ones frees them.
 */
const roomBytes = 96 * mib;
/** V8's own most: a heap becomes four times as large between two collections of all of it. */
const mostPercent = 300;
/** Heaps that are so large that the room is less than this of them are V8's business. */
const leastPercent = 25;

/**
 * How much a function has to run before V8 on Node 20 compiles it for speed, in bytes of its bytecode: eight times V8's
 * own measure. A push runs through some thousand functions once each; compiling the 430 that are warm after some dozens
 * costs more than they ever save, unless they are called very often, and then they get there all the same.
 */
const optimizingAfterBytes = 8 * 66 * 1024;

/**
 * When V8 compiles, and how it counts the memory of buffers. A pack passes through in buffers that die young, which as it comes makes V8
 * collect the whole heap over and over: for 100 MB, 10 to 50 times, at up to three times the CPU of all else
 * (`docs/decisions.md`). The settings are read whenever they matter, so that setting them at start is in time.
 */
export function tuneEngine(set: (flag: string) => void = setFlagsFromString): void {
  // Node 20: what a young collection frees counts as freed at once, not when a thread of V8's comes to it. What is its
  // like in Node 24 lets buffers grow beyond what a large clone over SSH may take.
  if (Number(process.versions.v8.split('.')[0]) < 12) {
    set('--no-concurrent-array-buffer-sweeping');
    // Node 24 has a cheap compiler for what is warm, and takes the dear one later by itself.
    set(`--interrupt-budget=${optimizingAfterBytes}`);
  }
  // V8 reads it when it has collected the whole heap, for the time up to the next.
  const leaveRoom = (): void => {
    set(`--heap-growing-percent=${growingPercent(getHeapStatistics().used_heap_size)}`);
  };
  leaveRoom();
  new PerformanceObserver((list) => {
    if (list.getEntries().some(isOfAll)) leaveRoom();
  }).observe({ entryTypes: ['gc'] });
}

/** By how much a heap of this size may grow before it is collected as a whole; 0: as V8 thinks best. */
export function growingPercent(heapBytes: number): number {
  const percent = Math.min(mostPercent, Math.round((100 * roomBytes) / heapBytes));
  return percent < leastPercent ? 0 : percent;
}

function isOfAll(collection: object): boolean {
  if (!('detail' in collection)) return false;
  const { detail } = collection;
  if (typeof detail !== 'object' || detail === null || !('kind' in detail)) return false;
  return detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR;
}
