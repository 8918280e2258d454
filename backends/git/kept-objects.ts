/**
 * What a repack removes has a second name while it runs, and until what it made is on disk: git renames new packs into
 * place, removes the old ones, and syncs no directory between, so that a power cut could keep the removals only.
 */
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { asQuorateError } from '../contract/errors.js';
import { linkObjects } from './link-objects.js';
import { isMissing, syncDirectory } from './repository-files.js';

/** Beside the object directory, where git does not look. */
const KEPT = 'quorate-kept';

/**
 * Runs `repack`, and puts its outcome on disk before what was there before goes. When it fails, whatever it removed comes
 * back: what git could not open for want of files, say, it took for absent.
 */
export async function whileKept(objectsDir: string, repack: () => Promise<void>): Promise<void> {
  await restoreKept(objectsDir);
  await keep(objectsDir);
  try {
    await repack();
  } catch (error) {
    // When this fails the second names stay: for the next run, or the next start.
    await restoreKept(objectsDir).catch(() => undefined);
    throw error;
  }
  await syncDirectory(join(objectsDir, 'pack'));
  await forget(objectsDir);
}

/** Brings back what a repack removed whose outcome may not have come to the disk. While none runs. */
export async function restoreKept(objectsDir: string): Promise<void> {
  try {
    await linkObjects(keptDirectory(objectsDir), objectsDir);
  } catch (error) {
    // Not there, or not whole: the repack had not begun, or its outcome was on disk.
    if (!isMissing(error)) throw error;
  }
  await forget(objectsDir);
}

async function keep(objectsDir: string): Promise<void> {
  const kept = keptDirectory(objectsDir);
  try {
    await mkdir(join(kept, 'pack'), { recursive: true });
    await linkObjects(objectsDir, kept);
    await syncDirectory(dirname(kept));
  } catch (error) {
    await forget(objectsDir);
    // A file system without hard links has to keep the order by its journal.
    if (asQuorateError(error).code !== 'failed-precondition') throw error;
  }
}

function forget(objectsDir: string): Promise<void> {
  return rm(keptDirectory(objectsDir), { recursive: true, force: true });
}

function keptDirectory(objectsDir: string): string {
  return join(dirname(objectsDir), KEPT);
}
