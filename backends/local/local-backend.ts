import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { createLocks } from '../coordination/locks.js';
import type { Backend } from '../contract/backend.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import { createObjectReader } from '../git/object-reader.js';
import { createRefTransactions } from '../git/ref-transaction.js';
import { removeTree } from '../git/repository-files.js';
import { coordinatorLog } from '../replicated/coordinator-log.js';
import { ReplicatedBackend } from '../replicated/replicated-backend.js';
import { settleQuarantines } from '../replicated/settle-quarantines.js';
import { singleReplica } from '../replicated/voters.js';
import { LocalReplica } from './local-replica.js';
import { MaintenanceSchedule } from './maintenance-schedule.js';

export interface LocalBackendOptions {
  /** Name of this process in lock holders and logs. */
  readonly nodeId: string;
  /** How long a push waits for its locks. */
  readonly lockTimeoutMs: number;
  readonly maintenance: {
    readonly enabled: boolean;
    /** How long an object that nothing reaches is kept after that was noticed. */
    readonly pruneGraceMs: number;
  };
}

export interface LocalBackendDependencies {
  readonly dataDirectory: string;
  readonly coordinator: Coordinator;
  readonly unguarded?: Coordinator;
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly pipeline: PushPipeline;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly options: LocalBackendOptions;
}

/** The `local` backend: the push path with one voter, the store on this disk. Call `start` before anything else. */
export async function createLocalBackend(dependencies: LocalBackendDependencies): Promise<Backend> {
  const { dataDirectory, coordinator, git, indexer, clock, options } = dependencies;
  const scratchDirectory = join(dataDirectory, 'scratch');
  await removeTree(scratchDirectory);
  await mkdir(scratchDirectory, { recursive: true, mode: 0o700 });
  const refs = createRefTransactions({ git, clock });
  const objects = createObjectReader({ git, clock });
  const log = coordinatorLog(coordinator);
  const maintenance = new MaintenanceSchedule({
    ...dependencies,
    ...options.maintenance,
    replica: () => replica,
  });
  const replica = await LocalReplica.open({
    ...dependencies,
    root: join(dataDirectory, 'store'),
    refs,
    objects,
    log,
    pruneGraceMs: options.maintenance.pruneGraceMs,
    applied: (id) => maintenance.consider(id),
  });
  const locks = createLocks({ ...dependencies, holder: options.nodeId });
  return new ReplicatedBackend({
    ...dependencies,
    locks,
    log,
    replicas: singleReplica(options.nodeId, replica),
    scratchDirectory,
    lockTimeoutMs: options.lockTimeoutMs,
    replicationFactor: 1,
    consistency: 'quorum',
    readConsistency: 'strong',
    name: 'local',
    local: {
      objectEngine: indexer.description,
      quarantines: () => replica.quarantines.length,
      maintenanceQueued: () => maintenance.queued,
      resolveQuarantines: () =>
        settleQuarantines({ ...dependencies, replica, quarantines: replica.quarantines }),
      close: async () => {
        await maintenance.close();
        await locks.close();
        await refs.close();
        await objects.close();
        await replica.close();
      },
    },
  });
}
