import { randomBytes } from 'node:crypto';
import { mkdir, open, opendir, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';

/** Makes entries of a directory (creations, renames, removals) durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces a file as a whole: readers and crashes see the old bytes or the new ones. Durable on return. */
export async function writeFileDurably(path: string, bytes: string | Uint8Array): Promise<void> {
  await replaceFile(path, bytes);
  await syncDirectory(dirname(path));
}

/** As `writeFileDurably`, but a power cut may bring the old file back until the directory is synced. */
export async function replaceFile(path: string, bytes: string | Uint8Array): Promise<void> {
  const temporary = `${path}.tmp-${randomBytes(8).toString('hex')}`;
  try {
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** Makes the content of a file durable that somebody else has written. */
export const syncFile = syncDirectory;

/** What `writeFileDurably` left in a directory when its process was killed. Only while nobody writes there. */
export async function removeHalfWritten(directory: string): Promise<void> {
  for await (const name of fileNames(directory)) {
    if (/\.tmp-[0-9a-f]{16}$/.test(name)) await rm(join(directory, name), { force: true });
  }
}

/** Makes every file and directory below (and including) `directory` durable. For small trees. */
export async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncDirectory(path);
  }
  await syncDirectory(directory);
}

/** Removes a directory and what is in it, if it is there. Durable on return as to the name: nobody finds it again. */
export async function removeTree(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  await syncDirectory(dirname(directory));
}

/**
 * What every repository of ours is configured with. Housekeeping is done by `maintenance.ts` only: a git that packs or
 * prunes by itself, after a fetch by some administrator for example, could remove what a push has just promoted.
 */
const repositoryConfig: Readonly<Record<string, string>> = {
  'gc.auto': '0',
  'gc.autoDetach': 'false',
  'maintenance.auto': 'false',
  'receive.autogc': 'false',
  'core.logAllRefUpdates': 'false',
  // Objects, refs and indexes, with their directories' metadata: git promises nothing without it.
  'core.fsync': 'committed',
  'core.fsyncMethod': 'fsync',
  'core.multiPackIndex': 'true',
  'core.commitGraph': 'true',
  'pack.useBitmaps': 'true',
};

/**
 * Creates a bare, empty repository. Built beside `gitDir` and renamed into place, so that it exists whole or not at
 * all; durable on return. `already-exists` when something is at `gitDir`. The parent directory has to exist.
 */
export async function createRepositoryFiles(options: {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly objectFormat: ObjectFormat;
  /** The full name of the branch that HEAD names: `refs/heads/main`. */
  readonly head: string;
  /** Puts more into the git directory before anybody sees it. */
  readonly fill?: (building: string) => Promise<void>;
  readonly signal?: AbortSignal;
}): Promise<void> {
  const { git, gitDir, objectFormat, head, signal } = options;
  if (!head.startsWith('refs/heads/') || /[\s\0]/.test(head)) {
    throw new QuorateError('invalid-argument', 'HEAD names a branch');
  }
  const building = `${gitDir}.creating-${randomBytes(8).toString('hex')}`;
  try {
    // git would make missing parents as well, and not durably.
    await mkdir(building);
    const result = await git.run({
      args: [
        'init',
        '--quiet',
        '--bare',
        '--template=',
        `--object-format=${objectFormat}`,
        '--end-of-options',
        building,
      ],
      ...(signal === undefined ? {} : { signal }),
    });
    if (result.exitCode !== 0) {
      throw new QuorateError('storage-failure', 'git init failed', {
        details: { stderr: result.stderr },
      });
    }
    await appendConfig(join(building, 'config'));
    await writeFileDurably(join(building, 'HEAD'), `ref: ${head}\n`);
    await options.fill?.(building);
    await syncTree(building);
    await claim(building, gitDir);
  } catch (error) {
    await rm(building, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
  await syncDirectory(dirname(gitDir));
}

/** Renames onto a free name. (A rename would replace an empty directory.) */
async function claim(building: string, gitDir: string): Promise<void> {
  const taken = await stat(gitDir).then(
    () => true,
    () => false,
  );
  if (taken) throw new QuorateError('already-exists', 'a repository is there already');
  await rename(building, gitDir);
}

/** Appends our keys in git's own file format (git-config(1)): one process less than a `git config` for each. */
async function appendConfig(path: string): Promise<void> {
  const lines = Object.entries(repositoryConfig).map(([key, value]) => {
    const [section, name] = key.split('.');
    return `[${section}]\n\t${name} = ${value}\n`;
  });
  const handle = await open(path, 'a');
  try {
    await handle.writeFile(lines.join(''));
  } finally {
    await handle.close();
  }
}

/** What of a repository's objects lies where. */
export interface ObjectStoreStats {
  /** Packs with an index, `.keep` or not; without cruft packs. */
  readonly packCount: number;
  /** Packs that hold unreachable objects (`.mtimes` beside them). */
  readonly cruftPackCount: number;
  /** Packs that a `.keep` holds. */
  readonly keptPackCount: number;
  /** Counted while they are few, else an estimate by samples. */
  readonly looseObjectCount: number;
  /** Packs, indexes and loose objects, in bytes; an estimate like the loose count. */
  readonly sizeBytes: number;
  /** Size of the packs that are neither kept nor cruft, without their indexes. */
  readonly packBytes: number;
  /** Size of the largest of those. */
  readonly largestPackBytes: number;
  readonly hasBitmap: boolean;
  readonly hasCommitGraph: boolean;
  /** Objects are borrowed from another object directory; none of these figures counts them. */
  readonly borrows: boolean;
}

/** Up to so many of the 256 fan-out directories, all are read: a guess from few objects would mislead. */
const MAX_COUNTED_FANOUTS = 64;
/** Of more, which hold objects evenly spread, this many are read. */
const SAMPLED_FANOUTS = 16;
/** Files of one directory that stand for the size of the others. */
const SIZED_PER_FANOUT = 16;
/** An estimate that rests on so many files of one directory needs no more of them. */
const MAX_LOOSE_PER_FANOUT = 4096;
const MAX_PACK_FILES = 100_000;

/** Reads directories, never objects; bounded in time for any repository. */
export async function readObjectStoreStats(objectsDir: string): Promise<ObjectStoreStats> {
  const packs = await readPackFiles(join(objectsDir, 'pack'));
  const loose = await sampleLooseObjects(objectsDir);
  return {
    ...packs,
    looseObjectCount: loose.count,
    sizeBytes: packs.sizeBytes + loose.sizeBytes,
    hasCommitGraph:
      (await exists(join(objectsDir, 'info', 'commit-graph'))) ||
      (await exists(join(objectsDir, 'info', 'commit-graphs'))),
    borrows: await exists(join(objectsDir, 'info', 'alternates')),
  };
}

async function readPackFiles(
  packDir: string,
): Promise<Omit<ObjectStoreStats, 'looseObjectCount' | 'hasCommitGraph' | 'borrows'>> {
  const files = new Set<string>();
  for await (const name of fileNames(packDir)) {
    files.add(name);
    if (files.size >= MAX_PACK_FILES) break;
  }
  const stats = { packCount: 0, cruftPackCount: 0, keptPackCount: 0, sizeBytes: 0 };
  let packBytes = 0;
  let largestPackBytes = 0;
  let hasBitmap = false;
  for (const name of files) {
    if (name.endsWith('.bitmap')) hasBitmap = true;
    const size = await fileSize(join(packDir, name));
    stats.sizeBytes += size;
    if (!name.startsWith('pack-') || !name.endsWith('.pack')) continue;
    const base = name.slice(0, -'.pack'.length);
    if (!files.has(`${base}.idx`)) continue;
    if (files.has(`${base}.mtimes`)) {
      stats.cruftPackCount += 1;
      continue;
    }
    stats.packCount += 1;
    if (files.has(`${base}.keep`)) {
      stats.keptPackCount += 1;
      continue;
    }
    packBytes += size;
    largestPackBytes = Math.max(largestPackBytes, size);
  }
  return { ...stats, packBytes, largestPackBytes, hasBitmap };
}

async function sampleLooseObjects(
  objectsDir: string,
): Promise<{ readonly count: number; readonly sizeBytes: number }> {
  const fanouts: string[] = [];
  for await (const name of fileNames(objectsDir)) {
    if (/^[0-9a-f]{2}$/.test(name)) fanouts.push(name);
  }
  const step = fanouts.length <= MAX_COUNTED_FANOUTS ? 1 : 256 / SAMPLED_FANOUTS;
  let count = 0;
  let sizeBytes = 0;
  for (const fanout of fanouts) {
    if (Number.parseInt(fanout, 16) % step !== 0) continue;
    const directory = join(objectsDir, fanout);
    let here = 0;
    let sizedBytes = 0;
    for await (const name of fileNames(directory)) {
      here += 1;
      if (here <= SIZED_PER_FANOUT) sizedBytes += await fileSize(join(directory, name));
      if (here >= MAX_LOOSE_PER_FANOUT) break;
    }
    count += here * step;
    sizeBytes += sizedBytes * Math.max(1, here / SIZED_PER_FANOUT) * step;
  }
  return { count, sizeBytes: Math.round(sizeBytes) };
}

/** Below `refs/`: refs of one worktree, which git leaves as files (gitglossary(7), "per-worktree ref"). */
const neverPacked = ['bisect', 'worktree', 'rewritten'];

/** Whether a repository has more loose refs than that, of those that git packs. Reads directories only, and no further than it takes to know. */
export async function hasMoreLooseRefs(gitDir: string, count: number): Promise<boolean> {
  let files = 0;
  const directories = [join(gitDir, 'refs')];
  const unpacked = neverPacked.map((name) => join(gitDir, 'refs', name));
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    if (unpacked.includes(next)) continue;
    for await (const entry of entriesOf(next)) {
      if (entry.isDirectory()) directories.push(join(next, entry.name));
      else files += 1;
      if (files > count) return true;
    }
  }
  return false;
}

/** Names in a directory as they come; nothing when it is not there. */
async function* fileNames(directory: string): AsyncGenerator<string> {
  for await (const { name } of entriesOf(directory)) yield name;
}

async function* entriesOf(
  directory: string,
): AsyncGenerator<{ readonly name: string; isDirectory(): boolean }> {
  let handle;
  try {
    handle = await opendir(directory);
  } catch {
    return;
  }
  yield* handle;
}

async function fileSize(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    return 0; // Removed since it was listed.
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Removes temporary files in `directory` that are older than `olderThanMs` and that `isTemporary` names. */
export async function removeStaleFiles(
  directory: string,
  isTemporary: (name: string) => boolean,
  options: { readonly nowMs: number; readonly olderThanMs: number },
): Promise<number> {
  let removed = 0;
  for await (const name of fileNames(directory)) {
    if (!isTemporary(name)) continue;
    const path = join(directory, name);
    const modifiedMs = await stat(path).then(
      (file) => file.mtimeMs,
      () => Infinity,
    );
    if (modifiedMs > options.nowMs - options.olderThanMs) continue;
    await unlink(path).catch(() => {});
    removed += 1;
  }
  return removed;
}

/** Whether an error says that there is no such file. */
export function isMissing(error: unknown): boolean {
  return errorCode(error) === 'ENOENT';
}

/** Of a system error: `ENOENT`; empty for anything else. */
export function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}
