import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../git/repository-files.js';

const shardPattern = /^[0-9a-f]{2}$/;
const idPattern = /^[0-9a-f]{32}$/;

/** What lies below a directory that keeps things by their ids, in directories of the first two digits of these. */
export interface ShardedPage {
  /** In order. */
  readonly ids: readonly string[];
  readonly more: boolean;
  /** Paths, below the directory, of entries that nothing of ours is called: an editor's leftover, `lost+found`, ... */
  readonly strays: readonly string[];
}

/** Whole shards from the one of `after` on, until there are so many ids beyond it. Strays are of the shards looked at. */
export async function idsInShards(
  root: string,
  { after = '', count = Infinity }: { readonly after?: string; readonly count?: number } = {},
): Promise<ShardedPage> {
  const names = (await readdir(root)).sort();
  const strays = names.filter((name) => !shardPattern.test(name));
  const shards = names.filter((name) => shardPattern.test(name) && name >= after.slice(0, 2));
  const ids: string[] = [];
  let looked = 0;
  for (const shard of shards) {
    if (ids.length >= count) break;
    looked += 1;
    const entries = await entriesOf(join(root, shard));
    if (entries === undefined) strays.push(shard);
    for (const name of entries?.sort() ?? []) {
      // In the shard of another id nobody looks for it.
      if (!idPattern.test(name) || !name.startsWith(shard)) strays.push(`${shard}/${name}`);
      else if (name > after) ids.push(name);
    }
  }
  return { ids, more: looked < shards.length, strays };
}

/** Undefined for what is no directory. One that cannot be read is trouble: what lies in it may be the latest there is. */
async function entriesOf(directory: string): Promise<string[] | undefined> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
