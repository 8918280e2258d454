import { QuorateError } from '../contract/errors.js';
import { ignorableFsckIds } from '../contract/fsck-messages.js';
import type { GitRunner } from './git-runner.js';
import { wasKilled } from './killed.js';

/** Findings beyond this many say nothing new. */
const maxProblems = 100;
/** Four hours: every object of a very large repository is read and hashed. */
const fsckTimeoutMs = 4 * 60 * 60_000;

interface Looked {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly signal: AbortSignal;
}

/**
 * An object that is odd in itself (an address without its end, a tree out of order) and has the hash that it is named
 * by is what somebody pushed, where settings let it pass. The disk did not make it so, and no other copy has it better.
 */
const oddIsSound = Object.fromEntries([...ignorableFsckIds].map((id) => [`fsck.${id}`, 'ignore']));

/**
 * Reads every object of a repository and follows all that its refs reach (`git fsck`), niced. What it finds, one line
 * each; empty when all is sound. Errors: `cancelled`, `unavailable` (also when it was killed before it was through).
 */
export async function findBroken(looked: Looked): Promise<readonly string[]> {
  const { gitDir, signal } = looked;
  let found = await fsck(looked, oddIsSound);
  // It died before it looked: of damage, or since this git does not know one of the messages.
  if (found.exitCode === 128 && !signal.aborted) found = await fsck(looked, {});
  if (signal.aborted) throw new QuorateError('cancelled', 'the verification was given up');
  const { exitCode, stdout, stderr } = found;
  if (exitCode === 0) return [];
  if (wasKilled(found)) {
    throw new QuorateError(
      'unavailable',
      'git fsck was killed before it had read the repository: see whether memory or time is short',
      { details: { signal: found.signal } },
    );
  }
  const lines = `${stdout.toString()}\n${stderr}`
    .replaceAll(gitDir, '.')
    .split('\n')
    .filter((line) => line !== '');
  return lines.length > 0 ? lines.slice(0, maxProblems) : ['git fsck failed without a word'];
}

/** Missing and broken objects come on stdout, packs that do not match their index on stderr. */
function fsck(
  { git, gitDir, signal }: Looked,
  config: Readonly<Record<string, string>>,
): ReturnType<GitRunner['run']> {
  return git.run({
    args: ['fsck', '--full', '--no-dangling', '--no-progress', '--no-reflogs'],
    env: { GIT_DIR: gitDir },
    config,
    signal,
    background: true,
    timeoutMs: fsckTimeoutMs,
  });
}
