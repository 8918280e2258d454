import { lacksPushes, QuorateError } from '../contract/errors.js';
import type { RefCommand, RefSnapshot } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { isConnected } from '../git/connectivity.js';
import { digestAfter } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import type { Intent } from './apply-entries.js';
import { loadUpdates, quarantinedFiles } from './quarantine.js';
import { bringsObject, realRefs } from './ref-difference.js';
import type { RepositoryState } from './state-file.js';
import type { Store } from './store.js';

export interface IntentDependencies {
  readonly git: GitRunner;
  readonly store: Store;
  /** The quarantine of a push on this disk, if there is one. */
  readonly quarantineOf: (repositoryId: string, pushId: string) => QuarantineKey | undefined;
  /** Paths of the packs in a quarantine, where they are known without looking. */
  readonly packsOf?: (key: QuarantineKey) => readonly string[] | undefined;
}

/** What a repository is before the entries. */
interface Ground {
  readonly id: string;
  readonly gitDirectory: string;
  readonly state: RepositoryState;
  readonly snapshot: RefSnapshot;
}

/** The next entry cannot be applied from the log alone: this store was not among those that prepared it. */
export class BehindError extends QuorateError {
  constructor() {
    super(
      'unavailable',
      'this copy lacks pushes that other storage nodes have, and gets them as soon as one of those answers; try again',
      { details: lacksPushes },
    );
  }
}

/**
 * What applying these entries is to do, up to the first whose objects are not here: what was prepared here does not wait
 * for what was not. Each has to follow from this disk's state and the entries before it, else `data-corrupt`. Throws
 * `BehindError` when not even the first can be applied.
 */
export async function intentOf(
  dependencies: IntentDependencies,
  ground: Ground,
  entries: readonly LogEntry[],
): Promise<Intent> {
  const { id } = ground;
  let { generation, digest } = ground.state;
  const intended: Intent['entries'][number][] = [];
  const quarantines: QuarantineKey[] = [];
  for (const entry of entries) {
    const quarantine = dependencies.quarantineOf(id, entry.pushId);
    if (!(await isApplicable(dependencies, ground, { entry, quarantine }))) break;
    if (quarantine !== undefined) quarantines.push(quarantine);
    const updates = await updatesOf(dependencies, entry, quarantine);
    const before = { generation, digest };
    digest = digestAfter(digest, updates, entry.head);
    if (!followsFrom(entry, before) || digest !== entry.digest) {
      throw new QuorateError(
        'data-corrupt',
        `entry ${entry.generation} of the push log does not follow generation ${generation} of this disk`,
        { details: { id } },
      );
    }
    generation = entry.generation;
    const { pushId, head } = entry;
    intended.push({
      generation,
      pushId,
      updates,
      digest,
      ...(head === undefined ? {} : { head }),
    });
  }
  if (intended.length === 0) throw new BehindError();
  return { entries: intended, quarantines };
}

/** Whether this store prepared an entry, and has what it prepared; or needs nothing for it. */
async function isApplicable(
  dependencies: IntentDependencies,
  ground: Ground,
  {
    entry,
    quarantine,
  }: { readonly entry: LogEntry; readonly quarantine: QuarantineKey | undefined },
): Promise<boolean> {
  if (!entry.prepared.includes(dependencies.store.id) && !isPlain(entry)) return false;
  // What a copy that is gone had kept went with it: that says nothing against the one in its place.
  if (entry.updatesDigest !== undefined) return quarantine !== undefined;
  return quarantine !== undefined || holdsObjectsOf(dependencies, ground, entry);
}

/**
 * Of an entry without a quarantine here. Nearly always it points to what refs have already; but a copy that was
 * prepared may have gone, with what it had, and this be another.
 */
async function holdsObjectsOf(
  { git }: IntentDependencies,
  { gitDirectory: gitDir, snapshot }: Ground,
  { updates }: LogEntry,
): Promise<boolean> {
  const newOids = updates.filter(bringsObject).map(({ newOid }) => newOid);
  const unknown = newOids.filter((oid) => !snapshot.hasTip(oid));
  if (unknown.length === 0) return true;
  return isConnected({
    git,
    gitDir,
    objectDirectory: undefined,
    newOids: unknown,
    knownTips: realRefs(snapshot.refs).map(({ oid }) => oid),
  });
}

async function updatesOf(
  { store }: IntentDependencies,
  entry: LogEntry,
  quarantine: QuarantineKey | undefined,
): Promise<readonly RefCommand[]> {
  if (entry.updatesDigest === undefined) return entry.updates;
  if (quarantine === undefined) {
    throw new QuorateError(
      'data-corrupt',
      'the updates of a large push are missing from this disk',
    );
  }
  return loadUpdates(store.quarantineDirectory(quarantine), entry.updatesDigest);
}

/** Paths of the packs in the quarantines of an intent. */
export async function packsIn(
  { store }: Pick<IntentDependencies, 'store'>,
  { quarantines }: Intent,
  known?: IntentDependencies['packsOf'],
): Promise<readonly string[]> {
  const packs = await Promise.all(
    quarantines.map(
      async (key) => known?.(key) ?? quarantinedFiles(store.quarantineDirectory(key)),
    ),
  );
  return packs.flat();
}

/** The generation that an entry is applied to. */
export function predecessorOf({ generation, after }: LogEntry): number {
  return after?.generation ?? generation - 1;
}

function followsFrom(
  entry: LogEntry,
  { generation, digest }: { readonly generation: number; readonly digest: string },
): boolean {
  return predecessorOf(entry) === generation && (entry.after?.digest ?? digest) === digest;
}

/** Whether an entry can be applied by a store that did not prepare it: it takes refs away, or moves HEAD. */
function isPlain({ updates, updatesDigest }: LogEntry): boolean {
  return updatesDigest === undefined && !updates.some(bringsObject);
}
