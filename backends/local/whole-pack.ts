/**
 * The pack that a clone of everything is given as it is.
 *
 * Right after a full repack the one pack that is no cruft holds exactly what the refs reach, if they did not move
 * meanwhile. Its name, with generation and digest of those refs, is kept in memory and beside the repository. Nobody
 * has to take that back: any push makes another generation, and a later repack removes the file or leaves it as it is,
 * since packs are named by their content.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoredPack } from '../contract/backend.js';
import type { Logger } from '../contract/environment.js';
import { alternatesOf } from '../git/object-pool.js';
import { openStoredPack } from '../git/stored-pack.js';
import type { OpenRepository } from './open-repository.js';
import type { RefsIdentity } from './whole-pack-record.js';

type Repacked = Pick<
  OpenRepository,
  'id' | 'gitDirectory' | 'objectsDirectory' | 'settled' | 'recordWholePack'
>;

interface Repack {
  readonly kind: 'geometric' | 'full';
  readonly repack: () => Promise<void>;
  readonly logger: Logger;
}

/**
 * Runs a repack and records its pack if that is everything that the refs reach and nothing else. Not being able to
 * record fails nothing: git goes on making the packs of clones.
 */
export async function repackRecorded(
  repository: Repacked,
  { kind, repack, logger }: Repack,
): Promise<void> {
  const before = await repository.settled();
  await repack();
  if (kind !== 'full' || before === undefined) return;
  try {
    const after = await repository.settled();
    // Generations only grow: an equal one means that the refs stood still from before git listed them.
    if (after === undefined || !isSame(before, after)) return;
    const pack = await onlyPack(repository);
    if (pack !== undefined) await repository.recordWholePack({ ...after, pack });
  } catch (error) {
    logger.warn(
      { component: 'store', repo: repository.id, err: error },
      'the pack of a full repack was not recorded',
    );
  }
}

/** The recorded pack if it is that of these refs and still there, held open. */
export async function openWholePack(
  { wholePack, objectsDirectory }: OpenRepository,
  refs: RefsIdentity,
): Promise<StoredPack | undefined> {
  if (wholePack === undefined || !isSame(wholePack, refs)) return undefined;
  const own = await openStoredPack(join(objectsDirectory, 'pack'), wholePack.pack);
  if (own !== undefined) return own;
  const [pool] = await alternatesOf(objectsDirectory);
  return pool === undefined ? undefined : openStoredPack(join(pool, 'pack'), wholePack.pack);
}

function isSame(one: RefsIdentity, other: RefsIdentity): boolean {
  return one.generation === other.generation && one.digest === other.digest;
}

/**
 * The one pack that is no cruft. None when there are several, or when it is under `.keep`: git then did not pack it
 * anew, and it may hold what nothing reaches. None either in a shallow repository, where the client would have to be
 * told of its boundary, nor in one that borrows objects, which its own packs lack.
 */
async function onlyPack({ gitDirectory, objectsDirectory }: Repacked): Promise<string | undefined> {
  if ((await readdir(gitDirectory)).includes('shallow')) return undefined;
  if ((await alternatesOf(objectsDirectory)).length > 0) return undefined;
  const files = new Set(await readdir(join(objectsDirectory, 'pack')));
  const packs = [...files].flatMap((file) => {
    const name = file.endsWith('.pack') ? file.slice(0, -'.pack'.length) : undefined;
    return name === undefined || files.has(`${name}.mtimes`) ? [] : [name];
  });
  const [only] = packs;
  if (only === undefined || packs.length > 1) return undefined;
  if (!files.has(`${only}.idx`) || files.has(`${only}.keep`)) return undefined;
  return /^pack-([0-9a-f]{40}|[0-9a-f]{64})$/.exec(only)?.[1];
}
