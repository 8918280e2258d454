import { availableParallelism, totalmem } from 'node:os';
import type { StoreShape } from '../../backends/contract/backend.js';

const MIB = 1024 ** 2;

/** git upload-pack and the git pack-objects that it starts, with nothing to do. Measured: 4 to 5 MiB together. */
const baseBytes = 6 * MIB;
/** Of git's tables, for an object that is listed and packed: 150 to 200 bytes by its source. */
const bytesPerObject = 200;
/** Deltas of trees and commits that are walked are kept inflated: 2 KiB each at most, on the average, up to git's bound. */
const walkedBytesPerObject = 2048;
const baseCacheBytes = 32 * MIB;
/** git's own bound, for who is alone. */
const baseCacheBytesAlone = 96 * MIB;
/** Objects in whose neighbourhood a delta is looked for, per thread, with the index that is made of each. */
const windowBytes = 32 * MIB;
/** Deltas found and not written yet, of all threads. */
const foundBytes = 16 * MIB;

/** A part of the whole history: git lists what the client lacks, and little more. */
const partialShare = 1 / 4;

/**
 * For one transport's fetches: a part of the memory of the machine or of the container, and no more than keeps some
 * dozen of gits busy, whoever many ask. A server of large repositories wants more, which is for its administrator to say.
 */
export function defaultPackMemoryBytes(): number {
  const constrained = process.constrainedMemory();
  // A number beyond the machine's memory, or 0, says that nothing is constrained.
  const memoryBytes =
    constrained !== undefined && constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  return Math.min(256 * MIB, Math.floor(memoryBytes / 8));
}

export interface PackPlan {
  /** What git may take of memory of its own. Packs that it maps are the system's to drop. */
  readonly memoryBytes: number;
  /** git's configuration that keeps it within. */
  readonly config: Readonly<Record<string, string>>;
}

/**
 * How git is to make a pack, and what memory that takes. Measured for 100 MiB of blobs without deltas: 1 MiB of private
 * memory beyond the base when they lie in one pack, with a bitmap or without; in ten packs 29 MiB with one thread and
 * 105 MiB with four, since deltas are looked for between packs. So threads are for those who are alone.
 */
export function planPack(
  { objectCount, packCount }: StoreShape,
  { alone, partial }: { readonly alone: boolean; readonly partial: boolean },
): PackPlan {
  const threads = alone ? Math.min(4, availableParallelism()) : 1;
  const cacheBytes = alone ? baseCacheBytesAlone : baseCacheBytes;
  const objects = objectCount * (partial ? partialShare : 1);
  const lists = objects * bytesPerObject + Math.min(cacheBytes, objects * walkedBytesPerObject);
  const deltas = packCount > 1 ? threads * windowBytes + foundBytes : 0;
  return {
    memoryBytes: Math.ceil(baseBytes + lists + deltas),
    config: {
      'pack.threads': String(threads),
      'pack.windowMemory': String(windowBytes),
      'pack.deltaCacheSize': String(foundBytes),
      'core.deltaBaseCacheLimit': String(cacheBytes),
      // Larger blobs are sent as they are stored, and not held in memory for deltas.
      'core.bigFileThreshold': String(windowBytes),
    },
  };
}
