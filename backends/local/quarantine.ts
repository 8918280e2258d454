import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import { isMissing, syncDirectory, writeFileDurably } from '../git/repository-files.js';

/** What makes a quarantine *prepared*: it outlives restarts until the fate of its push is known. */
export interface PreparedMark {
  readonly basis: number;
  readonly lockRevisions: readonly { readonly key: string; readonly createRevision: number }[];
}

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
const markSchema = z.strictObject({
  basis: z.int(),
  lockRevisions: z.array(z.strictObject({ key: z.string(), createRevision: z.int() })),
});
const updatesSchema = z.array(z.strictObject({ ref: z.string(), oldOid: oid, newOid: oid }));

const markName = 'prepared';
const updatesName = 'updates';

/** Makes an empty quarantine; the name is taken, so a second upload under the same key fails. */
export async function makeQuarantine(directory: string): Promise<string> {
  await mkdir(directory, { mode: 0o700 });
  const packDirectory = join(directory, 'pack');
  await mkdir(packDirectory, { mode: 0o700 });
  return packDirectory;
}

export async function markPrepared(directory: string, mark: PreparedMark): Promise<void> {
  await writeFileDurably(join(directory, markName), JSON.stringify(mark));
}

/** Undefined when the quarantine never became prepared. */
export async function readPreparedMark(directory: string): Promise<PreparedMark | undefined> {
  const text = await readFile(join(directory, markName), 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
  return text === undefined ? undefined : markSchema.parse(JSON.parse(text));
}

/** Keeps the updates of an entry too large for the log; returns the SHA-256 of what was written. */
export async function storeUpdates(
  directory: string,
  updates: readonly RefCommand[],
): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const text = JSON.stringify(updates);
  await writeFileDurably(join(directory, updatesName), text);
  return createHash('sha256').update(text).digest('hex');
}

export async function loadUpdates(
  directory: string,
  digest: string,
): Promise<readonly RefCommand[]> {
  const text = await readFile(join(directory, updatesName), 'utf8').catch((cause: unknown) => {
    throw new QuorateError(
      'data-corrupt',
      'the updates of a large push are missing from this disk',
      {
        cause,
      },
    );
  });
  if (createHash('sha256').update(text).digest('hex') !== digest) {
    throw new QuorateError('data-corrupt', 'the updates of a large push are damaged on this disk');
  }
  return updatesSchema.parse(JSON.parse(text));
}

/**
 * Moves the packs of a quarantine into the object store. `.keep` files go first and stay until the refs are written,
 * so that no repack takes objects whose refs are not there yet; `.idx` files go last, since a pack counts from then
 * on. Running it again finishes a move that was cut short.
 */
export async function promote(directory: string, objectsDirectory: string): Promise<void> {
  const from = join(directory, 'pack');
  const to = join(objectsDirectory, 'pack');
  const names = await namesIn(from);
  if (names.length === 0) return;
  const idxLast = names.toSorted((a, b) => Number(a.endsWith('.idx')) - Number(b.endsWith('.idx')));
  for (const name of names.filter((candidate) => candidate.endsWith('.idx'))) {
    await writeFileDurably(join(to, name.replace(/\.idx$/, '.keep')), keepReason);
  }
  for (const name of idxLast) await rename(join(from, name), join(to, name));
  await syncDirectory(to);
}

/** First line of the `.keep` files that `promote` writes; other keep files belong to people and stay. */
const keepReason = 'quorate: refs not written yet\n';

/** Removes the `.keep` files that `promote` wrote: to be called once the marker of their entries is durable. */
export async function removeKeeps(
  objectsDirectory: string,
  packNames: readonly string[] | 'all',
): Promise<void> {
  const packDirectory = join(objectsDirectory, 'pack');
  const names =
    packNames === 'all'
      ? (await namesIn(packDirectory)).filter((name) => name.endsWith('.keep'))
      : packNames.map((name) => `${name}.keep`);
  for (const name of names) {
    const path = join(packDirectory, name);
    const reason = await readFile(path, 'utf8').catch(() => '');
    if (reason === keepReason) await rm(path, { force: true });
  }
}

/** Common names (`pack-<hash>`) of the packs that wait in a quarantine. */
export async function quarantinedPacks(directory: string): Promise<readonly string[]> {
  return (await namesIn(join(directory, 'pack')))
    .filter((name) => name.endsWith('.pack'))
    .map((name) => name.slice(0, -'.pack'.length));
}

export async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
