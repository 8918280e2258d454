import type { Coordinator } from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import type { PushPipeline } from '../../contract/pipeline.js';
import { createLocks, type Locks } from '../../coordination/locks.js';
import { coordinatorLog } from '../../replicated/coordinator-log.js';
import type { Consistency } from '../../replicated/quorum.js';
import { ReplicatedBackend } from '../../replicated/replicated-backend.js';
import type { ReplicaDirectory } from '../../replicated/voters.js';
import { SimulatedGit } from './simulated-git.js';
import type { SimulatedProcess } from './simulated-process.js';

/** Longer than anybody may have to wait for a lock once all is well, so that a wait for nothing shows. */
const lockTimeoutMs = 90_000;

export interface FrontEnd {
  readonly backend: ReplicatedBackend;
  readonly locks: Locks;
}

/** What a front-end's process is made of, as `server/composition.ts` makes it. */
export async function startFrontEnd(options: {
  readonly process: SimulatedProcess;
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly replicationFactor: number;
  readonly consistency: Consistency;
}): Promise<FrontEnd> {
  const { process, coordinator, replicas } = options;
  const { clock, random, logger, meter, name } = process;
  const locks = createLocks({ coordinator, clock, random, meter, logger, holder: name });
  const backend = new ReplicatedBackend({
    readConsistency: 'strong',
    coordinator,
    locks,
    log: coordinatorLog(coordinator),
    replicas,
    pipeline: pipelineOf(process),
    git: new SimulatedGit(process),
    clock,
    random,
    logger,
    meter,
    scratchDirectory: 'scratch',
    lockTimeoutMs,
    replicationFactor: options.replicationFactor,
    consistency: options.consistency,
    name: 'simulated',
    local: {
      objectEngine: 'simulated',
      quarantines: () => 0,
      maintenanceQueued: () => 0,
      resolveQuarantines: () => Promise.resolve(),
      close: () => locks.close(),
    },
  });
  await backend.start();
  return { backend, locks };
}

/** Hooks that take time, and now and then refuse. */
function pipelineOf({ random, clock }: SimulatedProcess): PushPipeline {
  return {
    allowance: () => Promise.resolve(undefined),
    preReceive: async () => {
      if (random.chance(0.1)) await clock.sleep(random.between(1, 500));
      return random.chance(0.03) ? 'refused by pre-receive' : undefined;
    },
    update: async ({ commands }) =>
      new Map(
        commands.flatMap(({ ref }) => (random.chance(0.03) ? [[ref, 'refused by update']] : [])),
      ),
    talksAfterCommit: () => Promise.resolve(false),
    postReceive: async () => {
      if (random.chance(0.1)) await clock.sleep(random.between(1, 2_000));
      if (random.chance(0.02)) throw new QuorateError('unavailable', 'the hook failed');
    },
    repositoryChanged: () => Promise.resolve(),
  };
}
