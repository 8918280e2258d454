import { asQuorateError, QuorateError } from '../contract/errors.js';
import { ignorableFsckIds } from '../contract/fsck-messages.js';
import { findWrongChecksums } from './checksums.js';
import type { GitResult, GitRunner } from './git-runner.js';
import { couldNotRun, TroubleWatch, troubleOf } from './machine-trouble.js';

/** Findings beyond this many say nothing new. */
const maxProblems = 100;
/** Four hours: every object of a very large repository is read and hashed. */
const fsckTimeoutMs = 4 * 60 * 60_000;
/** git ends so when something keeps it from going on; below it the bits are kinds of what it has found. */
const fatalExit = 128;

interface Looked {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly signal: AbortSignal;
}

/** What a look at all objects came to: what is broken, or why that is not known. */
type Seen = { readonly broken: readonly string[] } | { readonly unclear: QuorateError };

/**
 * An object that is odd in itself (an address without its end, a tree out of order) and has the hash that it is named
 * by is what somebody pushed, where settings let it pass. The disk did not make it so, and no other copy has it better.
 */
const oddIsSound = Object.fromEntries([...ignorableFsckIds].map((id) => [`fsck.${id}`, 'ignore']));

/**
 * Reads every object of a repository and follows all that its refs reach (`git fsck`), niced. What is broken, one line
 * each; empty when all is sound. `still` runs a second look while nothing is repacked: packs that go while git reads
 * them it calls damaged.
 * Errors: `cancelled`; `unavailable` when the machine kept git from reading all (what checksums tell is damage all the
 * same); `storage-failure` when git ended over the repository, and nobody knows yet whether it would over any.
 */
export async function findBroken({
  still,
  ...looked
}: Looked & {
  readonly still: <T>(look: (signal: AbortSignal) => Promise<T>) => Promise<T>;
}): Promise<readonly string[]> {
  let seen = await look(looked);
  if ('broken' in seen && seen.broken.length === 0) return [];
  // One that was killed would be again.
  const killed = 'unclear' in seen && seen.unclear.details['killed'] === true;
  if (!killed) seen = await still((signal) => look({ ...looked, signal }));
  if ('broken' in seen) return seen.broken;
  if (seen.unclear.code !== 'unavailable') throw seen.unclear;
  const wrong = await findWrongChecksums(looked.gitDir, looked.signal);
  if (wrong.length > 0) return wrong;
  throw seen.unclear;
}

/** Whether git finds nothing in a repository. Errors: `cancelled`, `unavailable`. */
export async function isSound(looked: Looked): Promise<boolean> {
  const seen = await look(looked);
  return 'broken' in seen && seen.broken.length === 0;
}

async function look(looked: Looked): Promise<Seen> {
  const { signal } = looked;
  let seen = await fsck(looked, oddIsSound);
  // It died before it looked: of damage, or since this git does not know one of the messages.
  const again = 'unclear' in seen && seen.unclear.code === 'storage-failure' && !signal.aborted;
  if (again) seen = await fsck(looked, {});
  if (signal.aborted) throw new QuorateError('cancelled', 'the verification was given up');
  return seen;
}

/** Missing and broken objects come on stdout, packs that do not match their index on stderr. */
async function fsck(
  { git, gitDir, signal }: Looked,
  config: Readonly<Record<string, string>>,
): Promise<Seen> {
  const watch = new TroubleWatch();
  let result: GitResult;
  try {
    result = await git.run({
      args: ['fsck', '--full', '--no-dangling', '--no-progress', '--no-reflogs'],
      env: { GIT_DIR: gitDir },
      config,
      signal,
      background: true,
      timeoutMs: fsckTimeoutMs,
      onStderr: watch.onStderr,
    });
  } catch (error) {
    if (asQuorateError(error).code !== 'resource-exhausted') throw error;
    // Nothing else makes it say so much.
    const broken = ['git fsck finds more than can be listed'];
    return watch.found === undefined ? { broken } : { unclear: unclear(watch.found) };
  }
  const trouble = troubleOf(result) ?? watch.found;
  const { exitCode } = result;
  if (trouble !== undefined) {
    const killed = exitCode === null || couldNotRun(exitCode);
    return { unclear: unclear(trouble.replaceAll(gitDir, '.'), killed) };
  }
  if (exitCode === 0) return { broken: [] };
  const lines = linesOf(result).map((line) => line.replaceAll(gitDir, '.'));
  if (exitCode !== null && exitCode < fatalExit) {
    return { broken: lines.length > 0 ? lines : ['git fsck failed without a word'] };
  }
  const ended = exitCode === null ? `by ${result.signal}` : 'before it had read all';
  const said = lines.at(-1) ?? 'without a word';
  return { unclear: new QuorateError('storage-failure', `git fsck ended ${ended}: ${said}`) };
}

function linesOf({ stdout, stderr }: GitResult): readonly string[] {
  const lines = `${stdout.toString()}\n${stderr}`.split('\n').filter((line) => line !== '');
  return lines.slice(0, maxProblems);
}

function unclear(why: string, killed = false): QuorateError {
  return new QuorateError(
    'unavailable',
    `git fsck could not read the repository to its end: ${why}`,
    {
      details: { killed },
    },
  );
}
