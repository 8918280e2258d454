import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import { isMissing, syncDirectory, writeFileDurably } from '../git/repository-files.js';

/** Repositories that are asked about before a store without an owner's name is taken for ours. */
const askedAbout = 100;

/** Where the store is below a data directory. */
export function storeRoot(dataDirectory: string): string {
  return join(dataDirectory, 'store');
}

/** The id of the cluster that a store says it is of; undefined when there is no store, or it says nothing. */
export async function ownerOf(root: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, 'cluster-id'), 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/**
 * Makes sure that a store belongs to this cluster, whose id is written into it when it is used first. Throws
 * `failed-precondition`, and touches nothing, when it is another's. A store of before there were ids is ours when the
 * coordinator knows any of its repositories; `isKnown` tells.
 */
export async function claimStore(
  root: string,
  clusterId: string,
  isKnown: (repositoryId: string) => Promise<boolean>,
): Promise<void> {
  const owner = await ownerOf(root);
  if (owner === clusterId) return;
  if (owner !== undefined || !(await isOurs(root, isKnown))) {
    throw new QuorateError(
      'failed-precondition',
      `the store in ${root} belongs to another cluster: start on an empty data directory, or with the coordinator (and the etcd.prefix) that it was used with; nothing was changed`,
      { details: { root, owner, clusterId } },
    );
  }
  await mkdir(root, { recursive: true, mode: 0o700 });
  await writeFileDurably(join(root, 'cluster-id'), clusterId);
  await syncDirectory(root);
}

async function isOurs(
  root: string,
  isKnown: (repositoryId: string) => Promise<boolean>,
): Promise<boolean> {
  let seen = 0;
  for (const shard of await names(join(root, 'repos'))) {
    for (const id of await names(join(root, 'repos', shard))) {
      if (await isKnown(id)) return true;
      seen += 1;
      if (seen >= askedAbout) return false;
    }
  }
  return seen === 0;
}

async function names(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
