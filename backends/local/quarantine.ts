import { createHash } from 'node:crypto';
import { link, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { HeldPush, PrepareRequest, QuarantineKey } from '../contract/replica.js';
import type { FileStep } from '../git/file-steps.js';
import { errorCode, isMissing, syncDirectory, writeFileDurably } from '../git/repository-files.js';
import { allOf } from '../git/ref-commands.js';
import { decodeCheckedLine, encodeCheckedLine } from './checked-line.js';
import { keepReason, type Store } from './store.js';

/** What makes a quarantine *prepared*: it outlives restarts until the fate of its push is known. */
export interface PreparedMark {
  /** Whose it is: a quarantine that is used again still has the mark of the push before. Earlier versions wrote none. */
  readonly push?: QuarantineKey;
  readonly basis: number;
  readonly lockRevisions: PrepareRequest['lockRevisions'];
  /** Of a push without locks. */
  readonly headRevision?: number;
  /** What the push is to change, for a recovery that finds nothing else of it; absent when it is much. */
  readonly updates?: readonly RefCommand[];
}

/** More would make the marks of large pushes, each synced to the disk, larger than their refs. */
const maxMarkedUpdates = 1000;

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
const updatesSchema = z.array(z.object({ ref: z.string(), oldOid: oid, newOid: oid }));
const markSchema = z.object({
  push: z
    .object({ repositoryId: z.string(), pushId: z.string(), attempt: z.int() })
    .exactOptional(),
  basis: z.int(),
  lockRevisions: z.array(z.object({ key: z.string(), createRevision: z.int() })),
  headRevision: z.int().exactOptional(),
  updates: updatesSchema.exactOptional(),
});

const packName = 'pack';
const markName = 'prepared';
/** Followed by their digest: a push that is judged again may keep others, and an earlier request be late. */
const updatesName = 'updates';

/** The mark of a push that is being prepared. */
export function markOf(request: PrepareRequest): PreparedMark {
  const { key, basis, commands, lockRevisions, headRevision } = request;
  const { repositoryId, pushId, attempt } = key;
  return {
    push: { repositoryId, pushId, attempt },
    basis,
    ...(commands.length > maxMarkedUpdates
      ? {}
      : {
          updates: commands.map(({ ref, oldOid, newOid }) => ({ ref, oldOid, newOid })),
        }),
    lockRevisions: lockRevisions.map(({ key, createRevision }) => ({ key, createRevision })),
    ...(headRevision === undefined ? {} : { headRevision }),
  };
}

/** Where a quarantine's files are, and how they are changed. */
type QuarantineFiles = Pick<Store, 'takeWithRoom' | 'spares'>;

/** Takes an empty quarantine; its name is taken then, so a second upload under the same key fails. */
export async function takeQuarantine(store: QuarantineFiles, directory: string): Promise<string> {
  const spare = store.spares.take();
  if (spare === undefined) return makeQuarantine(store, directory);
  try {
    await store.takeWithRoom([{ do: 'rename', from: spare, to: directory }]);
  } catch (error) {
    // Somebody has tidied up.
    if (isMissing(error)) return makeQuarantine(store, directory);
    // The name is taken (no quarantine is an empty directory, which a rename would replace), or the disk full.
    store.spares.add(spare);
    throw error;
  }
  store.spares.marked(directory);
  return packDirectoryOf(directory);
}

/** As `takeQuarantine`, never one that was another's. */
export async function makeQuarantine(
  store: Pick<Store, 'takeWithRoom'>,
  directory: string,
): Promise<string> {
  const packDirectory = packDirectoryOf(directory);
  try {
    await store.takeWithRoom([
      { do: 'mkdir', path: directory },
      { do: 'mkdir', path: packDirectory },
    ]);
    return packDirectory;
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** Where the packs of a quarantine are. */
export function packDirectoryOf(directory: string): string {
  return `${directory}/${packName}`;
}

/**
 * Marks a quarantine as prepared, durably, with the quarantine's own name. Cut short by a crash, it reads as never
 * prepared. Then the caller calls `marked` of the spares. One after another: nearly always the journal has the name
 * already, with those of the packs.
 */
export function markSteps(
  { spares, needRoom }: Pick<Store, 'spares' | 'needRoom'>,
  directory: string,
  mark: PreparedMark,
): readonly FileStep[] {
  const path = `${directory}/${markName}`;
  const text = encodeCheckedLine(mark);
  const name: FileStep = { do: 'sync', path: dirname(directory) };
  return spares.isMarked(directory)
    ? [needRoom, name, { do: 'overwrite', path, text }]
    : [needRoom, { do: 'write', path, text, sync: true }, { do: 'sync', path: directory }, name];
}

/**
 * Empties the place of a quarantine whose packs were promoted: it becomes a spare one, which is then looked into, or
 * is removed. What a power cut brings back, the next start removes.
 */
export function dropSteps(directory: string, spare: string | undefined): readonly FileStep[] {
  if (spare !== undefined) {
    return [
      { do: 'rename', from: directory, to: spare },
      { do: 'expect-names', path: spare, names: [packName, markName] },
      { do: 'expect-names', path: packDirectoryOf(spare), names: [] },
    ];
  }
  return [
    { do: 'unlink', path: join(directory, markName) },
    { do: 'rmdir', path: packDirectoryOf(directory) },
    { do: 'rmdir', path: directory },
  ];
}

/** Puts a quarantine's own name on disk, and those in it: what an intent relies on must outlive a power cut. */
export async function syncNames(directory: string): Promise<void> {
  await Promise.all([syncDirectory(directory), syncDirectory(dirname(directory))]);
}

/** Undefined when the quarantine never became prepared for this push. */
export async function readPreparedMark(
  store: Pick<Store, 'quarantineDirectory'>,
  key: QuarantineKey,
): Promise<PreparedMark | undefined> {
  const path = join(store.quarantineDirectory(key), markName);
  const file = await readFile(path, 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return '';
    throw error;
  });
  const line = decodeCheckedLine(file);
  try {
    const schema = line?.checked === true ? markSchema : markSchema.strict();
    const mark = schema.parse(JSON.parse(line?.text ?? ''));
    if (line?.checked !== (mark.push !== undefined)) return undefined;
    return isMarkOf(key, mark) ? mark : undefined;
  } catch {
    return undefined;
  }
}

function isMarkOf(
  { repositoryId, pushId, attempt }: QuarantineKey,
  { push }: PreparedMark,
): boolean {
  if (push === undefined) return true;
  return push.repositoryId === repositoryId && push.pushId === pushId && push.attempt === attempt;
}

/** Keeps the updates of an entry too large for the log; returns the SHA-256 of what was written. */
export async function storeUpdates(
  directory: string,
  updates: readonly RefCommand[],
): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const text = JSON.stringify(updates);
  const digest = createHash('sha256').update(text).digest('hex');
  await writeFileDurably(join(directory, `${updatesName}-${digest}`), text);
  await syncDirectory(dirname(directory));
  return digest;
}

export async function loadUpdates(
  directory: string,
  digest: string,
): Promise<readonly RefCommand[]> {
  const text =
    (await readUpdates(directory, `${updatesName}-${digest}`)) ??
    // Earlier versions kept the last ones only.
    (await readUpdates(directory, updatesName));
  if (text === undefined) {
    throw new QuorateError(
      'data-corrupt',
      'the updates of a large push are missing from this disk',
    );
  }
  if (createHash('sha256').update(text).digest('hex') !== digest) {
    throw new QuorateError('data-corrupt', 'the updates of a large push are damaged on this disk');
  }
  return updatesSchema.parse(JSON.parse(text));
}

type Kept = Required<Pick<HeldPush, 'updatesDigest'>> & { readonly updates: readonly RefCommand[] };

/**
 * The updates that `storeUpdates` kept: those with one of the `digests`, or the only ones; of several verdicts of which none
 * is named, what any of them allowed. Undefined when there are none, or when they are damaged.
 */
export async function keptUpdates(
  directory: string,
  digests: readonly string[],
): Promise<Kept | Required<Pick<HeldPush, 'anyOf'>> | undefined> {
  const names = (await namesIn(directory)).filter((name) =>
    /^updates(?:-[0-9a-f]{64})?$/.test(name),
  );
  const counting = names.find((name) => digests.includes(name.slice(updatesName.length + 1)));
  const wanted = counting === undefined ? names : [counting];
  const kept = await Promise.all(wanted.map((name) => keptAs(directory, name)));
  const [first] = kept;
  const sound = kept.filter((one) => one !== undefined);
  // What a damaged one allowed nobody knows.
  if (first === undefined || sound.length < kept.length) return undefined;
  return kept.length === 1 ? first : { anyOf: allOf(sound.map(({ updates }) => updates)) };
}

async function keptAs(directory: string, name: string): Promise<Kept | undefined> {
  const text = await readUpdates(directory, name);
  if (text === undefined) return undefined;
  const updatesDigest = createHash('sha256').update(text).digest('hex');
  if (name !== updatesName && name !== `${updatesName}-${updatesDigest}`) return undefined;
  try {
    return { updates: updatesSchema.parse(JSON.parse(text)), updatesDigest };
  } catch {
    return undefined;
  }
}

/** Undefined when there is no such file. Whatever else keeps it from being read says nothing of what is there. */
async function readUpdates(directory: string, name: string): Promise<string | undefined> {
  return readFile(join(directory, name), 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
}

/**
 * Moves the packs of quarantines into the object store. `.keep` files go first and stay until the refs are written,
 * so that no repack takes objects whose refs are not there yet; `.idx` files go last, since a pack counts from then
 * on. Running it again finishes a move that was cut short. The paths of the `.keep` files are added to `keeps` before
 * they are written. `linked`: a file that they become names of, since to make and remove a file for each push costs a
 * disk more than a name does.
 */
export function promoteSteps(
  packs: readonly string[],
  objectsDirectory: string,
  { keeps, linked }: { readonly keeps: Set<string>; readonly linked: string | undefined },
): readonly FileStep[] {
  const to = `${objectsDirectory}/pack`;
  const [indexes, others] = [packs.filter(isIndex), packs.filter((path) => !isIndex(path))];
  const keepOf = (path: string): string => `${to}/${basename(path, '.idx')}.keep`;
  for (const path of indexes) keeps.add(keepOf(path));
  const keep = (path: string): FileStep =>
    linked === undefined
      ? { do: 'write', path: keepOf(path), text: keepReason }
      : { do: 'link', from: linked, to: keepOf(path) };
  const rise = (path: string): FileStep => ({
    do: 'rename',
    from: path,
    to: `${to}/${basename(path)}`,
  });
  return [
    ...indexes.map(keep),
    ...others.map(rise),
    ...indexes.map(rise),
    // Also when there was nothing left to move: whoever moved it may have been killed before it was on disk.
    { do: 'sync', path: to },
  ];
}

/** Links the packs of other quarantines into one, durably. They may be the same packs. */
export async function linkPacks(from: readonly string[], packDirectory: string): Promise<void> {
  const files = (await Promise.all(from.map(quarantinedFiles))).flat();
  for (const path of files) {
    await link(path, join(packDirectory, basename(path))).catch((error: unknown) => {
      if (errorCode(error) !== 'EEXIST') throw error;
    });
  }
  await syncDirectory(packDirectory);
  await syncNames(dirname(packDirectory));
}

/** Paths of what there is to promote. */
export async function quarantinedFiles(directory: string): Promise<readonly string[]> {
  const from = packDirectoryOf(directory);
  return (await namesIn(from)).map((name) => join(from, name));
}

const isIndex = (path: string): boolean => path.endsWith('.idx');

/**
 * Removes the `.keep` files that an earlier process left, when nothing is being applied. A power cut may have taken
 * what was written into them.
 */
export async function removeStaleKeeps(objectsDirectory: string): Promise<void> {
  const reasons = [keepReason, ''];
  const packDirectory = join(objectsDirectory, 'pack');
  for (const name of await namesIn(packDirectory)) {
    if (!name.endsWith('.keep')) continue;
    const path = join(packDirectory, name);
    if (reasons.includes(await readFile(path, 'utf8'))) await rm(path);
  }
}

export async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
