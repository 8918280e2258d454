import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoreShape } from '../contract/backend.js';
import type { ObjectFormat } from '../contract/objects.js';
import { alternatesOf } from './object-pool.js';

/** Header, fan-out table and two trailers of an index of version 2 (gitformat-pack(5)). */
const fixedIndexBytes = { sha1: 8 + 256 * 4 + 2 * 20, sha256: 8 + 256 * 4 + 2 * 32 };
/** Name, checksum and offset of one object. Packs beyond 2 GiB have 8 bytes more for some. */
const indexBytesPerObject = { sha1: 20 + 4 + 4, sha256: 32 + 4 + 4 };

/** Alternates that have alternates: git follows five; ours have none. */
const maxDepth = 5;

/** Counts the packs of an object store, and the objects in them by the sizes of their indexes; those of its alternates too. */
export async function readStoreShape(
  objectsDirectory: string,
  format: ObjectFormat,
  depth = 0,
): Promise<StoreShape> {
  const packDirectory = join(objectsDirectory, 'pack');
  const names = await readdir(packDirectory).catch(() => []);
  const indexes = names.filter((name) => name.endsWith('.idx'));
  const sizes = await Promise.all(
    // Removed since it was listed: a repack put another one in its place.
    indexes.map((name) =>
      stat(join(packDirectory, name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  let packCount = indexes.length;
  let objectCount = 0;
  for (const size of sizes) {
    objectCount += Math.max(
      0,
      Math.ceil((size - fixedIndexBytes[format]) / indexBytesPerObject[format]),
    );
  }
  if (depth < maxDepth) {
    for (const alternate of await alternatesOf(objectsDirectory).catch(() => [])) {
      const below = await readStoreShape(alternate, format, depth + 1);
      packCount += below.packCount;
      objectCount += below.objectCount;
    }
  }
  return { objectCount, packCount };
}
