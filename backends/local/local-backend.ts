import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { createLocks } from '../coordination/locks.js';
import type { Backend } from '../contract/backend.js';
import type { StoreView } from '../contract/cluster.js';
import type { Coordinator, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import { removeTree } from '../git/repository-files.js';
import { coordinatorLog } from '../replicated/coordinator-log.js';
import { PushTraces } from '../replicated/push-trace.js';
import { ReplicatedBackend } from '../replicated/replicated-backend.js';
import { Scrub } from '../replicated/scrub.js';
import { createStoreView } from '../replicated/store-view.js';
import type { InlineLimit } from '../replicated/stored-updates.js';
import { singleReplica } from '../replicated/voters.js';
import { spaceOf } from './disk-space.js';
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
  /** In how long everything is to be read from the disk once; 0: never. */
  readonly scrubIntervalMs: number;
}

export interface LocalBackendDependencies extends InlineLimit {
  readonly dataDirectory: string;
  /** Called when the store is open, before anything is done with it or in the coordinator: may refuse to go on. */
  readonly claim?: (storeId: string) => Promise<void>;
  readonly coordinator: Coordinator;
  readonly lease: ProcessLease;
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
  /** Whether the disk answers nothing, by who looks at it. Absent: nobody looks. */
  readonly diskHangs?: () => boolean;
}

/** The `local` backend: the push path with one voter, the store on this disk. Call `start` before anything else. */
export async function createLocalBackend(dependencies: LocalBackendDependencies): Promise<Backend> {
  const { dataDirectory, coordinator, indexer, options } = dependencies;
  const scratchDirectory = join(dataDirectory, 'scratch');
  await removeTree(scratchDirectory);
  await mkdir(scratchDirectory, { recursive: true, mode: 0o700 });
  const store = await openLocalStore({
    ...dependencies,
    maintenance: options.maintenance,
    suspect: (id) => scrub.suspect(id),
  });
  const { replica } = store;
  try {
    await dependencies.claim?.(replica.storeId);
  } catch (error) {
    await store.close();
    throw error;
  }
  const locks = createLocks({ ...dependencies, holder: options.nodeId });
  const replicas = singleReplica(options.nodeId, replica, dependencies.diskHangs);
  const traces = new PushTraces({ ...dependencies, frontEnd: options.nodeId });
  const scrub = new Scrub({ ...dependencies, replica, intervalMs: options.scrubIntervalMs });
  return new ReplicatedBackend({
    ...dependencies,
    locks,
    log: coordinatorLog(coordinator),
    replicas,
    traces,
    stores: withSpace(createStoreView({ coordinator, replicas, traces }), dataDirectory),
    companions: [traces, scrub],
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

/** The one store as a node: it has no address and no zone, and how full its disk is is looked up when it is asked for. */
function withSpace(view: StoreView, dataDirectory: string): StoreView {
  return {
    ...view,
    nodes: async () => {
      const space = await spaceOf(dataDirectory);
      const plain = { address: undefined, zone: undefined, weight: undefined };
      const nodes = await view.nodes();
      return nodes.map((node) => (node.alive ? { ...node, ...plain, ...space } : node));
    },
  };
}
