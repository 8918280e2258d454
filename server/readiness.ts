import { constants } from 'node:fs';
import { access, statfs } from 'node:fs/promises';
import type { PastReads } from '../backends/contract/past-reads.js';
import type { Config } from './config.js';

/** Below this a push fails soon, and so may the coordinator's store: no more requests should come here. */
const minFreeBytes = 64 * 1024 * 1024;

/** For readiness: rejects when a directory cannot be written to, or its disk is full. */
export async function checkStorage(directory: string): Promise<void> {
  await access(directory, constants.R_OK | constants.W_OK);
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < minFreeBytes) throw new Error('the disk is full');
}

/**
 * What is missing while the coordinator is lost and eventual reads go on. Where reads are strong unless a repository
 * says otherwise, other front-ends may do better, and this one is not ready.
 */
export function servingWithoutCoordinator({
  config,
  past,
}: {
  readonly config: Config;
  readonly past?: PastReads;
}): string | undefined {
  const lostForMs = past?.lostForMs;
  if (lostForMs === undefined || config['replication.readConsistency'] !== 'eventual') {
    return undefined;
  }
  if (lostForMs > config['replication.readsWithoutCoordinator']) return undefined;
  return `the coordinator has not answered for ${Math.ceil(lostForMs / 1000)} s: only eventual reads are served`;
}
