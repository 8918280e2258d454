import { readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isMissing, syncDirectory } from '../git/repository-files.js';

export interface Pushed {
  readonly gitDir: string;
  /** Full names of the refs that were changed. */
  readonly refs: readonly string[];
  /** When the push began, on the wall clock, in milliseconds. */
  readonly sinceMs: number;
}

/** Of refs; a push to more of them is rare, and as durable as git makes it. */
const maxDirectories = 1_000;
/** By which the clock of a file server may be behind ours. What is synced for nothing costs little. */
const clockSlackMs = 60_000;

/**
 * git syncs the files that it writes, but not the directories that name them: those of the pack, of loose objects, and
 * of the refs up to `refs`, which may be new. Errors: those of the file system.
 */
export async function makeDurable({ gitDir, refs, sinceMs }: Pushed): Promise<void> {
  if (refs.length === 0) return;
  const objectsDir = join(gitDir, 'objects');
  const wanted = new Set([join(objectsDir, 'pack'), ...(await touchedSince(objectsDir, sinceMs))]);
  wanted.add(objectsDir);
  const ofRefs = new Set<string>();
  for (const ref of refs) {
    for (let path = dirname(ref); path !== '.'; path = dirname(path)) ofRefs.add(path);
  }
  for (const path of [...ofRefs].slice(0, maxDirectories)) wanted.add(join(gitDir, path));
  wanted.add(gitDir);
  for (const directory of wanted) {
    await syncDirectory(directory).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
    });
  }
}

/** Directories of loose objects in which something was made since then. */
async function touchedSince(objectsDir: string, sinceMs: number): Promise<readonly string[]> {
  const touched: string[] = [];
  for (const name of await readdir(objectsDir).catch(() => [])) {
    if (!/^[0-9a-f]{2}$/.test(name)) continue;
    const directory = join(objectsDir, name);
    const { mtimeMs } = (await stat(directory).catch(() => undefined)) ?? { mtimeMs: 0 };
    if (mtimeMs >= sinceMs - clockSlackMs) touched.push(directory);
  }
  return touched;
}
