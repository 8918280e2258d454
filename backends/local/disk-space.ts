import { constants } from 'node:fs';
import { access, statfs } from 'node:fs/promises';
import { errorCode } from '../git/repository-files.js';

/** Below this a push fails soon, and so may an embedded coordinator: nothing more should come here. */
const minFreeMebibytes = 64;
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
    const { bavail, bsize } = await statfs(directory);
    if (bavail * bsize >= minFreeMebibytes * mebibyte) return undefined;
    return `the disk of ${directory} is full: less than ${minFreeMebibytes} MiB are left; make room on it, or give it a larger one`;
  } catch (error) {
    return `${directory} cannot be written to (${errorCode(error)}): see whether its disk is there, sound, mounted for writing, and this user's`;
  }
}
