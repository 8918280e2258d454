import type { Backend } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type {
  ClusterRecovery,
  HeadFound,
  HeadsCompared,
  RecoveryReport,
} from '../contract/recovery.js';
import type { ClusterIdentity } from '../coordination/cluster-identity.js';

export interface ClusterRecoveryParts {
  readonly backend: Pick<Backend, 'recovery'>;
  readonly identity: Pick<
    ClusterIdentity,
    'frozen' | 'recoveredAs' | 'incarnation' | 'check' | 'accept'
  >;
  /** Node ids of members that live and began before this incarnation of the cluster. */
  readonly membersBehind: (incarnation: number) => Promise<readonly string[]>;
}

/** Puts the comparison of heads and the decision to go on together. */
export function createClusterRecovery({
  backend,
  identity,
  membersBehind,
}: ClusterRecoveryParts): ClusterRecovery {
  /** Who has not been started again since a recovery. */
  const restart = async (): Promise<RecoveryReport['restart']> => {
    const { recoveredAs, incarnation } = identity;
    const members = await membersBehind(recoveredAs ?? incarnation);
    return recoveredAs === undefined && members.length === 0 ? undefined : { members };
  };
  return {
    async run({ apply, force, signal }) {
      // What others decided since the last look counts.
      await identity.check();
      const awaits = identity.recoveredAs !== undefined;
      const frozen = awaits ? undefined : identity.frozen?.message;
      // Repositories of the directory backend are what is on the disk: there is no head to raise.
      const compared =
        (await backend.recovery?.compare(signal, { frozen: frozen !== undefined })) ??
        nothingCompared;
      if (!apply) {
        const due = frozen === undefined ? await restart() : undefined;
        return { ...compared, frozen: identity.frozen?.message, applied: false, restart: due };
      }
      const raisable = compared.found.filter(isRaisable);
      // A copy that is older by moments may be noticed by no process, and by the disks that are ahead of it.
      if (frozen === undefined && raisable.length === 0) {
        throw new QuorateError('failed-precondition', nothingToDo(await restart()));
      }
      const stuck = compared.found.filter((found) => !isRaisable(found));
      if (compared.unheard.length > 0 && !force) throw unheardOf(compared);
      if (stuck.length > 0 && !force) {
        throw new QuorateError(
          'failed-precondition',
          `${stuck.length === 1 ? '1 repository' : `${stuck.length} repositories`} cannot be recovered as things are, ${stuck[0]?.name ?? ''} for one ` +
            `(${stuck[0]?.verdict ?? ''}): start the storage nodes that are missing, or go on without these repositories with --force ` +
            'and see quorate repo recover for what then is left of them',
          { details: { repositories: stuck.length } },
        );
      }
      for (const found of raisable) await backend.recovery?.raise(found);
      if (frozen !== undefined) {
        await backend.recovery?.keepCopies(stuck);
        await identity.accept();
      }
      return { ...compared, frozen, applied: true, restart: await restart() };
    },
  };
}

const nothingCompared: HeadsCompared = {
  compared: 0,
  found: [],
  nodes: [],
  unheard: [],
  unrecorded: [],
};

function isRaisable({ verdict }: HeadFound): boolean {
  return verdict === 'behind' || verdict === 'moved' || verdict === 'unfinished';
}

function unheardOf({ nodes, unheard }: HeadsCompared): QuorateError {
  const trouble = nodes.find(({ nodeId }) => nodeId === unheard[0])?.trouble ?? 'unknown trouble';
  return new QuorateError(
    'failed-precondition',
    `no answer about its copies, which might be the latest, from ${unheard.join(', ')} (of ${unheard[0] ?? ''}: ${trouble}): start what is ` +
      'stopped there, or mend it, and wait until quorate recover names it no more, or go on without with --force',
    { details: { nodes: unheard } },
  );
}

function nothingToDo(due: RecoveryReport['restart']): string {
  if (due === undefined) {
    return 'there is nothing to recover: the coordinator is the one that this server knows';
  }
  const these = due.members.length === 0 ? 'this server' : due.members.join(', ');
  return `the recovery was applied already; what is left is to restart ${these}`;
}
