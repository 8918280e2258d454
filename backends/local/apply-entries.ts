import { rm } from 'node:fs/promises';
import type { Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Head } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isZero } from './judge-names.js';
import { dropSteps, promoteSteps } from './quarantine.js';
import { bringsObject } from './ref-difference.js';
import type { RepositoryState } from './state-file.js';
import type { FileStep } from '../git/file-steps.js';
import type { Store } from './store.js';

export interface ApplyDependencies {
  readonly store: Store;
  readonly refs: RefTransactions;
  readonly logger: Logger;
  /** The quarantine is gone. */
  readonly quarantineApplied: (key: QuarantineKey) => void;
}

/** Consecutive entries that are applied together. */
export type Intent = NonNullable<RepositoryState['applying']>;

/** An intent, and the `.keep` files that were written for it. */
export interface Promoted {
  readonly intent: Intent;
  readonly keeps: Set<string>;
  /** It was begun by a process that is gone: there may have been a power cut since. */
  readonly restarted?: boolean;
}

/** What is to be written, and the steps that make the intent durable, unless it is so already. */
export interface Effects extends Promoted {
  /** Files in the quarantines. */
  readonly packs: readonly string[];
  readonly begin?: readonly FileStep[];
  /** What follows when the refs are on disk, of entries with updates and without a change of HEAD. */
  readonly end?: readonly FileStep[];
  /** Nothing of this intent was tried before. */
  readonly isFirst?: boolean;
}

/** Objects and refs of the entries. Idempotent: it is run again from wherever it stopped. */
export async function writeEffects(
  { store, refs }: ApplyDependencies,
  id: string,
  { intent, keeps, packs, begin = [], end = [], ...how }: Effects,
): Promise<void> {
  const { entries, quarantines } = intent;
  const { isFirst = false, restarted = false } = how;
  // Whatever may have been in the way of a link is not in the way of a file.
  const keeping = { keeps, linked: isFirst ? store.keepPath : undefined };
  const promote =
    quarantines.length === 0 ? [] : promoteSteps(packs, store.objectsDirectory(id), keeping);
  let before = [...begin, ...promote];
  const gitDir = store.gitDirectory(id);
  const updates = entries.flatMap((entry) => entry.updates);
  // What goes first, since git does not delete `a` and create `a/b` in one transaction. No reader sees the step.
  const deletions = updates.filter((update) => !bringsObject(update));
  const others = updates.filter(bringsObject);
  if (deletions.length > 0) {
    const after = others.length === 0 ? end : [];
    await refs.commitEither(gitDir, deletions, { restarted, before, after });
    before = [];
  }
  if (others.length > 0) {
    await refs.commitEither(gitDir, others, { restarted, before, after: end });
    before = [];
  }
  if (before.length > 0) await store.take(before);
  const { head } = lastOf(entries);
  if (head !== undefined) await refs.setHead(gitDir, symrefOf(head.new));
}

/** What the marker says of entries that are applied. */
export function stateAfter(
  { objectFormat }: RepositoryState,
  { entries }: Intent,
): RepositoryState {
  const { generation, digest } = lastOf(entries);
  return { objectFormat, generation, digest };
}

/** Never fails an entry that is applied; false when something stays behind, at the latest until the next start. */
export async function cleanUp(
  { store, logger, quarantineApplied }: ApplyDependencies,
  id: string,
  { intent: { quarantines }, keeps }: Promoted,
): Promise<boolean> {
  for (const quarantine of quarantines) quarantineApplied(quarantine);
  const spares: string[] = [];
  const drops = quarantines.flatMap((key) => {
    const directory = store.quarantineDirectory(key);
    const spare = store.spares.placeFor(directory);
    if (spare !== undefined) spares.push(spare);
    return dropSteps(directory, spare);
  });
  try {
    const unlinks = [...keeps].map((path): FileStep => ({ do: 'unlink', path }));
    await store.take([...unlinks, ...drops]);
    for (const spare of spares) store.spares.add(spare);
    return true;
  } catch {
    // A quarantine holds more than is usual.
  }
  try {
    await Promise.all([
      ...[...keeps].map((path) => rm(path, { force: true })),
      ...spares.map((path) => rm(path, { recursive: true, force: true })),
      ...quarantines.map((key) => store.dropQuarantine(key)),
    ]);
    return true;
  } catch (error) {
    logger.warn(
      {
        component: 'store',
        repo: id,
        push_ids: quarantines.map(({ pushId }) => pushId),
        err: error,
      },
      'applied pushes left files behind',
    );
    return false;
  }
}

/**
 * An intent that the log puts in the place of one that stopped half-way, none of whose entries counts any more. What that
 * may have written is written back with it: what follows has refs of its own.
 */
export function overruling(intent: Intent, stopped: Intent): Intent {
  const [first, ...others] = intent.entries;
  if (first === undefined) return intent;
  const { updates: back, ...headBack } = undoing(stopped);
  const updates = [...back, ...first.updates];
  return { ...intent, entries: [{ ...headBack, ...first, updates }, ...others] };
}

/** What puts refs and HEAD back to this state from wherever an intent on it stopped. */
export function writtenBack(
  stopped: Intent,
  { generation, digest }: Pick<RepositoryState, 'generation' | 'digest'>,
): Intent {
  const entry = { generation, pushId: 'write-back', digest, ...undoing(stopped) };
  return { entries: [entry], quarantines: [] };
}

function undoing({ entries }: Intent): Pick<Intent['entries'][number], 'updates' | 'head'> {
  const updates = entries.flatMap((entry) =>
    entry.updates.map(({ ref, oldOid, newOid }) => ({ ref, oldOid: newOid, newOid: oldOid })),
  );
  const { head } = lastOf(entries);
  return head === undefined ? { updates } : { updates, head: { old: head.new, new: head.old } };
}

/** Updates that one ref transaction takes; larger entries go alone. */
const maxUpdatesTogether = 1000;

/**
 * Runs of entries that one intent, one ref transaction and one marker may stand for. None touches a ref twice, so that
 * each ref has its entry's old or new value at any time, also when an apply is cut short and run again in another
 * grouping. Deletions go alone, since git refuses to delete `a` and to create `a/b` together; so do changes of HEAD.
 */
export function applicableTogether(entries: readonly LogEntry[]): readonly (readonly LogEntry[])[] {
  const groups: LogEntry[][] = [];
  let refs = new Set<string>();
  let open = false;
  for (const entry of entries) {
    const names = entry.updates.map(({ ref }) => ref);
    const alone =
      entry.head !== undefined ||
      entry.after !== undefined ||
      entry.updatesDigest !== undefined ||
      entry.updates.some(({ newOid }) => isZero(newOid));
    const joins =
      open &&
      !alone &&
      refs.size + names.length <= maxUpdatesTogether &&
      !names.some((name) => refs.has(name));
    if (joins) {
      groups.at(-1)?.push(entry);
    } else {
      groups.push([entry]);
      refs = new Set();
    }
    for (const name of names) refs.add(name);
    open = !alone;
  }
  return groups;
}

/** Whether something is left to do between the refs of entries and their marker. */
export function needsLookUp({ entries }: Intent): boolean {
  const updates = entries.flatMap((entry) => entry.updates);
  return (
    updates.length === 0 ||
    entries.some(({ head }) => head !== undefined) ||
    !updates.every(({ ref }) => ref.startsWith('refs/heads/'))
  );
}

/** The entry whose generation and digest are those of all of them. */
export function lastOf(entries: Intent['entries']): Intent['entries'][number] {
  const last = entries.at(-1);
  if (last === undefined) throw new QuorateError('internal', 'nothing to apply');
  return last;
}

function symrefOf(head: Head): string {
  if ('symref' in head) return head.symref;
  throw new QuorateError('internal', 'HEAD is never detached by a log entry');
}
