import { constants } from 'node:fs';
import { access, statfs } from 'node:fs/promises';

/** Below this a push fails soon, and so may the coordinator's store: no more requests should come here. */
const minFreeBytes = 64 * 1024 * 1024;

/** For readiness: rejects when a directory cannot be written to, or its disk is full. */
export async function checkStorage(directory: string): Promise<void> {
  await access(directory, constants.R_OK | constants.W_OK);
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < minFreeBytes) throw new Error('the disk is full');
}
