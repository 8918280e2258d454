import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { createLocks } from '../coordination/locks.js';
import type { Backend } from '../contract/backend.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import { removeTree } from '../git/repository-files.js';
import { coordinatorLog } from '../replicated/coordinator-log.js';
import { ReplicatedBackend } from '../replicated/replicated-backend.js';
import { singleReplica } from '../replicated/voters.js';
import { openLocalStore } from './local-store.js';

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
  readonly files?: TakeFileSteps;
  readonly pipeline: PushPipeline;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly options: LocalBackendOptions;
}

/** The `local` backend: the push path with one voter, the store on this disk. Call `start` before anything else. */
export async function createLocalBackend(dependencies: LocalBackendDependencies): Promise<Backend> {
  const { dataDirectory, coordinator, indexer, options } = dependencies;
  const scratchDirectory = join(dataDirectory, 'scratch');
  await removeTree(scratchDirectory);
  await mkdir(scratchDirectory, { recursive: true, mode: 0o700 });
  const store = await openLocalStore({ ...dependencies, maintenance: options.maintenance });
  const { replica } = store;
  const locks = createLocks({ ...dependencies, holder: options.nodeId });
  return new ReplicatedBackend({
    ...dependencies,
    locks,
    log: coordinatorLog(coordinator),
    replicas: singleReplica(options.nodeId, replica),
    knownSnapshot: (id, head) => replica.knownSnapshot(id, head),
    scratchDirectory,
    lockTimeoutMs: options.lockTimeoutMs,
    replicationFactor: 1,
    consistency: 'quorum',
    readConsistency: 'strong',
    name: 'local',
    local: {
      objectEngine: indexer.description,
      quarantines: () => replica.quarantines.length,
      maintenanceQueued: () => store.maintenance.queued,
      resolveQuarantines: () => store.settle(replica.leftQuarantines),
      close: async () => {
        await locks.close();
        await store.close();
      },
    },
  });
}
