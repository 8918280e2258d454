import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';

/** A transaction that changes nothing: `prepare` takes every lock and does every check that `commit` relies on. */
export function writeDryRun(updates: readonly RefCommand[]): string {
  return `start\0${writeRefCommands(updates)}prepare\0abort\0`;
}

/**
 * The updates of one transaction as `git update-ref --stdin -z` wants them. In the NUL-terminated form a name is data
 * whatever it holds, so that no name can become a command. Symbolic refs are not followed: the ref that was named is
 * the one that changes.
 *
 * Throws `invalid-argument` for what is no full ref name, no object id, or deletes a ref that does not exist.
 */
export function writeRefCommands(updates: readonly RefCommand[]): string {
  const parts: string[] = [];
  for (const update of updates) {
    assertRefCommand(update);
    const { ref, oldOid, newOid } = update;
    parts.push('option no-deref\0');
    if (oldOid === newOid) parts.push(`verify ${ref}\0${oldOid}\0`);
    else if (isZero(newOid)) parts.push(`delete ${ref}\0${oldOid}\0`);
    else parts.push(`update ${ref}\0${newOid}\0${oldOid}\0`);
  }
  return parts.join('');
}

/** Each ref that one of several parts of the same commands names, once. */
export function allOf(parts: readonly (readonly RefCommand[])[]): readonly RefCommand[] {
  const [only, ...others] = parts;
  if (only !== undefined && others.length === 0) return only;
  return [...new Map(parts.flat().map((command) => [command.ref, command])).values()];
}

/** True for the object id of "no object". */
export function isZero(oid: string): boolean {
  return /^0+$/.test(oid);
}

function assertRefCommand({ ref, oldOid, newOid }: RefCommand): void {
  // git judges the rest of the name; these two would change what the command means, or what it is aimed at.
  if (!ref.startsWith('refs/') || ref.includes('\0')) {
    throw new QuorateError('invalid-argument', 'that is no full ref name');
  }
  for (const oid of [oldOid, newOid]) {
    if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(oid)) {
      throw new QuorateError('invalid-argument', 'that is no object id');
    }
  }
}
