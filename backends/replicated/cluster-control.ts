import type { ClusterControl, FillGivenUp, NodeInfo } from '../contract/cluster.js';
import type { Locks } from '../coordination/locks.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { deleted } from './basis.js';
import { countLagging } from './lagging.js';
import { readRepairs } from './leadership.js';
import { markNode } from './node-marks.js';
import { decodeRepository, encodeRepository, repositoryName } from './records.js';
import { readDifferingSettings } from './shared-settings.js';
import { recoverSet } from './set-recovery.js';
import type { SetController } from './set-controller.js';
import { listNodes } from './store-view.js';
import type { InlineLimit } from './stored-updates.js';
import type { ReplicaDirectory } from './voters.js';
import { findWithoutMajority } from './without-majority.js';

export interface ClusterControlDependencies extends InlineLimit {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory & { readonly stranger?: string | undefined };
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
  const { coordinator, controller, replicas, replicationFactor } = dependencies;
  return {
    replicationFactor,
    get stranger() {
      return replicas.stranger;
    },
    async mark(nodeId, mark) {
      const node = await findNode(dependencies, nodeId);
      if (mark === 'draining' && node.mark === 'removed') {
        throw new QuorateError(
          'failed-precondition',
          `the storage node ${nodeId} was removed: quorate node undrain ${nodeId} takes it back first`,
        );
      }
      await markNode(coordinator, nodeId, mark, dependencies.clock.nowMs());
    },
    async remove(nodeId, { force }) {
      const node = await findNode(dependencies, nodeId);
      if (node.mark === 'removed') return;
      if (!force) refuseWhileNeeded(node);
      await markNode(coordinator, nodeId, 'removed', dependencies.clock.nowMs());
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
    repairing: async () => (await readRepairs(coordinator)).repairing,
    differingSettings: () => readDifferingSettings(coordinator),
    fillsGivenUp: () => fillsGivenUp(dependencies),
    copiesBehind: async () => (await readRepairs(coordinator)).behind,
    lagging: () => countLagging(dependencies),
    withoutMajority: () => findWithoutMajority(dependencies),
  };
}

async function fillsGivenUp(
  dependencies: Pick<ClusterControlDependencies, 'coordinator' | 'replicas'>,
): Promise<readonly FillGivenUp[]> {
  const { coordinator, replicas } = dependencies;
  const { givenUp } = await readRepairs(coordinator);
  const nodes = new Map(replicas.nodes().map(({ storeId, nodeId }) => [storeId, nodeId]));
  return Promise.all(
    givenUp.map(async ({ repositoryId, storeId, times, reason }) => ({
      repository: (await repositoryName(coordinator, repositoryId)) ?? repositoryId,
      nodeId: nodes.get(storeId) ?? storeId,
      times,
      reason,
    })),
  );
}

async function findNode(
  dependencies: ClusterControlDependencies,
  nodeId: string,
): Promise<NodeInfo> {
  const node = (await listNodes(dependencies)).find((one) => one.nodeId === nodeId);
  if (node === undefined) {
    throw new QuorateError(
      'not-found',
      `no storage node is named ${nodeId}; quorate node list --all shows all`,
    );
  }
  return node;
}

/** A typing error must not cost a node that serves, nor copies that could be moved while it does. */
function refuseWhileNeeded({ nodeId, alive, silent, mark, copies }: NodeInfo): void {
  if (!alive && !silent) return;
  if (mark === 'draining' && copies === 0) return;
  const state = alive ? 'is alive' : 'announces itself, though it does not answer this server,';
  const count = copies === 1 ? '1 copy' : `${copies} copies`;
  const has =
    mark === 'draining'
      ? `and still has ${count}: wait until quorate node list shows none`
      : `and ${copies > 0 ? `has ${count}` : 'takes repositories'}: quorate node drain ${nodeId} first, and wait until quorate node list shows no copies`;
  throw new QuorateError(
    'failed-precondition',
    `the storage node ${nodeId} ${state} ${has}; or remove it as it is (--force), and what it has is made anew from other copies`,
    { details: { nodeId, alive, silent, mark: mark ?? null, copies } },
  );
}

async function refuseBadTarget(
  dependencies: ClusterControlDependencies,
  nodeIds: readonly string[] | undefined,
): Promise<void> {
  if (nodeIds === undefined) return;
  const { replicationFactor } = dependencies;
  const nodes = await listNodes(dependencies);
  const fit = nodes.filter(({ alive, mark }) => alive && mark === undefined);
  const refuse = (why: string): never => {
    const names = fit.map(({ nodeId }) => nodeId).join(', ') || 'none';
    throw new QuorateError('invalid-argument', `${why}; alive, and taking repositories: ${names}`);
  };
  if (new Set(nodeIds).size !== replicationFactor || nodeIds.length !== replicationFactor) {
    refuse(
      `a repository is on ${replicationFactor} storage nodes (replication.factor): name as many, each once`,
    );
  }
  for (const nodeId of nodeIds) {
    const node = nodes.find((one) => one.nodeId === nodeId);
    if (node === undefined) refuse(`no storage node is named ${nodeId}`);
    else if (node.mark !== undefined) refuse(`the storage node ${nodeId} is ${node.mark}`);
    else if (!node.alive)
      refuse(`the storage node ${nodeId} is ${node.silent ? 'silent' : 'away'}`);
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
      binding: true,
      compares: [{ key: kv.key, target: 'modRevision', op: '=', operand: kv.modRevision }],
      success: [{ type: 'put', key: kv.key, value: encodeRepository(next) }],
      failure: [],
    });
    if (succeeded) return;
  }
  throw new QuorateError('aborted', 'the repository is being changed by others; try again');
}
