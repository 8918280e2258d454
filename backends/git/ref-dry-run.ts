import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { objectEnvironment, type ObjectSources } from './object-environment.js';
import { isZero, writeDryRun } from './ref-commands.js';
import { troubleIn } from './machine-trouble.js';
import { removeLocksOfKilled, storageFailure } from './ref-files.js';
import { readValuesOnDisk } from './refs-on-disk.js';
import { refConfig } from './ref-config.js';
import { readRefValues, valueOf } from './ref-values.js';

export interface DryRun extends ObjectSources {
  readonly updates: readonly RefCommand[];
  /** Names of the packs and indexes in `objectDirectory`, where they are known without looking. */
  readonly packFiles?: readonly string[];
  /** A directory of the caller's for this repository: where a persistent process sees what is being judged. */
  readonly judgingDirectory?: string;
  readonly signal?: AbortSignal;
}

export type RefFailure =
  /** The ref has another value than the command says. */
  | 'stale'
  /** The name is a directory of another's, among the refs there are or those that the same transaction makes or deletes. */
  | 'name-conflict'
  /** git does not take it: a name that is no ref name, an object that is missing or (for a branch) no commit, a ref given twice. */
  | 'refused';

/** Processes that one dry run may start to find the culprits; the rest of a push that is worse is refused as a whole. */
const maxProbes = 256;

/**
 * Lets git prepare the updates as one transaction, and abort it. Returns what it would not take; all others it would
 * take together. Which ref is at fault is found by comparing values and names, then by halving.
 */
export async function dryRunRefs(
  git: GitRunner,
  run: DryRun,
): Promise<ReadonlyMap<string, RefFailure>> {
  const failures = new Map<string, RefFailure>();
  const seen = new Set<string>();
  for (const { ref } of run.updates) {
    if (!ref.startsWith('refs/') || ref.includes('\0') || seen.has(ref))
      failures.set(ref, 'refused');
    seen.add(ref);
  }
  let left = run.updates.filter(({ ref }) => !failures.has(ref));
  if (await prepares(git, run, left)) return failures;

  for (const [ref, failure] of await conflicts(git, run, left)) failures.set(ref, failure);
  left = left.filter(({ ref }) => !failures.has(ref));
  const probes = { left: maxProbes };
  const taken = await largestPrepared(left, async (updates) => {
    probes.left -= 1;
    return probes.left >= 0 && (await prepares(git, run, updates));
  });
  const takenRefs = new Set(taken.map(({ ref }) => ref));
  for (const { ref } of left) if (!takenRefs.has(ref)) failures.set(ref, 'refused');
  return failures;
}

/** What is aborted need not reach the disk; and nobody is to wait long for a verdict while others wait behind it. */
export const dryRunConfig: Readonly<Record<string, string>> = {
  ...refConfig,
  'core.fsync': 'none',
  'core.filesRefLockTimeout': '1000',
  'core.packedRefsTimeout': '1000',
};

async function prepares(
  git: GitRunner,
  run: DryRun,
  updates: readonly RefCommand[],
): Promise<boolean> {
  if (updates.length === 0) return true;
  const result = await git.run({
    args: ['update-ref', '--stdin', '-z'],
    env: objectEnvironment(run),
    config: dryRunConfig,
    stdin: Buffer.from(writeDryRun(updates)),
    ...(run.signal === undefined ? {} : { signal: run.signal }),
  });
  if (result.exitCode === null) {
    if (result.signal !== null) {
      const refs = updates.map(({ ref }) => ref);
      await removeLocksOfKilled(run.gitDir, refs);
    }
    throw new QuorateError('storage-failure', 'git was ended while it judged the ref updates', {
      details: troubleIn(result),
    });
  }
  const trouble = troubleIn(result);
  if (result.exitCode !== 0 && trouble.trouble !== undefined) {
    throw new QuorateError(
      'storage-failure',
      'git could not judge the ref updates: see whether memory or files are short',
      { details: trouble },
    );
  }
  // The exit status alone would also be 0 for an input that was cut short.
  return (
    result.exitCode === 0 &&
    result.stdout.toString('latin1') === 'start: ok\nprepare: ok\nabort: ok\n'
  );
}

/**
 * Grows a set that git takes: first halves that pass as a whole, then the culprits inside those that do not. Every
 * candidate is tried together with what was taken before, so that the result passes as one transaction.
 */
async function largestPrepared(
  updates: readonly RefCommand[],
  passes: (updates: readonly RefCommand[]) => Promise<boolean>,
): Promise<readonly RefCommand[]> {
  const taken: RefCommand[] = [];
  const groups: (readonly RefCommand[])[] = [updates];
  for (let group = groups.pop(); group !== undefined; group = groups.pop()) {
    if (group.length === 0) continue;
    if (await passes([...taken, ...group])) {
      taken.push(...group);
    } else if (group.length > 1) {
      const middle = group.length >> 1;
      groups.push(group.slice(middle), group.slice(0, middle));
    }
  }
  return taken;
}

/** A git that cannot open a ref says that there is none: then the update is not stale, and git has to be asked again. */
async function refuseMisread(
  gitDir: string,
  values: ReadonlyMap<string, string>,
  updates: readonly RefCommand[],
): Promise<void> {
  const gone = updates.filter(({ ref, oldOid }) => !isZero(oldOid) && !values.has(ref));
  if (gone.length === 0) return;
  const refs = gone.map(({ ref }) => ref);
  const onDisk = await readValuesOnDisk(gitDir, refs).catch((error: unknown) => {
    throw storageFailure(error);
  });
  if (!gone.some(({ ref, oldOid }) => onDisk.get(ref) === oldOid)) return;
  throw new QuorateError(
    'storage-failure',
    'git did not see the refs that are on the disk: see whether files or memory are short',
    { details: { trouble: 'misread' } },
  );
}

/** What values and names alone tell. */
async function conflicts(
  git: GitRunner,
  run: DryRun,
  updates: readonly RefCommand[],
): Promise<Map<string, RefFailure>> {
  const { gitDir, signal } = run;
  const values = await readRefValues({ git, gitDir, ...(signal === undefined ? {} : { signal }) });
  const failures = new Map<string, RefFailure>();
  // Names that the transaction deletes still count: git refuses to delete `a` and to create `a/b` in one.
  const names = new Set(values.keys());
  await refuseMisread(gitDir, values, updates);
  for (const update of updates) {
    if (valueOf(values, update) !== update.oldOid) failures.set(update.ref, 'stale');
    else names.add(update.ref);
  }
  const directories = new Set<string>();
  for (const name of names) for (const parent of parents(name)) directories.add(parent);
  for (const { ref, oldOid, newOid } of updates) {
    const creates = isZero(oldOid) && !isZero(newOid);
    if (!creates || failures.has(ref)) continue;
    if (directories.has(ref) || parents(ref).some((parent) => names.has(parent))) {
      failures.set(ref, 'name-conflict');
    }
  }
  return failures;
}

/** `refs/heads/a/b` -> `refs/heads/a`, `refs/heads`, `refs`. */
function parents(name: string): string[] {
  const found: string[] = [];
  for (let end = name.lastIndexOf('/'); end > 0; end = name.lastIndexOf('/', end - 1)) {
    found.push(name.slice(0, end));
  }
  return found;
}
