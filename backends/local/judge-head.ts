import { isDeepStrictEqual } from 'node:util';
import { QuorateError } from '../contract/errors.js';
import type { Head } from '../contract/objects.js';
import { isBranchName } from '../git/ref-files.js';

/** What would stop HEAD from being written must come up before the commit. */
export function judgeHead(current: Head, change: { readonly old: Head; readonly new: Head }): void {
  if (!isDeepStrictEqual(current, change.old)) {
    throw new QuorateError('aborted', 'HEAD was changed meanwhile; try again');
  }
  if ('symref' in change.new) refuseUnlessBranch(change.new.symref);
  else throw new QuorateError('invalid-argument', 'HEAD can name a branch only');
}

export function refuseUnlessBranch(head: string): void {
  if (!isBranchName(head)) throw new QuorateError('invalid-argument', 'that is no branch name');
}
