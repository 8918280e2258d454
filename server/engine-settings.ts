import { setFlagsFromString } from 'node:v8';

/**
 * How V8 counts the memory of buffers. A pack passes through in buffers that die young, which as it comes makes V8
 * collect the whole heap over and over: for 100 MB, 20 to 50 times, at twice to three times the CPU of all else
 * (`docs/decisions.md`). The setting is read whenever it matters, so that setting it at start is in time.
 *
 * Node 24 is left as it is: what helps there (`--external-memory-accounted-in-global-limit`) lets buffers grow beyond
 * what a large clone over SSH may take.
 */
export function tuneEngine(): void {
  const major = Number(process.versions.v8.split('.')[0]);
  // Node 20: what a young collection frees counts as freed at once, not when a thread of V8's comes to it.
  if (major < 12) setFlagsFromString('--no-concurrent-array-buffer-sweeping');
}
