import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createLocks } from '../coordination/locks.js';
import type { Backend } from '../contract/backend.js';
import type { Coordinator, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { PastReads } from '../contract/past-reads.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { GitRunner } from '../git/git-runner.js';
import { removeTree } from '../git/repository-files.js';
import { coordinatorLog } from '../replicated/coordinator-log.js';
import { createClusterControl } from '../replicated/cluster-control.js';
import { reportDamage } from '../replicated/damage.js';
import { KnownDamages } from '../replicated/known-damages.js';
import { NodeDirectory } from '../replicated/node-directory.js';
import { PushTraces } from '../replicated/push-trace.js';
import type { Consistency } from '../replicated/quorum.js';
import { ReplicatedBackend } from '../replicated/replicated-backend.js';
import { SharedSettingsWatch } from '../replicated/shared-settings.js';
import { createStoreView } from '../replicated/store-view.js';
import { type ControllerSettings, SetController } from '../replicated/set-controller.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { connectTo } from './node-connection.js';
import { SnapshotMemory } from './snapshot-memory.js';
import type { StorageNode } from './storage-node.js';

export interface ClusterBackendDependencies {
  readonly dataDirectory: string;
  readonly coordinator: Coordinator;
  readonly lease: ProcessLease;
  readonly unguarded?: Coordinator;
  readonly past?: PastReads;
  readonly credentials: ClusterCredentials;
  /** The coordinator is not to be believed: then each store says whether it may be read. */
  readonly frozen: () => boolean;
  readonly git: GitRunner;
  readonly pipeline: PushPipeline;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  /** The store of this process, already started; undefined for a front-end without one. */
  readonly node: StorageNode | undefined;
  /** `local.objectEngine` of the backend's status. */
  readonly objectEngine: string;
  readonly options: {
    /** Name of this process in lock holders. */
    readonly nodeId: string;
    /** Those that have to be the same at all front-ends, as words. */
    readonly shared: Readonly<Record<string, string>>;
    readonly lockTimeoutMs: number;
    readonly replicationFactor: number;
    readonly consistency: Consistency;
    readonly readConsistency: 'strong' | 'eventual';
    readonly repair: Omit<ControllerSettings, 'replicationFactor'>;
  };
}

/** The front-end's half of a cluster: the push path over the stores of all nodes. */
export async function createClusterBackend(
  dependencies: ClusterBackendDependencies,
): Promise<Backend> {
  const { dataDirectory, coordinator, node, options, frozen } = dependencies;
  const scratchDirectory = join(dataDirectory, 'scratch');
  await removeTree(scratchDirectory);
  await mkdir(scratchDirectory, { recursive: true, mode: 0o700 });
  const memory = node?.memory ?? new SnapshotMemory();
  const directory = node?.directory ?? (await openDirectory(dependencies, memory));
  const locks = createLocks({ ...dependencies, holder: options.nodeId });
  const { replicationFactor } = options;
  const { readReplicas } = options.repair;
  const traces = new PushTraces({ ...dependencies, frontEnd: options.nodeId });
  const damages = new KnownDamages(dependencies);
  const controller = new SetController({
    ...dependencies,
    replicas: directory,
    locks,
    nodeId: options.nodeId,
    settings: { ...options.repair, replicationFactor },
  });
  return new ReplicatedBackend({
    ...dependencies,
    locks,
    log: coordinatorLog(coordinator),
    replicas: directory,
    knownSnapshot: (id, head) => (frozen() ? undefined : memory.find(id, head)),
    learnCommit: (id, entry) => memory.advance(id, entry),
    scratchDirectory,
    lockTimeoutMs: options.lockTimeoutMs,
    replicationFactor,
    traces,
    stores: createStoreView({
      coordinator,
      replicas: directory,
      traces,
      reportDamage: (id, storeId) => reportDamage(coordinator, id, storeId),
    }),
    cluster: createClusterControl({
      ...dependencies,
      replicas: directory,
      locks,
      controller,
      replicationFactor,
      repairAfterMs: options.repair.repairAfterMs,
    }),
    damages,
    facts: { nodeId: options.nodeId, settings: options.shared },
    companions: [controller, traces, damages, new SharedSettingsWatch(dependencies)],
    consistency: options.consistency,
    readConsistency: options.readConsistency,
    ...(readReplicas.max === 0
      ? {}
      : // Several front-ends may each have a part of the reads.
        { reportReadsFrom: readReplicas.ratePerCopy / 4 }),
    name: 'replicated',
    local: {
      objectEngine: dependencies.objectEngine,
      quarantines: () => node?.quarantines ?? 0,
      maintenanceQueued: () => node?.maintenanceQueued ?? 0,
      // A storage node settles its own.
      resolveQuarantines: () => Promise.resolve(),
      close: async () => {
        await locks.close();
        if (node === undefined) await directory.close();
      },
    },
  });
}

async function openDirectory(
  dependencies: ClusterBackendDependencies,
  memory: SnapshotMemory,
): Promise<NodeDirectory> {
  const directory = new NodeDirectory({
    ...dependencies,
    connect: (to) => connectTo(to, { ...dependencies, memory }),
  });
  await directory.start();
  return directory;
}
