import { mkdir, readdir, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import { syncDirectory } from '../git/repository-files.js';
import { FirstKeys } from './first-keys.js';

/** A repository on disk. */
export interface FoundRepository {
  /** Path below the root, without `.git`: the repository's name and id. */
  readonly name: string;
  /** Below the root, as found: `team/app.git`. */
  readonly path: string;
  /** The git directory, with every symbolic link resolved. */
  readonly gitDir: string;
  /** Which one it is: `Repository.directory`. */
  readonly directory: string;
  /** What a rename moves: the entry below the root. Undefined for the `.git` of a working tree, which stays put. */
  readonly place: string | undefined;
}

/** Directories read in one walk: seconds on a cold disk. A root with more is listed in part. */
const maxDirectories = 100_000;
/** Kept of one directory at a time, some MB; where it has more it is read again. */
const maxKeys = 65_536;
/** `a.git` may be the repository `a`, the working tree `a.git`, or a directory `a.git/` with others in it. */
const keysOfEntry = 3;
/** As deep as names go. */
const maxDepth = 8;
/** The segments that can be named from outside. What else lies below the root is not served. */
const segment = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
/** Work of our own below the root; begins with a dot, so that it is no name. */
const ownDirectory = '.quorate';

interface WalkRange {
  readonly prefix: string;
  readonly after: string;
  readonly keysAtATime: number;
  /** Directories that may still be read. */
  mayRead: number;
}

/**
 * Finds bare repositories below a root that others may write too: `team/app` is `team/app.git`, `team/app`, or the
 * `.git` of a working tree at `team/app`, in this order.
 *
 * Symbolic links are followed as long as they end below the root; one that leads out of it does not exist. Whoever
 * may write below the root is trusted not to swap directories under a running request.
 */
export class RepositoryPaths {
  /** Without symbolic links. */
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  /** `unavailable` when the root is no directory: a disk that is not mounted must not look like an empty server. */
  static async open(root: string): Promise<RepositoryPaths> {
    try {
      const resolved = await realpath(root);
      if (!(await stat(resolved)).isDirectory()) throw new Error('not a directory');
      return new RepositoryPaths(resolved);
    } catch (cause) {
      throw new QuorateError(
        'unavailable',
        `${root} is no directory: name one that holds repositories with --root DIR (an empty one will do)`,
        {
          cause,
        },
      );
    }
  }

  async find(name: string): Promise<FoundRepository | undefined> {
    if (!isName(name)) return undefined;
    return (
      (await this.#repositoryAt(name, `${name}.git`)) ??
      (await this.#repositoryAt(name, name)) ??
      (await this.#repositoryAt(name, `${name}/.git`))
    );
  }

  /**
   * Where a new repository of this name goes. Makes the directories above it, durably, and tells `made` the path of
   * each below the root. Throws `invalid-argument`.
   */
  async placeFor(name: string, made: (path: string) => Promise<void>): Promise<string> {
    if (!isName(name)) {
      throw new QuorateError('invalid-argument', 'the name of the repository is not valid');
    }
    const segments = name.split('/');
    const last = segments.pop() ?? '';
    let parent = this.root;
    for (const [index, each] of segments.entries()) {
      // One at a time, each below a directory that was found to be below the root: nothing is made outside of it.
      const isNew = await mkdir(join(parent, each)).then(
        () => true,
        () => false,
      );
      if (isNew) {
        await syncDirectory(parent);
        await made(segments.slice(0, index + 1).join('/'));
      }
      parent = await realpath(join(parent, each)).catch(() => '');
      if (!this.#isBelow(parent)) {
        throw new QuorateError('invalid-argument', 'something else is in the way of this name');
      }
    }
    return join(parent, `${last}.git`);
  }

  /** Everything of ours below the root. */
  get ownRoot(): string {
    return join(this.root, ownDirectory);
  }

  /** A directory of ours on the same file system as the repositories. */
  async ownDirectory(purpose: 'new' | 'trash' | 'import' | 'views'): Promise<string> {
    const directory = join(this.ownRoot, purpose);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return directory;
  }

  /**
   * Repositories in the order of their names: those that begin with `prefix` and come after `after`. Reads the
   * directories that these are in, and looks at no others, so that a page costs the same wherever it begins. `count`:
   * about as many will be taken; more may be.
   */
  async *walk({
    prefix = '',
    after = '',
    count = maxKeys,
  }: {
    readonly prefix?: string;
    readonly after?: string;
    readonly count?: number;
  } = {}): AsyncGenerator<FoundRepository> {
    const top = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    if (top !== '' && !isName(top.slice(0, -1))) return;
    const keysAtATime = Math.min(keysOfEntry * count, maxKeys);
    yield* this.#below(top, { prefix, after, keysAtATime, mayRead: maxDirectories });
  }

  /** Those in `directory`, which ends in `/` or is empty. */
  async *#below(directory: string, range: WalkRange): AsyncGenerator<FoundRepository> {
    for (let done = ''; range.mayRead > 0;) {
      range.mayRead -= 1;
      const { keys, hasMore } = await this.#keysIn(directory, range, done);
      /** Paths of repositories found among these. */
      const paths = new Set<string>();
      for (const key of keys) {
        if (!key.endsWith('/')) {
          const found = await this.#listed(key, paths.has(key));
          if (found === undefined) continue;
          paths.add(found.path);
          yield found;
        } else if (!paths.has(key.slice(0, -1)) && (await this.#isWalked(key.slice(0, -1)))) {
          yield* this.#below(key, range);
        }
      }
      const last = keys.at(-1);
      if (!hasMore || last === undefined) return;
      done = last;
    }
  }

  /**
   * The first names that entries of `directory` may stand for, and the directories in it (ending in `/`), after `done`:
   * in the order in which names come, since all that is below `a/` begins with it.
   */
  async #keysIn(
    directory: string,
    { prefix, after, keysAtATime }: WalkRange,
    done: string,
  ): Promise<{ readonly keys: readonly string[]; readonly hasMore: boolean }> {
    const first = new FirstKeys(keysAtATime);
    const take = (key: string): void => {
      const isBelow = key.endsWith('/');
      const isInRange = key.startsWith(prefix) || (isBelow && prefix.startsWith(key));
      const isAfter = key > after || (isBelow && after.startsWith(key));
      if (isInRange && isAfter && key > done) first.add(key);
    };
    // What is gone, or not ours to read, holds none.
    const read = readdir(join(this.root, directory), { withFileTypes: true }).catch(() => []);
    for (const entry of await read) {
      if (!segment.test(entry.name) || !(entry.isDirectory() || entry.isSymbolicLink())) continue;
      const path = `${directory}${entry.name}`;
      take(path);
      if (path.endsWith('.git')) take(path.slice(0, -'.git'.length));
      // Links to directories are not walked: they may lead in circles. Repositories in them can still be named.
      if (entry.isDirectory() && path.split('/').length < maxDepth) take(`${path}/`);
    }
    return first.end();
  }

  /** By the name under which it is listed: what ends in `.git` on the disk is listed without. */
  async #listed(name: string, isKnown: boolean): Promise<FoundRepository | undefined> {
    if (!isName(name)) return undefined;
    const isBare =
      isKnown || (name.endsWith('.git') && (await this.#repositoryAt(name, name)) !== undefined);
    return isBare ? this.#repositoryAt(name, `${name}.git`) : this.find(name);
  }

  /** Repositories are not walked. */
  async #isWalked(path: string): Promise<boolean> {
    const inIt = (await this.#repositoryAt(path, path)) ?? this.#repositoryAt(path, `${path}/.git`);
    return (await inIt) === undefined;
  }

  async #repositoryAt(name: string, path: string): Promise<FoundRepository | undefined> {
    const place = join(this.root, path);
    const gitDir = await realpath(place).catch(() => undefined);
    if (gitDir === undefined || !this.#isBelow(gitDir) || !(await isGitDirectory(gitDir))) {
      return undefined;
    }
    const directory = await directoryIdentity(gitDir).catch(() => undefined);
    if (directory === undefined) return undefined;
    return { name, path, gitDir, directory, place: path.endsWith('/.git') ? undefined : place };
  }

  #isBelow(path: string): boolean {
    return (
      path === this.root || path.startsWith(this.root.endsWith(sep) ? this.root : this.root + sep)
    );
  }
}

/**
 * What no other directory is, before or after: a rename keeps it. An inode's number is given again, but not within the
 * moment in which it was made. The device is left out: its number may be another one after a restart.
 */
export async function directoryIdentity(directory: string): Promise<string> {
  const { ino, birthtimeNs } = await stat(directory, { bigint: true });
  return `${ino}-${birthtimeNs}`;
}

function isName(name: string): boolean {
  const segments = name.split('/');
  return segments.length <= maxDepth && segments.every((each) => segment.test(each));
}

/** What git itself looks for (gitrepository-layout(5)). */
async function isGitDirectory(directory: string): Promise<boolean> {
  const [head, objects, refs] = await Promise.all(
    ['HEAD', 'objects', 'refs'].map((name) => stat(join(directory, name)).catch(() => undefined)),
  );
  return head?.isFile() === true && objects?.isDirectory() === true && refs?.isDirectory() === true;
}
