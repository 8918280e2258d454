import { randomBytes } from 'node:crypto';
import type { MaintenanceProgress } from '../contract/backend.js';
import { asQuorateError, lacksPushes, QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import type { PeerSource, QuarantineKey, ReplicaExport } from '../contract/replica.js';
import { isConnected } from '../git/connectivity.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import type { OpenRepository } from './open-repository.js';
import { makeQuarantine, syncNames } from './quarantine.js';
import { realRefs } from './ref-difference.js';
import type { Store } from './store.js';

export interface CatchUpDependencies {
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly store: Pick<Store, 'takeWithRoom' | 'quarantineDirectory'>;
  /** Drops a quarantine that came to nothing. */
  readonly abort: (key: QuarantineKey) => Promise<void>;
}

const keyPrefix = 'catch-up-';

/** Drops what a jump that was not finished left, of a copy that is gone: nobody else needs it. */
export async function dropCatchUps(
  store: Pick<Store, 'quarantines'>,
  id: string,
  abort: (key: QuarantineKey) => Promise<void>,
): Promise<void> {
  for (const key of await store.quarantines()) {
    if (key.repositoryId === id && key.pushId.startsWith(keyPrefix)) await abort(key);
  }
}

/** What a repository is that catches up. */
export type CaughtUp = Pick<
  OpenRepository,
  | 'id'
  | 'gitDirectory'
  | 'objectsDirectory'
  | 'objectFormat'
  | 'snapshot'
  | 'generation'
  | 'finish'
  | 'needs'
  | 'pruneGate'
  | 'adopt'
>;

export interface CatchUp {
  readonly atLeast: number;
  readonly source: PeerSource;
  readonly signal: AbortSignal;
  readonly progress?: (progress: MaintenanceProgress) => void;
}

/** After how many bytes it is told of them. */
const tellEveryBytes = 1024 * 1024;
const nobody = (): void => undefined;

/**
 * Takes from a peer what this store lacks and jumps to the peer's generation. Nothing of the repository changes before
 * the objects are here, complete and durable.
 */
export async function catchUpFrom(
  dependencies: CatchUpDependencies,
  repository: CaughtUp,
  catchUp: CatchUp,
): Promise<void> {
  // What it stopped at would stop the jump as well, after all was sent.
  await repository.finish();
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
  repository: CaughtUp,
  { atLeast, source, signal, have, progress = nobody }: CatchUp & { readonly have: readonly Oid[] },
): Promise<void> {
  const exported = await source(have, atLeast, signal);
  try {
    if (exported.generation < atLeast) {
      const message = 'the other store is behind as well';
      throw new QuorateError('unavailable', message, { details: lacksPushes });
    }
    if (exported.generation <= repository.generation) return;
    if (exported.objectFormat !== repository.objectFormat) {
      throw new QuorateError('data-corrupt', 'the other store has another object format');
    }
    progress({ step: 'receiving', done: 0, total: 0 });
    const quarantine = await takeObjects(dependencies, repository, { exported, signal, progress });
    progress({ step: 'checking', done: 0, total: 0 });
    // As a push: what is found complete may not be pruned before its refs are written.
    const leaveGate = await repository.pruneGate.enter();
    try {
      await assertComplete(dependencies, repository, { exported, quarantine, have, signal });
      progress({ step: 'writing refs', done: 0, total: 0 });
      await repository.adopt(exported, quarantine);
    } catch (error) {
      // A half-done apply needs its objects; what was not begun does not.
      if (quarantine !== undefined && !repository.needs(quarantine)) {
        await dependencies.abort(quarantine);
      }
      throw error;
    } finally {
      leaveGate();
    }
  } finally {
    exported.release();
  }
}

/** The objects in a quarantine of their own, durably; undefined when nothing was missing. */
async function takeObjects(
  { indexer, store, abort }: CatchUpDependencies,
  repository: CaughtUp,
  {
    exported,
    signal,
    progress,
  }: Required<Pick<CatchUp, 'signal' | 'progress'>> & { readonly exported: ReplicaExport },
): Promise<QuarantineKey | undefined> {
  if (exported.pack === undefined) return undefined;
  const key: QuarantineKey = {
    repositoryId: repository.id,
    pushId: `${keyPrefix}${randomBytes(12).toString('hex')}`,
    attempt: 1,
  };
  const directory = store.quarantineDirectory(key);
  try {
    await indexer.index({
      pack: counted(exported.pack, progress),
      quarantinePackDir: await makeQuarantine(store, directory),
      objectsDir: repository.objectsDirectory,
      objectFormat: repository.objectFormat,
      maxPackBytes: 0,
      maxObjectBytes: 0,
      // These objects were judged when they were pushed; rules that came later do not undo that.
      fsck: { enabled: false, ignore: [] },
      signal,
      progress: () => progress({ step: 'indexing', done: 0, total: 0 }),
    });
    await syncNames(directory);
    return key;
  } catch (error) {
    await abort(key);
    throw error;
  }
}

/** A pack, of whose bytes it is told as they come. */
async function* counted(
  pack: AsyncIterable<Uint8Array>,
  progress: (progress: MaintenanceProgress) => void,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  let toldBytes = 0;
  for await (const part of pack) {
    bytes += part.byteLength;
    if (bytes - toldBytes >= tellEveryBytes) {
      toldBytes = bytes;
      progress({ step: 'receiving', done: bytes, total: 0 });
    }
    yield part;
  }
}

async function assertComplete(
  { git, store }: CatchUpDependencies,
  repository: CaughtUp,
  {
    exported,
    quarantine,
    have,
    signal,
  }: {
    readonly exported: ReplicaExport;
    readonly quarantine: QuarantineKey | undefined;
    readonly have: readonly Oid[];
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const known = new Set(have);
  const connected = await isConnected({
    git,
    gitDir: repository.gitDirectory,
    objectDirectory: quarantine === undefined ? undefined : store.quarantineDirectory(quarantine),
    newOids: realRefs(exported.refs)
      .map(({ oid }) => oid)
      .filter((oid) => !known.has(oid)),
    knownTips: have,
    signal,
  });
  if (!connected) throw new QuorateError('data-corrupt', 'the other store did not send all');
}
