import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import { writeRevisions } from './connectivity.js';
import type { GitRunner } from './git-runner.js';
import { troubleOf } from './machine-trouble.js';
import { objectEnvironment, type ObjectSources } from './object-environment.js';
import type { ObjectReader } from './object-reader.js';

export interface FastForwardCheck extends ObjectSources {
  readonly git: GitRunner;
  readonly oldOid: Oid;
  readonly newOid: Oid;
  readonly signal?: AbortSignal;
}

/** Whether the old value is an ancestor of the new one. False for what is no commit (nor a tag of one). */
export async function isFastForward(check: FastForwardCheck): Promise<boolean> {
  const { git, oldOid, newOid, signal } = check;
  const { exitCode } = await git.run({
    args: ['merge-base', '--is-ancestor', '--end-of-options', oldOid, newOid],
    env: objectEnvironment(check),
    ...(signal === undefined ? {} : { signal }),
  });
  if (exitCode === null) throw ended();
  return exitCode === 0;
}

export interface ReachabilityCheck {
  readonly git: GitRunner;
  readonly objects: Pick<ObjectReader, 'info'>;
  readonly gitDir: string;
  /** Commits and tags; a tree or blob counts as unreachable here. */
  readonly wants: readonly Oid[];
  /** Values of the refs that count. */
  readonly tips: readonly Oid[];
  readonly signal?: AbortSignal;
}

/**
 * The first of `wants` that no tip reaches, or undefined when all are reachable. A tag is reachable when a tip is it
 * or a tag of it; that its commit is reachable does not do. One walk answers for all commits; it goes back from the
 * tips no further than the oldest want.
 */
export async function firstUnreachable(check: ReachabilityCheck): Promise<Oid | undefined> {
  const tips = new Set(check.tips);
  const wants = [...new Set(check.wants)].filter((oid) => !tips.has(oid));
  if (wants.length === 0) return undefined;
  const infos = await check.objects.info(check.gitDir, wants);
  const ofType = (type: 'commit' | 'tag'): Oid[] =>
    wants.filter((_, index) => infos[index]?.type === type);
  const commits = ofType('commit');
  const tags = ofType('tag');

  const bad = new Set(wants);
  for (const oid of commits) bad.delete(oid);
  const taggable = tags.length === 0 ? new Set<Oid>() : await tagsReachedFrom(check);
  for (const oid of tags) if (taggable.has(oid)) bad.delete(oid);
  // A want that is no commit or tag, or no tag that a tip reaches, settles it without a walk.
  const first = wants.find((oid) => bad.has(oid));
  if (first !== undefined) return first;
  return firstUnreachableCommit(check, commits);
}

async function firstUnreachableCommit(
  check: ReachabilityCheck,
  commits: readonly Oid[],
): Promise<Oid | undefined> {
  if (commits.length === 0) return undefined;
  // Lists what the wants reach and the tips do not. A want among it is unreachable; if there is none, all are reachable.
  const output = await revList(check, ['--max-count=1'], writeRevisions(commits, check.tips));
  const found = output.trim();
  if (found === '') return undefined;
  if (commits.includes(found)) return found;
  // With dates that lie, an ancestor may come before the want that reaches it: ask for each.
  for (const oid of commits) {
    const alone = await revList(check, ['--max-count=1'], writeRevisions([oid], check.tips));
    if (alone !== '') return oid;
  }
  throw new QuorateError('internal', 'an unreachable commit belongs to no want');
}

/** All tag objects that the tips are or lead to. Tags only point on: no commit is walked. */
async function tagsReachedFrom(check: ReachabilityCheck): Promise<Set<Oid>> {
  const output = await revList(
    check,
    [
      '--objects',
      '--no-walk=unsorted',
      '--no-object-names',
      '--filter=object:type=tag',
      '--filter-provided-objects',
    ],
    writeRevisions(check.tips, []),
  );
  return new Set(output.split('\n'));
}

async function revList(
  check: ReachabilityCheck,
  args: readonly string[],
  stdin: Buffer,
): Promise<string> {
  const result = await check.git.run({
    args: ['rev-list', ...args, '--stdin'],
    env: { GIT_DIR: check.gitDir },
    stdin,
    ...(check.signal === undefined ? {} : { signal: check.signal }),
  });
  const { exitCode, stdout, stderr } = result;
  const trouble = troubleOf(result);
  if (exitCode === null || (exitCode !== 0 && trouble !== undefined)) throw ended(trouble);
  if (exitCode !== 0) {
    throw new QuorateError('data-corrupt', 'the history of the repository cannot be walked', {
      details: { stderr },
    });
  }
  return stdout.toString('latin1');
}

/** `trouble`: what it said of the machine. */
function ended(trouble?: string): QuorateError {
  return new QuorateError('storage-failure', 'git was ended while it walked the history', {
    details: trouble === undefined ? {} : { trouble },
  });
}
