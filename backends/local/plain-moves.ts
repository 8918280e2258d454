import type { RefCommand } from '../contract/objects.js';
import type { FileStep } from '../git/file-steps.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { isZero } from './judge-names.js';

/** With more, git's own dry run is as quick. */
const maxMoves = 16;

/**
 * What `git update-ref` would look at before it moves branches, as steps that fail where it would refuse: that each has
 * a file of its own with the old value, and that nobody holds its lock. (git has a HEAD of its own, and leaves the
 * repository's alone: `RefConversations`.) That the new value is a commit was seen when its pack was indexed: the object was read back and compared
 * with its id. So nothing else is left that a dry run could find: names are those of refs that are there.
 *
 * Undefined when the commands do anything else, or their objects came in another way: git is to say.
 */
export function stepsOfPlainMoves(
  gitDir: string,
  commands: readonly RefCommand[],
  indexed: IndexedPack | undefined,
): readonly FileStep[] | undefined {
  const commits = new Set(indexed?.closure?.commits);
  const refs = new Set(commands.map(({ ref }) => ref));
  const arePlain = commands.every(
    ({ ref, oldOid, newOid }) =>
      ref.startsWith('refs/heads/') && !isZero(oldOid) && oldOid !== newOid && commits.has(newOid),
  );
  if (!arePlain || refs.size !== commands.length || refs.size > maxMoves) return undefined;
  return commands.flatMap(({ ref, oldOid }): readonly FileStep[] => [
    { do: 'expect-absent', path: `${gitDir}/${ref}.lock` },
    { do: 'expect-text', path: `${gitDir}/${ref}`, text: `${oldOid}\n` },
  ]);
}
