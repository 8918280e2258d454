import type { RefCommand, RefSnapshot } from '../contract/objects.js';
import { numberSetting, type StoredSettings } from '../contract/settings.js';

export const isZero = (oid: string): boolean => /^0+$/.test(oid);

/** Commands of branches that are neither made nor deleted. */
export function movedBranches(commands: readonly RefCommand[]): readonly RefCommand[] {
  return commands.filter(
    ({ ref, oldOid, newOid }) =>
      ref.startsWith('refs/heads/') && !isZero(oldOid) && !isZero(newOid),
  );
}

/**
 * What a snapshot alone says of the commands of a push: stale old values, symbolic refs, names in each other's way,
 * too many refs. Returns ref -> text of the `ng` line, in git's words where git has some.
 */
export function judgeNames(
  snapshot: RefSnapshot,
  commands: readonly RefCommand[],
  settings: StoredSettings,
): Map<string, string> {
  const refused = new Map<string, string>();
  for (const command of commands) {
    const reason = staleReason(snapshot, command);
    if (reason !== undefined) refused.set(command.ref, reason);
  }
  const created = commands.filter(
    ({ ref, newOid }) => !isZero(newOid) && !refused.has(ref) && snapshot.find(ref) === undefined,
  );
  const createdNames = new Set(created.map(({ ref }) => ref));
  for (const { ref } of created) {
    const reason = conflictReason(snapshot, ref);
    if (reason !== undefined) refused.set(ref, reason);
    for (const ancestor of ancestorsOf(ref).filter((name) => createdNames.has(name))) {
      const both = `cannot process '${ancestor}' and '${ref}' at the same time`;
      refused.set(ref, both);
      refused.set(ancestor, both);
    }
  }
  const limit = numberSetting(settings, 'receive.maxRefs');
  const deleted = commands.filter(
    ({ ref, oldOid, newOid }) => isZero(newOid) && !isZero(oldOid) && !refused.has(ref),
  ).length;
  let free = limit === 0 ? Infinity : limit - snapshot.refs.length + deleted;
  for (const { ref } of created) {
    if (refused.has(ref) || free-- > 0) continue;
    refused.set(ref, `the repository may hold ${limit} refs (receive.maxRefs)`);
  }
  return refused;
}

/**
 * A connection that ends without an answer, as where nobody knows what became of a push, has libcurl send a small push
 * again by itself: who reads this may never have seen the first try.
 */
const doneBefore = 'by an earlier try of this push, perhaps, whose answer was lost; see git fetch';

function staleReason(
  snapshot: RefSnapshot,
  { ref, oldOid, newOid }: RefCommand,
): string | undefined {
  const current = snapshot.find(ref);
  if (current?.symref !== undefined) return `it is a symbolic ref to ${current.symref}; push there`;
  if (current === undefined) {
    // To delete what is not there, and is not said to be, changes nothing, and succeeds with a warning, as with git.
    if (isZero(newOid) && !isZero(oldOid)) return 'no such ref';
    return isZero(oldOid) ? undefined : `stale info: it is gone, expected ${short(oldOid)}`;
  }
  const now = short(current.oid);
  const isDone = current.oid === newOid;
  if (isZero(oldOid))
    return `reference already exists${isDone ? `, at ${now}: ${doneBefore}` : ''}`;
  if (current.oid === oldOid) return undefined;
  if (isDone) return `stale info: is at ${now} already, ${doneBefore}`;
  return `stale info: is at ${now} but expected ${short(oldOid)}`;
}

/** A ref cannot be both a file and a directory: an existing `a` excludes `a/b`, and the other way round. */
function conflictReason(snapshot: RefSnapshot, ref: string): string | undefined {
  const above = ancestorsOf(ref).find((ancestor) => snapshot.find(ancestor) !== undefined);
  if (above !== undefined) return `'${above}' exists; cannot create '${ref}'`;
  const [start, end] = snapshot.prefixRange(`${ref}/`);
  const below = start < end ? snapshot.refs[start] : undefined;
  return below === undefined ? undefined : `'${below.name}' exists; cannot create '${ref}'`;
}

/** `refs/heads/a/b` -> `refs/heads/a`, `refs/heads`. */
function ancestorsOf(ref: string): string[] {
  const ancestors: string[] = [];
  for (let slash = ref.lastIndexOf('/'); slash > 0; slash = ref.lastIndexOf('/', slash - 1)) {
    ancestors.push(ref.slice(0, slash));
  }
  return ancestors;
}

const short = (oid: string): string => oid.slice(0, 10);
