import type {
  ClusterControl,
  CopyVerified,
  NodeInfo,
  PushStory,
  ReplicaInfo,
} from '../contract/cluster.js';
import type { Locks } from '../coordination/locks.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { deleted } from './commit.js';
import { reportDamage } from './damage.js';
import { countLagging } from './lagging.js';
import { readRepairing } from './leadership.js';
import { decodeNode, type NodeRecord } from './node-record.js';
import { markNode, type NodeMark, readNodeMarks } from './node-marks.js';
import type { PushTraces } from './push-trace.js';
import { copiesOf, decodeRepository, encodeRepository, scan, type Voter } from './records.js';
import { recoverSet } from './set-recovery.js';
import type { SetController } from './set-controller.js';
import { readGround } from './set-view.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

export interface ClusterControlDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly controller: Pick<SetController, 'awayMs'>;
  readonly traces: PushTraces;
  readonly replicationFactor: number;
  readonly repairAfterMs: number;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A lost compare-and-swap means that somebody else's went through; this many in a row do not happen by chance. */
const maxRaces = 30;

/** What administrators see of the cluster and decide about it. */
export function createClusterControl(dependencies: ClusterControlDependencies): ClusterControl {
  const { coordinator, replicas, controller, traces } = dependencies;
  return {
    nodes: () => listNodes(dependencies),
    async mark(nodeId, mark) {
      const known = (await listNodes(dependencies)).some((node) => node.nodeId === nodeId);
      if (!known) throw new QuorateError('not-found', `no storage node is named ${nodeId}`);
      await markNode(coordinator, nodeId, mark);
    },
    async replicas(repositoryId): Promise<readonly ReplicaInfo[]> {
      const ground = await readGround(coordinator, repositoryId);
      if (ground === undefined) throw deleted(repositoryId);
      const { record, head } = ground;
      const info = async (voter: Voter, role: ReplicaInfo['role']): Promise<ReplicaInfo> => {
        const { nodeId, storeId } = voter;
        const replica = replicas.find(storeId);
        const state = await replica?.state(repositoryId).catch(() => undefined);
        const generation = state?.generation;
        return {
          nodeId,
          storeId,
          role,
          declared: voter.state,
          alive: replica !== undefined,
          generation,
          lag: generation === undefined ? undefined : Math.max(0, head.generation - generation),
          sound: generation === head.generation ? state?.digest === head.digest : undefined,
          frozen: state?.frozen,
        };
      };
      return Promise.all([
        ...record.voters.map((voter) => info(voter, 'voter')),
        ...record.learners.map((learner) => info(learner, 'learner')),
        ...(record.readers ?? []).map((reader) => info(reader, 'reader')),
      ]);
    },
    async move(repositoryId, nodeIds) {
      await refuseBadTarget(dependencies, nodeIds);
      await setTarget(coordinator, repositoryId, nodeIds);
    },
    async verify(repositoryId, { signal, progress }): Promise<readonly CopyVerified[]> {
      const ground = await readGround(coordinator, repositoryId);
      if (ground === undefined) throw deleted(repositoryId);
      const copies = ground.record.voters;
      const verified: CopyVerified[] = [];
      for (const { nodeId, storeId } of copies) {
        progress({ step: `verifying on ${nodeId}`, done: verified.length, total: copies.length });
        const replica = replicas.find(storeId);
        if (replica === undefined) {
          verified.push({ nodeId, storeId, unread: 'the storage node does not answer' });
          continue;
        }
        try {
          const report = await replica.verify(repositoryId, { signal });
          verified.push({ nodeId, storeId, ...report });
          if (report.problems.length > 0) await reportDamage(coordinator, repositoryId, storeId);
        } catch (error) {
          // What one node cannot say is no reason not to ask the others.
          if (signal.aborted || !(error instanceof QuorateError)) throw error;
          verified.push({ nodeId, storeId, unread: error.message });
        }
      }
      return verified;
    },
    recover: (repositoryId, recovery) =>
      recoverSet(
        { ...dependencies, awayMs: (storeId) => controller.awayMs(storeId) },
        repositoryId,
        recovery,
      ),
    async explain(pushId): Promise<PushStory | undefined> {
      const story = await traces.find(pushId);
      const entry = story && (await coordinator.get(keys.repo(story.repositoryId)));
      if (story === undefined || entry === undefined) return story;
      const { name, state } = decodeRepository(entry);
      return state === 'active' ? { ...story, repository: name } : story;
    },
    repairing: () => readRepairing(coordinator),
    lagging: () => countLagging(dependencies),
  };
}

async function listNodes({
  coordinator,
  replicas,
}: ClusterControlDependencies): Promise<readonly NodeInfo[]> {
  const marks = await readNodeMarks(coordinator);
  const alive = new Map(replicas.nodes().map((node) => [node.nodeId, node]));
  const copies = new Map<string, { count: number; storeId: string }>();
  for await (const entry of scan(coordinator, keys.repos)) {
    const record = decodeRepository(entry);
    if (record.state !== 'active') continue;
    for (const { nodeId, storeId } of copiesOf(record)) {
      copies.set(nodeId, { storeId, count: (copies.get(nodeId)?.count ?? 0) + 1 });
    }
  }
  const silent = new Map<string, NodeRecord>();
  for await (const entry of scan(coordinator, keys.nodes)) {
    const nodeId = entry.key.slice(keys.nodes.length);
    if (!alive.has(nodeId)) silent.set(nodeId, decodeNode(entry));
  }
  const ids = new Set([...alive.keys(), ...silent.keys(), ...marks.keys(), ...copies.keys()]);
  return [...ids]
    .sort((a, b) => a.localeCompare(b))
    .map((nodeId) => ({
      ...infoOf(
        nodeId,
        alive.get(nodeId) ?? silent.get(nodeId),
        marks.get(nodeId),
        copies.get(nodeId),
      ),
      alive: alive.has(nodeId),
      silent: silent.has(nodeId),
    }));
}

function infoOf(
  nodeId: string,
  node: Omit<StorageNode, 'local'> | undefined,
  mark: NodeMark | undefined,
  copies: { readonly count: number; readonly storeId: string } | undefined,
): Omit<NodeInfo, 'alive' | 'silent'> {
  return {
    nodeId,
    storeId: node?.storeId ?? copies?.storeId,
    mark,
    address: node?.address,
    zone: node?.zone,
    weight: node?.weight,
    capacityBytes: node?.capacityBytes,
    usedBytes: node?.usedBytes,
    copies: copies?.count ?? 0,
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
