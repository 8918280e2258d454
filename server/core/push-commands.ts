import type { VisibleRefs } from '../../backends/contract/visible-refs.js';
import type { ObjectFormat, RefCommand } from '../../backends/contract/objects.js';
import type { RefOutcome } from '../../backends/contract/repository.js';
import type { PushCommand } from '../wire/command-list.js';
import { isZeroOid } from '../wire/oid.js';
import { isRefName } from '../wire/ref-name.js';
import type { RefReport, ReportOptions } from '../wire/report-status.js';
import { WireError } from '../wire/wire-error.js';
import { oidLength } from './git-context.js';

/** Bytes of a ref name: with the prefix of its lock it has to fit a coordinator key (1,024). */
const maxRefNameBytes = 900;
/** Bytes of one component: with `.lock` behind it, it has to fit a directory entry (255). */
const maxComponentBytes = 250;

export interface JudgedCommands {
  /** One per ref, in the order of the push. */
  readonly commands: readonly RefCommand[];
  /** Ref -> text of its `ng` line. */
  readonly refused: ReadonlyMap<string, string>;
}

/**
 * What can be said of a push's commands before anything is uploaded. Refuses, in git's words, funny and hidden names
 * and refs named twice. Throws WireError for ids of another format.
 */
export function judgeCommands(
  commands: readonly PushCommand[],
  ground: { readonly format: ObjectFormat; readonly visible: VisibleRefs },
): JudgedCommands {
  const length = oidLength(ground.format);
  const byRef = new Map<string, RefCommand>();
  const refused = new Map<string, string>();
  for (const command of commands) {
    const { ref, oldOid, newOid } = command;
    if (oldOid.length !== length || newOid.length !== length) {
      throw new WireError('malformed', `this repository's object ids are ${ground.format}`);
    }
    if (byRef.has(ref)) {
      refused.set(ref, `multiple updates for ref '${ref}' not allowed`);
      continue;
    }
    byRef.set(ref, command);
    const problem = nameProblem(command, ground.visible);
    if (problem !== undefined) refused.set(ref, problem);
  }
  return { commands: [...byRef.values()], refused };
}

function nameProblem({ ref, newOid }: PushCommand, visible: VisibleRefs): string | undefined {
  const deletes = isZeroOid(newOid);
  // A ref of one level (`refs/x`) may be deleted, where other tools made it, and not be made.
  if (!ref.startsWith('refs/') || !isRefName(ref.slice(5), { oneLevel: deletes })) {
    return 'funny refname';
  }
  if (
    Buffer.byteLength(ref) > maxRefNameBytes ||
    ref.split('/').some((part) => Buffer.byteLength(part) > maxComponentBytes)
  ) {
    return 'refname too long';
  }
  if (visible.test(ref)) return undefined;
  return deletes ? 'deny deleting a hidden ref' : 'deny updating a hidden ref';
}

/** The report's lines: one per command that was sent, also where several named one ref. */
export function reportOf(
  sent: readonly PushCommand[],
  outcomes: readonly RefOutcome[],
): readonly RefReport[] {
  const byRef = new Map(outcomes.map((outcome) => [outcome.ref, outcome]));
  return sent.map((command): RefReport => {
    const outcome = byRef.get(command.ref);
    if (outcome === undefined) return { ref: command.ref, status: 'ng', reason: 'no verdict' };
    if (outcome.status === 'refused') {
      return { ref: command.ref, status: 'ng', reason: outcome.reason };
    }
    const options = optionsOf(command, outcome);
    return { ref: command.ref, status: 'ok', ...(options === undefined ? {} : { options }) };
  });
}

/** What happened, where it is not what was asked. */
function optionsOf(
  { oldOid, newOid }: PushCommand,
  done: { readonly oldOid: string; readonly newOid: string },
): ReportOptions | undefined {
  if (oldOid === done.oldOid && newOid === done.newOid) return undefined;
  return { oldOid: done.oldOid, newOid: done.newOid };
}
