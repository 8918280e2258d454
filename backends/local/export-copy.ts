import type { Oid } from '../contract/objects.js';
import type { HeldObjects, ReplicaExport } from '../contract/replica.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import { packMissing } from '../git/object-transfer.js';
import { storageFailure } from './disk-errors.js';
import { packHeld } from './held-pushes.js';
import type { OpenRepositories } from './open-repositories.js';
import { realRefs } from './ref-difference.js';
import type { Store } from './store.js';

export interface ExportOptions {
  readonly atLeast: number;
  readonly have: readonly Oid[];
  readonly held?: HeldObjects;
  readonly signal: AbortSignal;
}

/** A copy for a peer, or what is held of one push; see `Replica.export`. */
export async function exportCopy(
  dependencies: {
    readonly git: GitRunner;
    readonly objects: ObjectReader;
    readonly store: Store;
    readonly open: OpenRepositories;
  },
  repositoryId: string,
  { atLeast, have, held, signal }: ExportOptions,
): Promise<ReplicaExport> {
  const { git, objects, store, open } = dependencies;
  const { repository, release } = await open.acquire(repositoryId);
  try {
    repository.refuseBegun();
    // Not from a peer: two stores that lack the same would wait for each other.
    await repository.applyUpTo(atLeast);
    const { snapshot, digest, objectFormat, gitDirectory: gitDir } = repository;
    const tips = realRefs(snapshot.refs).map(({ oid }) => oid);
    const pack =
      held === undefined
        ? await packMissing({ git, objects, gitDir, tips, have, signal })
        : await packHeld({
            git,
            objects,
            have,
            signal,
            repository,
            store,
            key: { repositoryId, pushId: held.pushId, attempt: held.attempt },
            tips: held.tips,
          });
    const { generation, head, refs } = snapshot;
    return { objectFormat, generation, digest, head, refs, pack, release };
  } catch (error) {
    release();
    throw storageFailure(error);
  }
}
