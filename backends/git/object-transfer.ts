import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import { writeRevisions } from './connectivity.js';
import { type GitRunner, pacedTimeoutMs } from './git-runner.js';
import { troubleIn } from './machine-trouble.js';
import type { ObjectReader } from './object-reader.js';

export interface PackRequest {
  readonly git: GitRunner;
  readonly objects: Pick<ObjectReader, 'info'>;
  readonly gitDir: string;
  /** Where git finds objects; default: the repository's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** What the pack is to hold, with all that it reaches. */
  readonly tips: readonly Oid[];
  /** What the receiver has, with all that it reaches; those that are not here are left out. */
  readonly have: readonly Oid[];
  readonly signal: AbortSignal;
}

/**
 * One self-contained pack of what `tips` reach and `have` does not, for another store; undefined when that is nothing.
 * git runs once the pack is read. Errors while it is read: `cancelled`, `data-corrupt` (an object is missing here),
 * `storage-failure` (the machine kept git from it).
 */
export async function packMissing(
  request: PackRequest,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const have = new Set(request.have);
  const tips = [...new Set(request.tips)].filter((oid) => !have.has(oid));
  if (tips.length === 0) return undefined;
  const asked = [...have];
  const infos = await request.objects.info(request.gitDir, asked);
  const known = asked.filter((_, index) => infos[index] !== undefined);
  return runPackObjects(request, writeRevisions(tips, known));
}

async function* runPackObjects(
  { git, gitDir, env = { GIT_DIR: gitDir }, signal }: PackRequest,
  revisions: Buffer,
): AsyncGenerator<Uint8Array> {
  const child = await git.stream({
    args: ['pack-objects', '--revs', '--stdout', '--delta-base-offset', '--quiet'],
    env,
    stdin: revisions,
    signal,
    background: true,
    timeoutMs: pacedTimeoutMs,
  });
  let ended = false;
  try {
    for await (const chunk of child.stdout as AsyncIterable<Uint8Array>) yield chunk;
    ended = true;
  } finally {
    if (!ended) child.kill();
  }
  const end = await child.exited;
  const { exitCode, stderr } = end;
  if (exitCode === 0) return;
  if (signal.aborted) throw new QuorateError('cancelled', 'the transfer was given up');
  const trouble = troubleIn(end);
  if (exitCode === null || trouble.trouble !== undefined) {
    throw new QuorateError(
      'storage-failure',
      'git could not pack what another store needs: see whether memory, files or time are short',
      { details: trouble },
    );
  }
  throw new QuorateError('data-corrupt', 'git could not pack what another store needs', {
    details: { exitCode, stderr },
  });
}
