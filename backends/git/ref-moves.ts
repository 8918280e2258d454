import type { Oid, RefCommand } from '../contract/objects.js';
import type { FileStep } from './file-steps.js';
import { isZero } from './ref-commands.js';
import { isBranchName } from './ref-files.js';

/** With more, git is as quick. */
const maxMoves = 16;

/** Whether all that updates do is to move different branches that exist to some of `commits`, which are here. */
export function arePlainMoves(
  updates: readonly RefCommand[],
  commits: { has(oid: Oid): boolean },
): boolean {
  const refs = new Set(updates.map(({ ref }) => ref));
  if (refs.size === 0 || refs.size !== updates.length || refs.size > maxMoves) return false;
  return updates.every(
    ({ ref, oldOid, newOid }) =>
      isBranchName(ref) && !isZero(oldOid) && oldOid !== newOid && commits.has(newOid),
  );
}

/** Plain moves as file steps. */
export interface RefMoves {
  readonly steps: readonly FileStep[];
  /** Removes the locks that are held when the first `taken` of the steps were taken, and no more. */
  undo(taken: number): readonly FileStep[];
}

/**
 * What `git update-ref` does on the disk to move branches that have files of their own, in its order: each is locked by
 * the file that takes its place, which is synced; its old value is looked at under that lock, and the files are
 * renamed. So everybody else who locks refs as git does is kept out, and what is found otherwise fails: a branch that is
 * locked (`EEXIST`), packed, symbolic, or has another value. Without HEAD's lock, which git takes to write a reflog.
 *
 * Only for `arePlainMoves`. Names of directories are not synced.
 */
export function refMoves(gitDir: string, updates: readonly RefCommand[]): RefMoves {
  const files = updates.map(({ ref, oldOid, newOid }) => {
    const path = `${gitDir}/${ref}`;
    return { path, lock: `${path}.lock`, oldOid, newOid };
  });
  const steps = [
    ...files.flatMap(({ path, lock, oldOid, newOid }): readonly FileStep[] => [
      { do: 'write', path: lock, text: `${newOid}\n`, exclusive: true, sync: true },
      { do: 'expect-text', path, text: `${oldOid}\n` },
    ]),
    ...files.map(({ path, lock }): FileStep => ({ do: 'rename', from: lock, to: path })),
  ];
  const firstRename = 2 * files.length;
  return {
    steps,
    undo: (taken) =>
      files
        .filter((_file, index) => 2 * index < taken && taken <= firstRename + index)
        .map(({ lock }) => ({ do: 'unlink', path: lock })),
  };
}
