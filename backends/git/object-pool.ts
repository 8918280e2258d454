/**
 * Object pools: an object directory that several repositories borrow from (`objects/info/alternates`,
 * gitrepository-layout(5)). Nothing here removes an object: packs enter a pool as hard links, and are merged there.
 */
import { mkdir, readdir, readFile, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { hardLink } from './link-objects.js';
import {
  isMissing,
  readObjectStoreStats,
  syncDirectory,
  writeFileDurably,
} from './repository-files.js';
import { runRepack, type MaintenanceContext } from './run-maintenance-git.js';

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

const alternatesPath = (objectsDir: string): string => join(objectsDir, 'info', 'alternates');

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
  const names = await readdir(join(objectsDir, 'pack')).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
  for (const name of names) {
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
  return stat(path).catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
}
