import { constants, type StatsFs } from 'node:fs';
import { access, statfs } from 'node:fs/promises';
import { errorCode } from '../git/repository-files.js';

/** Below this a push fails soon, and so may an embedded coordinator: nothing more should come here. */
const minFreeMebibytes = 64;
/** A push makes a few, and a repository some twenty. */
const minFreeFiles = 1_000;
const mebibyte = 1024 * 1024;

/** How large a disk is, and how full. */
export interface DiskSpace {
  readonly capacityBytes: number;
  readonly usedBytes: number;
}

/** Of the disk that a directory is on. Errors: those of the file system. */
export async function spaceOf(directory: string): Promise<DiskSpace> {
  const { blocks, bfree, bsize } = await statfs(directory);
  return { capacityBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize };
}

/** Why nothing more can be written to a directory, with the remedy; undefined when it can. Never rejects. */
export async function diskProblem(directory: string): Promise<string | undefined> {
  try {
    await access(directory, constants.R_OK | constants.W_OK);
    return fullness(directory, await statfs(directory));
  } catch (error) {
    return cannotBeWritten(directory, error);
  }
}

/** What an error of the file system says of a disk, and what to do. */
export function cannotBeWritten(directory: string, error: unknown): string {
  return `${directory} cannot be written to (${errorCode(error)}): see whether its disk is there, sound, mounted for writing, and this user's`;
}

/** What a disk has too little of, and what to do. Some file systems have no bound on files, and say 0 of them. */
export function fullness(
  directory: string,
  { bavail, bsize, files, ffree }: Pick<StatsFs, 'bavail' | 'bsize' | 'files' | 'ffree'>,
): string | undefined {
  if (bavail * bsize < minFreeMebibytes * mebibyte) {
    return `the disk of ${directory} is full: less than ${minFreeMebibytes} MiB are left; make room on it, or give it a larger one`;
  }
  if (files > 0 && ffree < minFreeFiles) {
    return `the disk of ${directory} takes hardly any more files: less than ${minFreeFiles} inodes are left; remove files from it, or give it one with more`;
  }
  return undefined;
}
