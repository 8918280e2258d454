import { rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { syncDirectory } from '../git/repository-files.js';

/**
 * The directories below the root that were made for a repository's name, remembered in the coordinator by path, so
 * that they go with the last repository in them. Whatever others made stays.
 */
export class MadeDirectories {
  readonly #root: string;
  readonly #coordinator: Coordinator;

  constructor(root: string, coordinator: Coordinator) {
    this.#root = root;
    this.#coordinator = coordinator;
  }

  /** `path` is relative to the root. */
  async remember(path: string): Promise<void> {
    await this.#coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key: keys.madeDirectory(path), value: new Uint8Array(0) }],
      failure: [],
    });
  }

  /**
   * Removes the directories above a repository's name that were made for one and are empty now, the innermost first.
   * Only `rmdir`: what somebody puts there meanwhile keeps the directory.
   */
  async removeEmptyAbove(name: string): Promise<void> {
    for (let path = dirname(name); path !== '.'; path = dirname(path)) {
      const key = keys.madeDirectory(path);
      if ((await this.#coordinator.get(key)) === undefined) return;
      const directory = join(this.#root, path);
      const gone = await rmdir(directory).then(
        () => true,
        (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ENOENT',
      );
      if (!gone) return;
      await syncDirectory(dirname(directory)).catch(() => {}); // It may be gone as well.
      await this.#coordinator.transaction({
        compares: [],
        success: [{ type: 'delete', key }],
        failure: [],
      });
    }
  }
}
