import { randomBytes } from 'node:crypto';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import type { PeerSource, QuarantineKey, ReplicaExport } from '../contract/replica.js';
import { findUnconnected } from '../git/connectivity.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import type { OpenRepository } from './open-repository.js';
import { makeQuarantine, syncNames } from './quarantine.js';
import { realRefs } from './ref-difference.js';
import type { Store } from './store.js';

export interface CatchUpDependencies {
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly store: Store;
  /** Drops a quarantine that came to nothing. */
  readonly abort: (key: QuarantineKey) => Promise<void>;
}

export interface CatchUp {
  readonly atLeast: number;
  readonly source: PeerSource;
  readonly signal: AbortSignal;
}

/**
 * Takes from a peer what this store lacks and jumps to the peer's generation. Nothing of the repository changes before
 * the objects are here, complete and durable.
 */
export async function catchUpFrom(
  dependencies: CatchUpDependencies,
  repository: OpenRepository,
  catchUp: CatchUp,
): Promise<void> {
  const have = realRefs(repository.snapshot.refs).map(({ oid }) => oid);
  try {
    await takeOver(dependencies, repository, { ...catchUp, have });
  } catch (error) {
    const { code } = asQuorateError(error);
    if (have.length === 0 || code !== 'data-corrupt') throw error;
    // A peer that cannot build on what is here, or what is here is not whole: then everything is sent.
    await takeOver(dependencies, repository, { ...catchUp, have: [] });
  }
}

async function takeOver(
  dependencies: CatchUpDependencies,
  repository: OpenRepository,
  { atLeast, source, signal, have }: CatchUp & { readonly have: readonly Oid[] },
): Promise<void> {
  const exported = await source(have, atLeast, signal);
  try {
    if (exported.generation < atLeast) {
      throw new QuorateError('unavailable', 'the other store is behind as well');
    }
    if (exported.generation <= repository.generation) return;
    if (exported.objectFormat !== repository.objectFormat) {
      throw new QuorateError('data-corrupt', 'the other store has another object format');
    }
    const quarantine = await takeObjects(dependencies, repository, { exported, have, signal });
    try {
      await repository.adopt(exported, quarantine);
    } catch (error) {
      // A half-done apply needs its objects; what was not begun does not.
      if (quarantine !== undefined && !repository.interrupted) await dependencies.abort(quarantine);
      throw error;
    }
  } finally {
    exported.release();
  }
}

/** The objects, complete, in a quarantine of their own; undefined when nothing was missing. */
async function takeObjects(
  { git, indexer, store, abort }: CatchUpDependencies,
  repository: OpenRepository,
  {
    exported,
    have,
    signal,
  }: {
    readonly exported: ReplicaExport;
    readonly have: readonly Oid[];
    readonly signal: AbortSignal;
  },
): Promise<QuarantineKey | undefined> {
  const key: QuarantineKey = {
    repositoryId: repository.id,
    pushId: `catch-up-${randomBytes(12).toString('hex')}`,
    attempt: 1,
  };
  const directory = store.quarantineDirectory(key);
  try {
    if (exported.pack !== undefined) {
      await store.assertRoom();
      await indexer.index({
        pack: exported.pack,
        quarantinePackDir: await makeQuarantine(directory),
        objectsDir: repository.objectsDirectory,
        objectFormat: repository.objectFormat,
        maxPackBytes: 0,
        maxObjectBytes: 0,
        // These objects were judged when they were pushed; rules that came later do not undo that.
        fsck: { enabled: false, ignore: [] },
        signal,
        progress: () => undefined,
      });
      await syncNames(directory);
    }
    const known = new Set(have);
    const { connected } = await findUnconnected({
      git,
      gitDir: repository.gitDirectory,
      objectDirectory: exported.pack === undefined ? undefined : directory,
      newOids: realRefs(exported.refs)
        .map(({ oid }) => oid)
        .filter((oid) => !known.has(oid)),
      knownTips: have,
      signal,
    });
    if (!connected) throw new QuorateError('data-corrupt', 'the other store did not send all');
    return exported.pack === undefined ? undefined : key;
  } catch (error) {
    if (exported.pack !== undefined) await abort(key);
    throw error;
  }
}
