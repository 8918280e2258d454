import { QuorateError } from '../contract/errors.js';
import type { GitRunner } from './git-runner.js';

/** Findings beyond this many say nothing new. */
const maxProblems = 100;
/** Four hours: every object of a very large repository is read and hashed. */
const fsckTimeoutMs = 4 * 60 * 60_000;

/**
 * Reads every object of a repository and follows all that its refs reach (`git fsck`), niced. What it finds, one line
 * each; empty when all is sound. Errors: `cancelled`, `unavailable`.
 */
export async function findBroken({
  git,
  gitDir,
  signal,
}: {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly signal: AbortSignal;
}): Promise<readonly string[]> {
  // Missing and broken objects come on stdout, packs that do not match their index on stderr.
  const { exitCode, stdout, stderr } = await git.run({
    args: ['fsck', '--full', '--no-dangling', '--no-progress', '--no-reflogs'],
    env: { GIT_DIR: gitDir },
    signal,
    background: true,
    timeoutMs: fsckTimeoutMs,
  });
  if (signal.aborted) throw new QuorateError('cancelled', 'the verification was given up');
  if (exitCode === 0) return [];
  const lines = `${stdout.toString()}\n${stderr}`
    .replaceAll(gitDir, '.')
    .split('\n')
    .filter((line) => line !== '');
  return lines.length > 0 ? lines.slice(0, maxProblems) : ['git fsck failed without a word'];
}
