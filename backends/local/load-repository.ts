import { rm } from 'node:fs/promises';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { LogReader } from '../contract/replica.js';
import type { RefSnapshot } from '../contract/objects.js';
import type { AbandonedLocks } from '../git/abandoned-locks.js';
import { removeAllLeftovers } from '../git/maintenance.js';
import { removeStaleLocks } from '../git/ref-files.js';
import { readKnownRefs } from '../git/ref-snapshot.js';
import { removeHalfWritten } from '../git/repository-files.js';
import {
  type ApplyDependencies,
  cleanUp,
  type Intent,
  stateAfter,
  writeEffects,
  writtenBack,
} from './apply-entries.js';
import { frozen, unlessDiffering } from './frozen.js';
import { type IntentDependencies, packsIn } from './intents.js';
import { removeStaleKeeps } from './quarantine.js';
import { isOverruled } from './overruled-intent.js';
import {
  ensureIntentFile,
  intentSteps,
  markerSteps,
  readState,
  type RepositoryState,
  syncState,
} from './state-file.js';
import { readWholePack, type WholePack } from './whole-pack-record.js';

export type LoadDependencies = ApplyDependencies &
  IntentDependencies & { readonly locks: AbandonedLocks; readonly log: LogReader };

/** What lies on the disk of a repository. */
export interface LoadedRepository {
  readonly state: RepositoryState;
  readonly snapshot: RefSnapshot;
  readonly wholePack: WholePack | undefined;
}

/**
 * Reads a repository from the disk and finishes an interrupted apply, unless a recovery overruled it. `afterStart` says
 * that nothing of this process has touched it yet, so that lock, keep and temporary files in it are leftovers of a process
 * that is gone. `data-corrupt` when its refs are not those that its state claims; `not-found` when there is none.
 */
export async function loadRepository(
  dependencies: LoadDependencies,
  id: string,
  afterStart: boolean,
): Promise<LoadedRepository> {
  const { store, git } = dependencies;
  const gitDir = store.gitDirectory(id);
  const directory = store.repositoryDirectory(id);
  let state = await readState(directory);
  await ensureIntentFile(directory, state);
  await syncState(directory);
  if (afterStart) {
    await rm(store.judgingDirectory(id), { recursive: true, force: true });
    await removeStaleLocks(gitDir);
    await removeHalfWritten(directory);
    await removeAllLeftovers(gitDir);
  }
  if (state.applying !== undefined) state = await finishApply(dependencies, id, state);
  if (afterStart) await removeStaleKeeps(store.objectsDirectory(id));
  const { objectFormat, generation, digest: known } = state;
  const refs = { git, gitDir, generation, objectFormat, digest: known };
  const { snapshot, digest } = await readKnownRefs(refs);
  if (digest !== known) {
    throw frozen('the refs on this disk are not those of the generation that it claims', {
      id,
      generation,
    });
  }
  const wholePack = await readWholePack(store.wholePackPath(id));
  return { state, snapshot, wholePack };
}

/**
 * Finishes what a process that is gone was applying; or puts back what it had written of that, where a recovery has
 * overruled it since.
 */
async function finishApply(
  dependencies: LoadDependencies,
  id: string,
  found: RepositoryState,
): Promise<RepositoryState> {
  const { store } = dependencies;
  const { applying, ...before } = found;
  if (applying === undefined) return found;
  const overruled = await isOverruled(dependencies.log, id, before, applying);
  const intent = overruled ? writtenBack(applying, before) : applying;
  const gitDir = store.gitDirectory(id);
  const directory = store.repositoryDirectory(id);
  const keeps = new Set<string>();
  const packs = await packsIn(dependencies, intent);
  await dependencies.locks.remove(gitDir, refsOf(intent));
  const effects = { intent, keeps, packs, restarted: true };
  await writeEffects(dependencies, id, effects).catch(async (failure: unknown) => {
    const error = unlessDiffering(failure, id);
    throw await unlessLocked(dependencies, gitDir, { error, intent });
  });
  const state = overruled ? before : stateAfter(before, intent);
  await store.take(markerSteps(directory, state));
  // The marker is on disk, and counts when this is: until then it is put back once more.
  if (overruled) await store.take(intentSteps(directory, state, { again: false }));
  await cleanUp(dependencies, id, { intent, keeps });
  return state;
}

/** An error in writing the refs of an intent; `unavailable` while a git that may be running has them locked. */
export async function unlessLocked(
  { locks }: Pick<LoadDependencies, 'locks'>,
  gitDir: string,
  { error, intent }: { readonly error: unknown; readonly intent: Intent },
): Promise<unknown> {
  const mayBeLocked = asQuorateError(error).code === 'storage-failure';
  if (!mayBeLocked || !(await locks.areInTheWay(gitDir, refsOf(intent)))) return error;
  const why = 'a git that runs, or was killed a moment ago, has the refs of the repository locked';
  return new QuorateError('unavailable', `${why}; try again in a minute`, { cause: error });
}

export function refsOf({ entries }: Intent): readonly string[] {
  return entries.flatMap(({ updates }) => updates.map(({ ref }) => ref));
}
