import type { Dirent } from 'node:fs';
import { open, readdir, rename, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import { type FileStep, syncAll, type TakeFileSteps } from './file-steps.js';
import { isZero } from './ref-commands.js';
import { errorCode, syncDirectory } from './repository-files.js';

/** Directories synced at once: enough for the disk's queue. */
const syncWidth = 16;
/** HEAD's lock is held for milliseconds by whoever updates the branch it names. */
const headLock = { waitMs: 10_000, pollMs: 10 };

/** Repositories whose `refs/heads` or `refs/tags` are known to be on disk; beyond it the names are synced once more. */
const maxKnown = 10_000;

/**
 * Puts the names of changed refs on disk: git syncs the files it writes, not the directories that it renames them
 * in, so that a new branch could be gone after a power cut.
 */
export class RefDirectories {
  readonly #take: TakeFileSteps;
  /** Paths of `refs/heads` and `refs/tags`, which git never removes, whose own names this process has synced. */
  readonly #known = new Set<string>();

  constructor(take: TakeFileSteps) {
    this.#take = take;
  }

  /** `after`: steps that follow, with the last sync where that is the only one. */
  async sync(
    gitDir: string,
    updates: readonly RefCommand[],
    after: readonly FileStep[] = [],
  ): Promise<void> {
    const { paths, lasting } = this.#changed(gitDir, updates);
    try {
      const [path] = paths;
      if (path !== undefined && paths.length === 1) {
        await this.#take([{ do: 'sync', path, ifThere: true }, ...after]);
      } else {
        for (let start = 0; start < paths.length; start += syncWidth) {
          // A directory that is gone was emptied by a deletion; its parent is synced too.
          await syncAll(this.#take, paths.slice(start, start + syncWidth), { ifThere: true });
        }
        if (after.length > 0) await this.#take(after);
      }
    } catch (error) {
      throw storageFailure(error);
    }
    this.#remember(lasting);
  }

  /** Paths of the directories whose names change, and of those among them that last. */
  #changed(
    gitDir: string,
    updates: readonly RefCommand[],
  ): { readonly paths: readonly string[]; readonly lasting: ReadonlySet<string> } {
    const directories = new Set<string>();
    const lasting = new Set<string>();
    for (const { ref, newOid } of updates) {
      const top = /^refs\/(?:heads|tags)(?=\/)/.exec(ref)?.[0];
      const path = top === undefined ? undefined : `${gitDir}/${top}`;
      const end = path !== undefined && this.#known.has(path) ? 'refs' : '.';
      for (let name = dirname(ref); name !== end; name = dirname(name)) directories.add(name);
      // A deletion rewrites packed-refs beside HEAD.
      if (isZero(newOid)) directories.add('.');
      else if (path !== undefined) lasting.add(path);
    }
    return { paths: [...directories].map((directory) => `${gitDir}/${directory}`), lasting };
  }

  #remember(lasting: ReadonlySet<string>): void {
    if (this.#known.size >= maxKnown) this.#known.clear();
    for (const path of lasting) this.#known.add(path);
  }

  /** Another repository may be there next. */
  forget(gitDir: string): void {
    for (const name of ['heads', 'tags']) this.#known.delete(`${gitDir}/refs/${name}`);
  }
}

/**
 * Points HEAD at `branch` under git's own lock of it, durably (`git symbolic-ref` syncs nothing).
 * `invalid-argument` when it is no full branch name.
 */
export async function writeHead(gitDir: string, branch: string, clock: Clock): Promise<void> {
  if (!isBranchName(branch)) {
    throw new QuorateError('invalid-argument', 'HEAD can name a branch only');
  }
  const path = join(gitDir, 'HEAD');
  const lock = await openLock(`${path}.lock`, clock);
  try {
    await lock.writeFile(`ref: ${branch}\n`);
    await lock.sync();
    await lock.close();
    await rename(`${path}.lock`, path);
  } catch (error) {
    await lock.close().catch(() => {});
    await unlink(`${path}.lock`).catch(() => {});
    throw storageFailure(error);
  }
  await syncDirectory(gitDir).catch((error: unknown) => {
    throw storageFailure(error);
  });
}

/** git-check-ref-format(1), for a full branch name. */
export function isBranchName(name: string): boolean {
  return name.startsWith('refs/heads/') && isRefName(name);
}

/** git-check-ref-format(1), for a full name. */
export function isRefName(name: string): boolean {
  return (
    name.startsWith('refs/') &&
    !/[\x00-\x20\x7f~^:?*[\\]|\.\.|@\{|\/\/|\/\.|\.lock(?:\/|$)|[./]$/.test(name)
  );
}

async function openLock(path: string, clock: Clock): Promise<FileHandle> {
  const deadlineMs = clock.monotonicMs() + headLock.waitMs;
  for (;;) {
    try {
      return await open(path, 'wx', 0o644);
    } catch (error) {
      if (errorCode(error) !== 'EEXIST' || clock.monotonicMs() >= deadlineMs) {
        throw storageFailure(error);
      }
    }
    await clock.sleep(headLock.pollMs);
  }
}

/**
 * Removes the lock files that a killed git left, and returns how many there were. Only for recovery: when no git can
 * be running on the repository, since a lock that is in use would be broken.
 */
export async function removeStaleLocks(gitDir: string): Promise<number> {
  const files = ['HEAD.lock', 'packed-refs.lock', 'packed-refs.new', 'config.lock', 'shallow.lock'];
  const objectFiles = [
    'objects/info/commit-graph.lock',
    'objects/info/commit-graphs/commit-graph-chain.lock',
    'objects/pack/multi-pack-index.lock',
  ];
  const candidates = [...files, ...objectFiles].map((name) => join(gitDir, name));
  let removed = 0;
  for (const path of [...candidates, ...(await locksOfRefs(gitDir))]) {
    if (await unlinkLock(path)) removed += 1;
  }
  return removed;
}

/** No ref can be named like this: git refuses names that end with `.lock`. */
function locksOfRefs(gitDir: string): Promise<readonly string[]> {
  return filesUnder(join(gitDir, 'refs'), (name) => name.endsWith('.lock'));
}

/** Whether there was one to remove. */
export async function unlinkLock(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorCode(error))) return false;
    throw storageFailure(error);
  }
}

/** Removes the locks that a transaction on these refs took, whose git was seen to be killed, and nobody else has. */
export async function removeLocksOfKilled(gitDir: string, refs: readonly string[]): Promise<void> {
  for (const name of refLockNames(refs)) await unlinkLock(join(gitDir, name));
}

/** As `removeLocksOfKilled`, of a git that takes the locks of any refs: those whose files it removes when it packs them. */
export async function removeLocksOfPacking(gitDir: string): Promise<void> {
  await removeLocksOfKilled(gitDir, []);
  for (const path of await locksOfRefs(gitDir)) await unlinkLock(path);
}

/** What a transaction on these refs makes, and finds in its way, by names in the git directory. */
export function refLockNames(refs: readonly string[]): readonly string[] {
  const locks = ['HEAD', 'packed-refs', ...refs.filter(isRefName)].map((name) => `${name}.lock`);
  return [...locks, 'packed-refs.new'];
}

/** Paths of the files below a directory; of none when it is not there. Errors: `storage-failure`. */
export async function filesUnder(
  root: string,
  wanted: (name: string) => boolean,
): Promise<string[]> {
  const found: string[] = [];
  const directories = [root];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    let entries: Dirent[];
    try {
      entries = await readdir(next, { withFileTypes: true });
    } catch (error) {
      if (errorCode(error) === 'ENOENT') continue;
      throw storageFailure(error);
    }
    for (const entry of entries) {
      const path = join(next, entry.name);
      if (entry.isDirectory()) directories.push(path);
      else if (wanted(entry.name)) found.push(path);
    }
  }
  return found;
}

/** What the file system said. */
export function storageFailure(error: unknown): QuorateError {
  return new QuorateError('storage-failure', 'the refs could not be written', {
    cause: error,
    details: { code: errorCode(error) },
  });
}
