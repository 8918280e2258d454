import { QuorateError } from '../contract/errors.js';
import { ignorableFsckIds } from '../contract/fsck-messages.js';
import { findWrongChecksums, packIndexesOf } from './checksums.js';
import type { GitResult, GitRunner } from './git-runner.js';
import { couldNotRun, isTrouble, StderrLines, troubleOf } from './machine-trouble.js';
import { isTooMuchOutput } from './too-much-output.js';

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

/**
 * What a look at all objects came to: what is broken, or why that is not known. `ofObjects`: nothing is said to be
 * missing, nor of refs.
 */
type Seen =
  | { readonly broken: readonly string[]; readonly ofObjects?: boolean }
  | { readonly unclear: QuorateError };

/**
 * An object that is odd in itself (an address without its end, a tree out of order) and has the hash that it is named
 * by is what somebody pushed, where settings let it pass. The disk did not make it so, and no other copy has it better.
 */
const oddIsSound = Object.fromEntries([...ignorableFsckIds].map((id) => [`fsck.${id}`, 'ignore']));

/**
 * What cannot be ignored (`nulInHeader`), or came with a later git, is said so, of an object whose hash git has found
 * right. The bits for it in the exit status are those for broken objects, and for the packs with them, too.
 */
const oddObject = /^(?:error|warning) in \w+ [0-9a-f]{40,64}: \w+: /;
const oddBits = 1 | 4;
/** A HEAD whose branch is still to be made, or no ref at all. */
const notice = /^notice: /;

/**
 * Reads every object of a repository and follows all that its refs reach (`git fsck`), niced. What is broken, one line
 * each; empty when all is sound. `still` runs a second look while nothing is repacked: packs that go while git reads
 * them it calls damaged. Where git did not get to its end, what checksums tell is damage at once: each look may take
 * hours, and git is read twice at most, once more only where it ends over the one look and finds fault in the other.
 * Errors: `cancelled`; `unavailable` when the machine kept git from reading all; `storage-failure` when git ended over
 * the repository twice, and nobody knows yet whether it would over any; `resource-exhausted` when too many gits wait
 * for their turn.
 */
export async function findBroken({
  still,
  ...looked
}: Looked & {
  readonly still: <T>(look: (signal: AbortSignal) => Promise<T>) => Promise<T>;
}): Promise<readonly string[]> {
  const first = await fsck(looked, oddIsSound);
  if ('broken' in first && first.broken.length === 0) return [];
  if ('unclear' in first) {
    const wrong = await findWrongChecksums(looked.gitDir, looked.signal);
    if (wrong.length > 0) return wrong;
    // One that was killed would be again.
    if (first.unclear.details['killed'] === true) throw first.unclear;
  }
  const second = await still((signal) => {
    const stillLooked = { ...looked, signal };
    return hasEnded(first) ? lookOtherwise(stillLooked) : fsck(stillLooked, oddIsSound);
  });
  if ('broken' in second) {
    const nothing =
      second.ofObjects === true && (await still((signal) => isAsPushed({ ...looked, signal })));
    return nothing ? [] : second.broken;
  }
  const wrong = 'broken' in first ? await findWrongChecksums(looked.gitDir, looked.signal) : [];
  if (wrong.length > 0) return wrong;
  throw second.unclear;
}

/**
 * Whether all is as somebody pushed it, whatever `git fsck` says of it: where settings let objects pass unread, a pack
 * may hold some that are nothing (a tree of one word), beside what refs reach. Each object has its hash, and what refs
 * reach is there and can be read. Errors: `cancelled`, `unavailable`.
 */
async function isAsPushed(looked: Looked): Promise<boolean> {
  const { gitDir, signal } = looked;
  if ((await findWrongChecksums(gitDir, signal)).length > 0) return false;
  for (const index of await packIndexesOf(gitDir)) {
    if (!(await succeeds(looked, ['verify-pack', index]))) return false;
  }
  return succeeds(looked, ['rev-list', '--objects', '--quiet', '--all']);
}

async function succeeds(
  { git, gitDir, signal }: Looked,
  args: readonly string[],
): Promise<boolean> {
  const result = await git.run({
    args,
    env: { GIT_DIR: gitDir },
    // What it says of commits may be right where they are not.
    config: { 'core.commitGraph': 'false' },
    signal,
    background: true,
    timeoutMs: fsckTimeoutMs,
  });
  const trouble = troubleOf(result);
  if (trouble !== undefined) throw unclear(trouble.replaceAll(gitDir, '.'));
  return result.exitCode === 0;
}

/** Whether git finds nothing in a repository. Errors: `cancelled`, `unavailable`. */
export async function isSound(looked: Looked): Promise<boolean> {
  const first = await fsck(looked, oddIsSound);
  const seen = hasEnded(first) ? await lookOtherwise(looked) : first;
  return 'broken' in seen && seen.broken.length === 0;
}

/** git ended over what it was to read, or over what it was told: which, nobody knows yet. */
function hasEnded(seen: Seen): boolean {
  return 'unclear' in seen && seen.unclear.code === 'storage-failure';
}

/**
 * Without what is told of odd objects, since this git may not know one of the messages. What it finds then counts
 * unless it gets to its end the other way after all, by which odd objects are sound.
 */
async function lookOtherwise(looked: Looked): Promise<Seen> {
  const plain = await fsck(looked, {});
  if ('unclear' in plain || plain.broken.length === 0) return plain;
  const told = await fsck(looked, oddIsSound);
  return hasEnded(told) ? plain : told;
}

/**
 * Missing and broken objects come on stdout, packs that do not match their index on stderr. Errors: `cancelled`, and what
 * `GitRunner.run` fails with.
 */
async function fsck(
  { git, gitDir, signal }: Looked,
  config: Readonly<Record<string, string>>,
): Promise<Seen> {
  let trouble: string | undefined;
  let odd = false;
  const said: string[] = [];
  const stderr = new StderrLines((line) => {
    if (isTrouble(line)) trouble ??= line;
    if (oddObject.test(line)) odd = true;
    else if (line !== '' && !notice.test(line) && said.length < maxProblems) said.push(line);
  });
  let result: GitResult;
  try {
    result = await git.run({
      args: ['fsck', '--full', '--no-dangling', '--no-progress', '--no-reflogs'],
      env: { GIT_DIR: gitDir },
      config,
      signal,
      background: true,
      timeoutMs: fsckTimeoutMs,
      onStderr: stderr.onStderr,
    });
  } catch (error) {
    if (!isTooMuchOutput(error)) throw error;
    // Nothing else makes it say so much.
    const broken = ['git fsck finds more than can be listed'];
    return trouble === undefined
      ? { broken }
      : { unclear: unclear(trouble.replaceAll(gitDir, '.')) };
  }
  stderr.end();
  if (signal.aborted) throw new QuorateError('cancelled', 'the verification was given up');
  const why = troubleOf(result) ?? trouble;
  const { exitCode, stdout } = result;
  if (why !== undefined) {
    const killed = exitCode === null || couldNotRun(exitCode);
    return { unclear: unclear(why.replaceAll(gitDir, '.'), killed) };
  }
  if (exitCode === 0) return { broken: [] };
  const found = stdout.toString().split('\n', maxProblems);
  const lines = [...found, ...said]
    .filter((line) => line !== '')
    .map((line) => line.replaceAll(gitDir, '.'))
    .slice(0, maxProblems);
  if (exitCode !== null && exitCode < fatalExit) {
    const ofObjects = (exitCode & ~oddBits) === 0;
    if (lines.length > 0) return { broken: lines, ofObjects };
    return { broken: odd && ofObjects ? [] : ['git fsck failed without a word'] };
  }
  const ended = exitCode === null ? `by ${result.signal}` : 'before it had read all';
  const last = lines.at(-1) ?? 'without a word';
  return { unclear: new QuorateError('storage-failure', `git fsck ended ${ended}: ${last}`) };
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
