import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import { refLockNames, storageFailure, unlinkLock } from './ref-files.js';
import { errorCode } from './repository-files.js';

/** Far longer than a transaction's locks live, and than a git whose end was not seen outlives its helper. */
const abandonedAfterMs = 60_000;
/** Locks in the way that are remembered; beyond it, all of them have to be met anew. */
const maxMet = 10_000;

interface Met {
  /** Which file it was: another lock at the same path is another git's. */
  readonly file: string;
  /** Monotonic time at which it was met first. */
  readonly sinceMs: number;
}

/**
 * Lock files in the way of refs that a git may have left behind whose end nobody saw. When one was made is written on
 * it in the time of a clock that may have been put back or forth since; so its age is what this process has seen of it:
 * one that was met, and is still the same file a minute later, is abandoned. (A start removes all locks it finds.)
 */
export class AbandonedLocks {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #met = new Map<string, Met>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /**
   * Removes the locks of these refs that are abandoned, and returns how many there were; the others are met with this.
   * The caller lets no ref transaction run meanwhile. Errors: `storage-failure`.
   */
  async remove(gitDir: string, refs: readonly string[]): Promise<number> {
    let removed = 0;
    for (const name of refLockNames(refs)) {
      const path = join(gitDir, name);
      const file = await fileAt(path);
      if (file === undefined || !this.#isAbandoned(path, file)) continue;
      this.#met.delete(path);
      // A git that lives after all may have been quicker.
      if (await unlinkLock(path)) removed += 1;
    }
    return removed;
  }

  /** Whether a git that runs, or was killed a moment ago, has a lock in the way of a transaction on these refs. */
  async areInTheWay(gitDir: string, refs: readonly string[]): Promise<boolean> {
    let found = false;
    for (const name of refLockNames(refs)) {
      const path = join(gitDir, name);
      const file = await fileAt(path);
      if (file === undefined) continue;
      found = true;
      this.#isAbandoned(path, file);
    }
    return found;
  }

  #isAbandoned(path: string, file: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    const met = this.#met.get(path);
    if (met?.file === file) return nowMs - met.sinceMs >= abandonedAfterMs;
    if (this.#met.size >= maxMet) this.#met.clear();
    this.#met.set(path, { file, sinceMs: nowMs });
    return false;
  }
}

/** Numbers of inodes are given again at once: the times tell two files apart, whatever clock they are of. */
async function fileAt(path: string): Promise<string | undefined> {
  try {
    const { ino, mtimeMs, ctimeMs, size } = await stat(path);
    return `${ino} ${mtimeMs} ${ctimeMs} ${size}`;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorCode(error))) return undefined;
    throw storageFailure(error);
  }
}
