import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { gitOver, type HistorySource, tookTooLong } from './history-command.js';

export interface ChangedPath {
  readonly commit: Oid;
  readonly path: string;
  readonly oid: Oid;
  readonly submodule: boolean;
}

/** A path is at most some kilobytes; a tree entry with a longer one is refused by what comes after. */
const maxFieldBytes = 1024 * 1024;

/**
 * What each of `commits` adds or changes, against its parent; a merge, against all of its parents (what it took from
 * one of them is that one's doing). From one `git diff-tree --stdin -z -c`.
 */
export async function* readChangedPaths(
  source: HistorySource & { readonly git: GitRunner },
  commits: readonly Oid[],
): AsyncGenerator<ChangedPath, void, undefined> {
  if (commits.length === 0) return;
  const stream = await source.git.stream({
    ...gitOver(source, [
      'diff-tree',
      '--stdin',
      '-z',
      '-r',
      '-c',
      '--root',
      '--raw',
      '--no-renames',
      '--no-abbrev',
    ]),
    stdin: Buffer.from(commits.map((oid) => `${oid}\n`).join(''), 'latin1'),
  });
  try {
    let commit = '';
    let change: Omit<ChangedPath, 'path'> | undefined;
    let deletion = false;
    for await (const field of fieldsOf(stream.stdout)) {
      if (deletion) deletion = false;
      else if (change !== undefined) {
        yield { ...change, path: field };
        change = undefined;
      } else if (field.startsWith(':')) {
        change = parseChange(commit, field);
        deletion = change === undefined;
      } else commit = field;
    }
    const { exitCode } = await stream.exited;
    if (exitCode === null) throw tookTooLong();
    if (exitCode !== 0) throw new QuorateError('storage-failure', 'git could not compare trees');
  } finally {
    stream.kill();
    await stream.exited;
  }
}

/**
 * `:MODE MODE OID OID S`, or with a colon, a mode and an id more for each further parent (git-diff-tree(1), "RAW
 * OUTPUT FORMAT"). Undefined for a deletion.
 */
function parseChange(commit: Oid, field: string): Omit<ChangedPath, 'path'> | undefined {
  const parents = /^:+/.exec(field)?.[0].length ?? 0;
  const words = field.slice(parents).split(' ');
  const mode = words[parents];
  const oid = words[2 * parents + 1];
  if (mode === undefined || oid === undefined || words.length !== 2 * parents + 3) {
    throw new QuorateError('internal', 'git diff-tree wrote what it should not');
  }
  return mode === '000000' ? undefined : { commit, oid, submodule: mode === '160000' };
}

async function* fieldsOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = rest.indexOf(0); end !== -1; end = rest.indexOf(0, start)) {
      yield rest.toString('utf8', start, end);
      start = end + 1;
    }
    rest = rest.subarray(start);
    if (rest.length > maxFieldBytes) {
      throw new QuorateError('resource-exhausted', 'a path in it is too long');
    }
  }
}
