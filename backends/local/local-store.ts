import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { PeerSource, QuarantineKey } from '../contract/replica.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import { createObjectReader } from '../git/object-reader.js';
import { createRefTransactions } from '../git/ref-transaction.js';
import { coordinatorLog } from '../replicated/coordinator-log.js';
import { settleQuarantines } from '../replicated/settle-quarantines.js';
import { LocalReplica } from './local-replica.js';
import { MaintenanceSchedule } from './maintenance-schedule.js';
import { storeRoot } from './store-owner.js';

export interface LocalStoreDependencies {
  readonly dataDirectory: string;
  readonly coordinator: Coordinator;
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly files?: TakeFileSteps;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Told of a repository whose copy may be damaged. */
  readonly suspect?: (repositoryId: string) => void;
  /** Where a repository's missing objects come from. */
  readonly peers?: (repositoryId: string) => PeerSource;
  readonly maintenance: {
    readonly enabled: boolean;
    /** How long an object that nothing reaches is kept after that was noticed. */
    readonly pruneGraceMs: number;
  };
}

/** The store below a data directory, with what keeps it in order. */
export interface LocalStore {
  readonly replica: LocalReplica;
  readonly maintenance: MaintenanceSchedule;
  /** Drops those of the quarantines whose push is over. */
  settle(
    quarantines: readonly QuarantineKey[],
    options?: { readonly idle: boolean },
  ): Promise<void>;
  close(): Promise<void>;
}

export async function openLocalStore(dependencies: LocalStoreDependencies): Promise<LocalStore> {
  const { dataDirectory, coordinator, git, clock } = dependencies;
  const refs = createRefTransactions(dependencies);
  const objects = createObjectReader({ git, clock });
  const maintenance = new MaintenanceSchedule({
    ...dependencies,
    ...dependencies.maintenance,
    replica: () => replica,
  });
  const replica = await LocalReplica.open({
    ...dependencies,
    root: storeRoot(dataDirectory),
    refs,
    objects,
    log: coordinatorLog(coordinator),
    pruneGraceMs: dependencies.maintenance.pruneGraceMs,
    applied: (id) => maintenance.consider(id),
  });
  return {
    replica,
    maintenance,
    settle: (quarantines, options) =>
      settleQuarantines({ ...dependencies, ...options, replica, quarantines }),
    close: async () => {
      await maintenance.close();
      await refs.close();
      await objects.close();
      await replica.close();
    },
  };
}
