import { openClusterIdentity } from '../../coordination/cluster-identity.js';
import { guardCoordinator } from '../../coordination/guarded-coordinator.js';
import { shareReads } from '../../coordination/shared-reads.js';
import type { Compare, Coordinator } from '../../contract/coordinator.js';
import type { ClusterRecovery } from '../../contract/recovery.js';
import { QuorateError } from '../../contract/errors.js';
import type { PushJudges, PushPipeline } from '../../contract/pipeline.js';
import { createLocks, type Locks } from '../../coordination/locks.js';
import { createProcessLease } from '../../coordination/process-lease.js';
import { createClusterRecovery } from '../../replicated/cluster-recovery.js';
import { coordinatorLog } from '../../replicated/coordinator-log.js';
import { NodeDirectory, type NodeDirectoryDependencies } from '../../replicated/node-directory.js';
import type { Consistency } from '../../replicated/quorum.js';
import { createClusterControl } from '../../replicated/cluster-control.js';
import { ReplicatedBackend } from '../../replicated/replicated-backend.js';
import { KnownDamages } from '../../replicated/known-damages.js';
import { SetController } from '../../replicated/set-controller.js';
import { SimulatedGit } from './simulated-git.js';
import type { SimulatedProcess } from './simulated-process.js';

/** Longer than anybody may have to wait for a lock once all is well, so that a wait for nothing shows. */
const lockTimeoutMs = 150_000;

export interface FrontEnd {
  readonly backend: ReplicatedBackend;
  readonly controller: SetController;
  readonly cluster: ReturnType<typeof createClusterControl>;
  /** `quorate recover`. */
  readonly recovery: ClusterRecovery;
}

export interface FrontEndParts {
  readonly process: SimulatedProcess;
  /** Not guarded against going back. */
  readonly coordinator: Coordinator;
  readonly connect: NodeDirectoryDependencies['connect'];
  /** Path of its disk. */
  readonly root: string;
  readonly replicationFactor: number;
  readonly consistency: Consistency;
  /** Larger ones are kept by the stores; undefined: as everywhere. */
  readonly maxInlineUpdatesBytes?: number | undefined;
  /** Whoever takes no locks is overtaken, as it seems. */
  readonly contended: boolean;
}

/** What a front-end's process is made of, as `server/composition.ts` makes it. */
export async function startFrontEnd(parts: FrontEndParts): Promise<FrontEnd> {
  const { process, connect, root, replicationFactor, consistency } = parts;
  const { clock, random, logger, meter, name } = process;
  const identity = await openClusterIdentity({
    coordinator: parts.coordinator,
    file: `${root}/cluster-seen`,
    clock,
    random,
    logger,
  });
  const coordinator = guardCoordinator(shareReads(parts.coordinator), identity);
  const replicas = new NodeDirectory({ coordinator, connect, clock, logger, meter });
  await replicas.start();
  const lease = createProcessLease({ coordinator: parts.coordinator, clock, logger });
  const own = createLocks({ coordinator, lease, clock, random, meter, logger, holder: name });
  const locks = parts.contended ? alwaysInTheWay(own) : own;
  const damages = new KnownDamages({ coordinator, clock, logger });
  const { maxInlineUpdatesBytes } = parts;
  const around = {
    coordinator,
    lease,
    replicas,
    locks,
    clock,
    random,
    logger,
    meter,
    maxInlineUpdatesBytes,
  };
  const backend = new ReplicatedBackend({
    readConsistency: 'strong',
    reportReadsFrom: 0.02,
    ...around,
    unguarded: parts.coordinator,
    damages,
    companions: [damages],
    log: coordinatorLog(coordinator),
    pipeline: pipelineOf(process),
    git: new SimulatedGit(process),
    scratchDirectory: 'scratch',
    lockTimeoutMs,
    replicationFactor,
    consistency,
    name: 'simulated',
    local: {
      objectEngine: 'simulated',
      quarantines: () => 0,
      maintenanceQueued: () => 0,
      resolveQuarantines: () => Promise.resolve(),
      close: () => locks.close(),
    },
  });
  // As a server does: reads only, until a recovery.
  await backend.start({ frozen: identity.frozen !== undefined });
  const settings = {
    replicationFactor,
    downAfterMs: 5_000,
    repairAfterMs: 15_000,
    maxLog: 20,
    compareEveryMs: 20_000,
    maxFills: 2,
    // So little that every repository that is read is hot for a while.
    readReplicas: { max: 1, ratePerCopy: 0.02, coolDownMs: 8_000 },
  };
  const controller = new SetController({ ...around, nodeId: name, settings });
  controller.start();
  const cluster = createClusterControl({ ...around, ...settings, controller });
  const recovery = createClusterRecovery({
    backend,
    identity,
    membersBehind: () => Promise.resolve([]),
  });
  return { backend, controller, cluster, recovery };
}

/** So that all that is committed is committed under locks. */
function alwaysInTheWay(locks: Locks): Locks {
  const never: Compare = { key: 'never', target: 'version', op: '>', operand: 0 };
  return {
    acquire: (wish) => locks.acquire(wish),
    acquireGlobal: (wish) => locks.acquireGlobal(wish),
    nothingInTheWay: (id, refs) => [...locks.nothingInTheWay(id, refs), never],
    list: () => locks.list(),
    close: () => locks.close(),
  };
}

/** Hooks and rules that take time, ask the primary, and now and then refuse. */
export function pipelineOf({ random, clock }: SimulatedProcess): PushPipeline {
  const judges: PushJudges = {
    preReceive: async () => {
      if (random.chance(0.1)) await clock.sleep(random.between(1, 500));
      return random.chance(0.03) ? 'refused by pre-receive' : undefined;
    },
    update: async ({ commands, nonFastForwards }) => {
      if (random.chance(0.3)) await nonFastForwards();
      return new Map(
        commands.flatMap(({ ref }) => (random.chance(0.03) ? [[ref, 'refused by update']] : [])),
      );
    },
    talksAfterCommit: () => Promise.resolve(false),
  };
  return {
    allowance: () => Promise.resolve(undefined),
    judges: () => judges,
    postReceive: async () => {
      if (random.chance(0.1)) await clock.sleep(random.between(1, 2_000));
      if (random.chance(0.02)) throw new QuorateError('unavailable', 'the hook failed');
    },
    repositoryChanged: () => Promise.resolve(),
    repositoryGone: () => Promise.resolve(),
    repositoryRenaming: () => Promise.resolve(),
    repositoryRenamed: () => Promise.resolve(),
  };
}
