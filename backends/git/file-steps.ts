import {
  lstat,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { errorCode, syncDirectory } from './repository-files.js';

/** One change of a disk. */
export type FileStep =
  /** Makes a file, or replaces its content in place; `sync`: and has that on disk. Names are not synced. */
  | { readonly do: 'write'; readonly path: string; readonly text: string; readonly sync?: boolean }
  /**
   * Writes over the beginning of a file that is there, and has that on disk. What was longer stays behind it, up to
   * `maxTailBytes`. A crash may leave it torn.
   */
  | { readonly do: 'overwrite'; readonly path: string; readonly text: string }
  /** Has the content of a file, or the names in a directory, on disk. `ifThere`: or does nothing. */
  | { readonly do: 'sync'; readonly path: string; readonly ifThere?: boolean }
  | { readonly do: 'rename'; readonly from: string; readonly to: string }
  /** A second name; none when `to` exists. */
  | { readonly do: 'link'; readonly from: string; readonly to: string }
  /** Removes a file, if it is there. */
  | { readonly do: 'unlink'; readonly path: string }
  /** Makes a directory that only we may enter; its parent has to be there. */
  | { readonly do: 'mkdir'; readonly path: string }
  /** Removes an empty directory, if it is there. */
  | { readonly do: 'rmdir'; readonly path: string }
  /** Fails with the code `OTHER_NAMES` when a directory holds anything else, or lacks one of these. */
  | { readonly do: 'expect-names'; readonly path: string; readonly names: readonly string[] }
  /** Fails with the code `OTHER_TEXT` when a file holds anything else. */
  | { readonly do: 'expect-text'; readonly path: string; readonly text: string }
  /** Fails with the code `EEXIST` when there is something. */
  | { readonly do: 'expect-absent'; readonly path: string }
  /** Fails with the code `NO_ROOM` when the disk of `path` has less room than this. */
  | { readonly do: 'need-room'; readonly path: string; readonly bytes: number };

/**
 * Takes steps one after another. The first that fails is the last, and its error, a system error with a `code`, the
 * result, of which `failedStep` tells which it was; what was done stays done. Calls do not wait for each other.
 */
export type TakeFileSteps = (steps: readonly FileStep[]) => Promise<void>;

const failedSteps = new WeakMap<object, number>();

/** The same error, of which `failedStep` tells `index` from now on. */
export function failedAt(index: number, error: unknown): unknown {
  if (typeof error === 'object' && error !== null) failedSteps.set(error, index);
  return error;
}

/** How many steps were taken before the one with this error; undefined when it is none of `TakeFileSteps`. */
export function failedStep(error: unknown): number | undefined {
  return typeof error === 'object' && error !== null ? failedSteps.get(error) : undefined;
}

/**
 * Syncs that need no order: side by side, since a disk does them together. Of three (two files and their directory) the
 * last follows the second: the journal that was written for the file holds the directory too, and two threads do.
 */
export async function syncAll(
  take: TakeFileSteps,
  paths: readonly string[],
  options: { readonly ifThere?: boolean } = {},
): Promise<void> {
  const syncs = paths.map((path): readonly FileStep[] => [{ do: 'sync', path, ...options }]);
  const orders = syncs.length === 3 ? [...syncs.slice(0, 1), syncs.slice(1).flat()] : syncs;
  await Promise.all(orders.map((steps) => take(steps)));
}

/** Takes each step on Node's thread pool. */
export const takeFileSteps: TakeFileSteps = async (steps) => {
  for (const [index, step] of steps.entries()) {
    try {
      await take(step);
    } catch (error) {
      throw failedAt(index, error);
    }
  }
};

async function take(step: FileStep): Promise<void> {
  switch (step.do) {
    case 'write':
      await writeFile(step.path, step.text, { flush: step.sync === true });
      return;
    case 'overwrite':
      await overwrite(step.path, Buffer.from(step.text));
      return;
    case 'sync':
      await syncDirectory(step.path).catch(ignore(step.ifThere === true ? absent : []));
      return;
    case 'rename':
      await rename(step.from, step.to);
      return;
    case 'link':
      await link(step.from, step.to).catch(ignore(['EEXIST']));
      return;
    case 'unlink':
      await rm(step.path, { force: true });
      return;
    case 'mkdir':
      await mkdir(step.path, { mode: 0o700 });
      return;
    case 'rmdir':
      await rmdir(step.path).catch(ignore(absent));
      return;
    case 'expect-names':
      assertNames(step, await readdir(step.path));
      return;
    case 'expect-text':
      assertText(step, await readFile(step.path, 'utf8'));
      return;
    case 'expect-absent':
      assertAbsent(step.path, await lstat(step.path).catch(ignore(absent)));
      return;
    case 'need-room': {
      const { bavail, bsize } = await statfs(step.path);
      if (bavail * bsize < step.bytes) throw noRoom(step.path);
    }
  }
}

/** More than this behind a text that was written over a longer one is cut off. */
export const maxTailBytes = 64 * 1024;

async function overwrite(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const { size } = await file.stat();
    for (let at = 0; at < bytes.length;) {
      at += (await file.write(bytes, at, bytes.length - at, at)).bytesWritten;
    }
    if (size > bytes.length + maxTailBytes) await file.truncate(bytes.length);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Codes of errors that say that something is not there. */
export const absent: readonly string[] = ['ENOENT', 'ENOTDIR'];

/** The code of `need-room`'s error, which no system call gives. */
export const noRoomCode = 'NO_ROOM';

export function noRoom(path: string): Error {
  return Object.assign(new Error(`too little room is left, '${path}'`), { code: noRoomCode });
}

/** The code of `expect-names`'s error, which no system call gives. */
export const otherNamesCode = 'OTHER_NAMES';

export function assertNames(
  { path, names }: { readonly path: string; readonly names: readonly string[] },
  found: readonly string[],
): void {
  if (found.length === names.length && names.every((name) => found.includes(name))) return;
  throw Object.assign(new Error(`there is something else, '${path}'`), { code: otherNamesCode });
}

/** The code of `expect-text`'s error, which no system call gives. */
export const otherTextCode = 'OTHER_TEXT';

export function assertText(
  { path, text }: { readonly path: string; readonly text: string },
  found: string,
): void {
  if (found === text) return;
  throw Object.assign(new Error(`it holds something else, '${path}'`), { code: otherTextCode });
}

/** `found`: what is there, if anything is. */
export function assertAbsent(path: string, found: unknown): void {
  if (found === undefined) return;
  throw Object.assign(new Error(`there is something, '${path}'`), { code: 'EEXIST' });
}

function ignore(codes: readonly string[]): (error: unknown) => undefined {
  return (error) => {
    if (!codes.includes(errorCode(error))) throw error;
    return undefined;
  };
}
