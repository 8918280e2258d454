import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

const SYNC_FILE_RANGE_WRITE = 2;

/**
 * Has the kernel begin to write files that are going to be synced, without waiting for it (Linux, `sync_file_range(2)`;
 * elsewhere nothing is done). Whoever syncs them one after another waits for the disk once then: a file that has no
 * blocks yet would be the next transaction of the file system's journal.
 */
export function writingBeginner(): (paths: readonly string[]) => void {
  const begin = process.platform === 'linux' ? syncFileRange() : undefined;
  return (paths) => {
    if (begin === undefined) return;
    for (const path of paths) {
      const file = openSync(path, 'r');
      try {
        // What goes wrong is found by the sync.
        begin(file, 0, 0, SYNC_FILE_RANGE_WRITE);
      } finally {
        closeSync(file);
      }
    }
  };
}

function syncFileRange(): ((...parameters: number[]) => number) | undefined {
  try {
    return koffi.load(null).func('sync_file_range', 'int', ['int', 'int64', 'int64', 'uint']);
  } catch {
    return undefined;
  }
}
