import type { Backend } from '../backends/contract/backend.js';
import { QuorateError } from '../backends/contract/errors.js';
import type { ClusterRecovery } from '../backends/contract/recovery.js';
import type { ClusterIdentity } from '../backends/coordination/cluster-identity.js';

export interface ClusterRecoveryParts {
  readonly backend: Pick<Backend, 'recovery'>;
  readonly identity: Pick<ClusterIdentity, 'frozen' | 'accept'>;
}

/** Puts the comparison of heads and the decision to go on together. */
export function createClusterRecovery({
  backend,
  identity,
}: ClusterRecoveryParts): ClusterRecovery {
  return {
    async run({ apply, force, signal }) {
      const frozen = identity.frozen?.message;
      // Repositories of the directory backend are what is on the disk: there is no head to raise.
      const compared = (await backend.recovery?.compare(signal)) ?? { compared: 0, found: [] };
      if (!apply) return { ...compared, frozen, applied: false };
      const behind = compared.found.filter(({ verdict }) => verdict === 'behind');
      // A copy that is older by moments may be noticed by no process, and by the disks that are ahead of it.
      if (frozen === undefined && behind.length === 0) {
        throw new QuorateError(
          'failed-precondition',
          'there is nothing to recover: the coordinator is the one that this server knows',
        );
      }
      const stuck = compared.found.filter(({ verdict }) => verdict !== 'behind');
      if (stuck.length > 0 && !force) {
        throw new QuorateError(
          'failed-precondition',
          `${stuck.length === 1 ? '1 repository' : `${stuck.length} repositories`} cannot be recovered as things are, ${stuck[0]?.name ?? ''} for one ` +
            `(${stuck[0]?.verdict ?? ''}): start the storage nodes that are missing, or give them up with --force`,
          { details: { repositories: stuck.length } },
        );
      }
      for (const found of behind) await backend.recovery?.raise(found);
      if (frozen !== undefined) await identity.accept();
      return { ...compared, frozen, applied: true };
    },
  };
}
