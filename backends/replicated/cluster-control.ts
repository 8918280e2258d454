import type { ClusterControl } from '../contract/cluster.js';
import type { Locks } from '../coordination/locks.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { deleted } from './basis.js';
import { countLagging } from './lagging.js';
import { readRepairing } from './leadership.js';
import { markNode } from './node-marks.js';
import { decodeRepository, encodeRepository } from './records.js';
import { recoverSet } from './set-recovery.js';
import type { SetController } from './set-controller.js';
import { listNodes } from './store-view.js';
import type { ReplicaDirectory } from './voters.js';

export interface ClusterControlDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly controller: Pick<SetController, 'awayMs'>;
  readonly replicationFactor: number;
  readonly repairAfterMs: number;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A lost compare-and-swap means that somebody else's went through; this many in a row do not happen by chance. */
const maxRaces = 30;

/** What administrators decide about the cluster. */
export function createClusterControl(dependencies: ClusterControlDependencies): ClusterControl {
  const { coordinator, controller, replicationFactor } = dependencies;
  return {
    replicationFactor,
    async mark(nodeId, mark) {
      const known = (await listNodes(dependencies)).some((node) => node.nodeId === nodeId);
      if (!known) throw new QuorateError('not-found', `no storage node is named ${nodeId}`);
      await markNode(coordinator, nodeId, mark);
    },
    async move(repositoryId, nodeIds) {
      await refuseBadTarget(dependencies, nodeIds);
      await setTarget(coordinator, repositoryId, nodeIds);
    },
    recover: (repositoryId, recovery) =>
      recoverSet(
        { ...dependencies, awayMs: (storeId) => controller.awayMs(storeId) },
        repositoryId,
        recovery,
      ),
    repairing: () => readRepairing(coordinator),
    lagging: () => countLagging(dependencies),
  };
}

async function refuseBadTarget(
  dependencies: ClusterControlDependencies,
  nodeIds: readonly string[] | undefined,
): Promise<void> {
  if (nodeIds === undefined) return;
  const { replicationFactor } = dependencies;
  if (new Set(nodeIds).size !== replicationFactor || nodeIds.length !== replicationFactor) {
    throw new QuorateError(
      'invalid-argument',
      `a repository is on ${replicationFactor} storage nodes (replication.factor): name as many, each once`,
    );
  }
  const nodes = await listNodes(dependencies);
  for (const nodeId of nodeIds) {
    const node = nodes.find((one) => one.nodeId === nodeId);
    if (node?.alive !== true) {
      throw new QuorateError('invalid-argument', `the storage node ${nodeId} is not alive`);
    }
    if (node.mark !== undefined) {
      throw new QuorateError('invalid-argument', `the storage node ${nodeId} is ${node.mark}`);
    }
  }
}

async function setTarget(
  coordinator: Coordinator,
  id: string,
  nodeIds: readonly string[] | undefined,
): Promise<void> {
  for (let race = 0; race < maxRaces; race++) {
    const kv = await coordinator.get(keys.repo(id));
    const record = kv === undefined ? undefined : decodeRepository(kv);
    if (kv === undefined || record?.state !== 'active') throw deleted(id);
    const { target: _before, ...plain } = record;
    const next = {
      ...plain,
      ...(nodeIds === undefined ? {} : { target: [...nodeIds] }),
      epoch: record.epoch + 1,
    };
    const { succeeded } = await coordinator.transaction({
      compares: [{ key: kv.key, target: 'modRevision', op: '=', operand: kv.modRevision }],
      success: [{ type: 'put', key: kv.key, value: encodeRepository(next) }],
      failure: [],
    });
    if (succeeded) return;
  }
  throw new QuorateError('aborted', 'the repository is being changed by others; try again');
}
