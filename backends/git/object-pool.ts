/**
 * Object pools: an object directory that several repositories borrow from (`objects/info/alternates`,
 * gitrepository-layout(5)). Nothing here removes an object: packs enter a pool as hard links, and are merged there.
 */
import { link, mkdir, readdir, readFile, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import {
  isMissing,
  readObjectStoreStats,
  syncDirectory,
  writeFileDurably,
} from './repository-files.js';
import { runRepack, type MaintenanceContext } from './run-maintenance-git.js';

/** What belongs to a pack and moves with it. Times of cruft packs do not: in a pool nothing is cruft. */
const companions = ['.pack', '.rev'] as const;

/** Object directories that `objectsDir` borrows from, absolute. Quorate writes one; others are somebody else's. */
export async function alternatesOf(objectsDir: string): Promise<readonly string[]> {
  try {
    const text = await readFile(alternatesPath(objectsDir), 'utf8');
    const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return lines.map((line) => resolve(objectsDir, line));
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** Lets `objectsDir` borrow from the pool, by a relative path: the data directory may be moved. Durable on return. */
export async function borrowFrom(objectsDir: string, poolObjectsDir: string): Promise<void> {
  const info = dirname(alternatesPath(objectsDir));
  await mkdir(info, { recursive: true });
  await writeFileDurably(alternatesPath(objectsDir), `${relative(objectsDir, poolObjectsDir)}\n`);
}

/** Ends the borrowing. Whoever calls it has put everything that was borrowed into `objectsDir`. Durable on return. */
export async function stopBorrowing(objectsDir: string): Promise<void> {
  await rm(alternatesPath(objectsDir), { force: true });
  await syncDirectory(dirname(alternatesPath(objectsDir)));
}

/** When the borrowing began, or undefined. */
export async function borrowingSinceMs(objectsDir: string): Promise<number | undefined> {
  try {
    return (await stat(alternatesPath(objectsDir))).mtimeMs;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

const alternatesPath = (objectsDir: string): string => join(objectsDir, 'info', 'alternates');

/**
 * Makes every object of one object directory an object of another as well, by hard links: it costs a few names for
 * each pack, whatever is in it. The caller lets no repack run in either. Packs may be added to `from` meanwhile; what
 * was there at the call is in `to`, durably, on return. Idempotent: a crash leaves packs that do not count yet.
 */
export async function linkObjects(from: string, to: string): Promise<void> {
  await linkLooseObjects(from, to);
  const [source, target] = [join(from, 'pack'), join(to, 'pack')];
  const [names, present] = [new Set(await readdir(source)), new Set(await readdir(target))];
  for (const name of names) {
    // A repack that was stopped may have left others, of objects that are in these.
    if (!/^pack-[0-9a-f]+\.idx$/.test(name)) continue;
    const base = name.slice(0, -'.idx'.length);
    if (!names.has(`${base}.pack`)) continue; // Half removed: its objects are in another.
    if (present.has(name) && present.has(`${base}.pack`)) continue;
    // Without an index a pack does not count, and what is left of one may be of another making than its index here.
    for (const suffix of companions) {
      await rm(join(target, `${base}${suffix}`), { force: true });
      if (names.has(`${base}${suffix}`)) await hardLink(source, target, `${base}${suffix}`);
    }
    await hardLink(source, target, name);
  }
  await syncDirectory(target);
}

/** There are hardly any: pushes come as packs. Hooks may write them. */
async function linkLooseObjects(from: string, to: string): Promise<void> {
  for (const fanout of await readdir(from)) {
    if (!/^[0-9a-f]{2}$/.test(fanout)) continue;
    const [source, target] = [join(from, fanout), join(to, fanout)];
    await mkdir(target, { recursive: true });
    const present = new Set(await readdir(target));
    for (const name of await readdir(source)) {
      if (/^[0-9a-f]{38,62}$/.test(name) && !present.has(name))
        await hardLink(source, target, name);
    }
    await syncDirectory(target);
  }
  await syncDirectory(to);
}

/**
 * Removes packs without an index, which a crash left while they were linked. For pools, where nothing but the caller
 * adds packs: elsewhere a push may be bringing one in.
 */
export async function removeHalfLinked(poolObjectsDir: string): Promise<void> {
  const directory = join(poolObjectsDir, 'pack');
  const names = new Set(await readdir(directory));
  for (const name of names) {
    const base = /^(pack-[0-9a-f]+)\.(?:pack|rev|bitmap)$/.exec(name)?.[1];
    if (base !== undefined && !names.has(`${base}.idx`)) await unlink(join(directory, name));
  }
}

async function hardLink(source: string, target: string, name: string): Promise<void> {
  try {
    await link(join(source, name), join(target, name));
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'EEXIST') return;
    if (code === 'EPERM' || code === 'ENOTSUP' || code === 'EMLINK') {
      throw new QuorateError(
        'failed-precondition',
        'the file system of this store makes no hard links, without which there are no forks',
        { cause },
      );
    }
    throw cause;
  }
}

/**
 * Gives the pool the bitmap of the largest pack that it got from `lender`, and takes from the lender all bitmaps of
 * packs: git uses one, and tells every client by a line with its path of another that it finds.
 */
export async function handOverBitmap(lender: string, pool: string): Promise<void> {
  const [source, target] = [join(lender, 'pack'), join(pool, 'pack')];
  const bitmaps = (await readdir(source)).filter((name) => /^pack-.*\.bitmap$/.test(name));
  const packs = await Promise.all(
    bitmaps.map((name) => fileOf(join(source, name.replace(/bitmap$/, 'pack')))),
  );
  const sizes = packs.map((pack) => pack?.size ?? 0);
  const largest = bitmaps[sizes.indexOf(Math.max(...sizes))];
  const hasOne = (await readdir(target)).some((name) => name.endsWith('.bitmap'));
  for (const name of bitmaps) {
    if (name === largest && !hasOne) await hardLink(source, target, name);
    await unlink(join(source, name));
  }
}

/** A pool gets some packs with each fork; beyond this, looking for an object in all of them begins to cost. */
const maxPoolPacks = 12;
const maxPoolLooseObjects = 500;

export async function poolNeedsRepack(objectsDir: string): Promise<boolean> {
  const { packCount, looseObjectCount } = await readObjectStoreStats(objectsDir);
  return packCount > maxPoolPacks || looseObjectCount > maxPoolLooseObjects;
}

/**
 * Merges the small packs of a pool, whatever they hold: which objects its members still need is nobody's to say here.
 * Interrupted anywhere, it leaves a sound pool.
 */
export async function repackPool(context: MaintenanceContext): Promise<void> {
  await runRepack(context, ['--geometric=2', '--no-write-bitmap-index']);
  await syncDirectory(join(context.gitDir, 'objects', 'pack'));
}

/**
 * The packs of `objectsDir` that its pool has, too: file names of the packs, and what is not used twice, in bytes.
 * They take no room, since both names are of one file.
 */
export async function twins(
  objectsDir: string,
  poolObjectsDir: string,
): Promise<{ readonly packs: readonly string[]; readonly sizeBytes: number }> {
  const packs: string[] = [];
  let sizeBytes = 0;
  for (const name of await readdir(join(objectsDir, 'pack')).catch(() => [])) {
    if (!/\.(?:pack|idx|rev)$/.test(name)) continue;
    const [own, pooled] = await Promise.all([
      fileOf(join(objectsDir, 'pack', name)),
      fileOf(join(poolObjectsDir, 'pack', name)),
    ]);
    if (own === undefined || own.ino !== pooled?.ino) continue;
    sizeBytes += own.size;
    if (name.endsWith('.pack')) packs.push(name);
  }
  return { packs, sizeBytes };
}

async function fileOf(path: string): Promise<{ ino: number; size: number } | undefined> {
  return stat(path).catch(() => undefined);
}
