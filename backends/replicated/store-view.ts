import type {
  CopyVerified,
  NodeInfo,
  PushStory,
  ReplicaInfo,
  StoreView,
} from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { VerifyReport } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import { deleted } from './basis.js';
import { type NodeRecord, understood } from './node-record.js';
import { type MarkRecord, readMarkRecords } from './node-marks.js';
import type { PushTraces } from './push-trace.js';
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  type RepositoryRecord,
  scan,
  type Voter,
} from './records.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

export interface StoreViewDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly traces: PushTraces;
  /** Has a damaged copy filled anew; absent where no other store could have it. */
  readonly reportDamage?: (repositoryId: string, storeId: string) => Promise<void>;
}

/** What administrators see of stores, copies and pushes, in a cluster and on a single server. */
export function createStoreView(dependencies: StoreViewDependencies): StoreView {
  const { coordinator, replicas, traces, reportDamage } = dependencies;
  return {
    nodes: () => listNodes(dependencies),
    known: () => replicas.known?.() ?? [],
    async replicas(repositoryId): Promise<readonly ReplicaInfo[]> {
      const { record, head } = await seen(coordinator, repositoryId);
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
    async verify(repositoryId, { signal, progress }): Promise<readonly CopyVerified[]> {
      const copies = (await seen(coordinator, repositoryId)).record.voters;
      const verified: CopyVerified[] = [];
      for (const { nodeId, storeId } of copies) {
        progress({ step: `verifying on ${nodeId}`, done: verified.length, total: copies.length });
        const replica = replicas.find(storeId);
        if (replica === undefined) {
          verified.push({ nodeId, storeId, unread: 'the storage node does not answer' });
          continue;
        }
        // What one node cannot say is no reason not to ask the others.
        const refused = (error: unknown): string => {
          if (signal.aborted || !(error instanceof QuorateError)) throw error;
          return error.message;
        };
        let report: VerifyReport;
        try {
          report = await replica.verify(repositoryId, { signal });
        } catch (error) {
          verified.push({ nodeId, storeId, unread: refused(error) });
          continue;
        }
        const damaged = report.problems.length > 0;
        const noted = damaged ? reportDamage?.(repositoryId, storeId) : undefined;
        const unreported = await noted?.then(() => undefined, refused);
        const copy = { nodeId, storeId, ...report };
        verified.push(unreported === undefined ? copy : { ...copy, unreported });
      }
      return verified;
    },
    async explain(pushId): Promise<PushStory | undefined> {
      const story = await traces.find(pushId);
      const entry = story && (await coordinator.get(keys.repo(story.repositoryId)));
      if (story === undefined || entry === undefined) return story;
      const { name, state } = decodeRepository(entry);
      return state === 'active' ? { ...story, repository: name } : story;
    },
  };
}

/**
 * To be shown, not to be decided by: plain reads, which go on while an older copy of the coordinator is refused. That is
 * when people want to know what the copies hold.
 */
async function seen(
  coordinator: Coordinator,
  id: string,
): Promise<{ readonly record: RepositoryRecord; readonly head: HeadRecord }> {
  const repository = await coordinator.get(keys.repo(id));
  const head = await coordinator.get(keys.head(id));
  const record = repository === undefined ? undefined : decodeRepository(repository);
  if (record?.state !== 'active' || head === undefined) throw deleted(id);
  return { record, head: decodeHead(head) };
}

export async function listNodes({
  coordinator,
  replicas,
}: Pick<StoreViewDependencies, 'coordinator' | 'replicas'>): Promise<readonly NodeInfo[]> {
  const marks = await readMarkRecords(coordinator);
  const alive = new Map(replicas.nodes().map((node) => [node.nodeId, node]));
  const copies = new Map<string, { count: number; storeId: string }>();
  for await (const entry of scan(coordinator, keys.repos)) {
    const record = decodeRepository(entry);
    // A tombstone waits for who has a copy, too: such a node can be given up, and has to be seen for that.
    const counted = record.state === 'active' ? 1 : 0;
    for (const { nodeId, storeId } of copiesOf(record)) {
      copies.set(nodeId, { storeId, count: (copies.get(nodeId)?.count ?? 0) + counted });
    }
  }
  // One that is not understood is of a later version, perhaps: the others are to be seen, and decided about, all the same.
  const silent = new Map<string, NodeRecord | undefined>();
  for await (const entry of scan(coordinator, keys.nodes)) {
    const nodeId = entry.key.slice(keys.nodes.length);
    if (!alive.has(nodeId)) silent.set(nodeId, understood(entry));
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
      ...troubleOf(replicas, silent, nodeId),
      alive: alive.has(nodeId),
      silent: silent.has(nodeId),
    }));
}

const unknownRecord =
  'what it says of itself is not understood here: it may run a later version; upgrade this server, or start the node with the version of the others';

/** Of a silent one: what it says of itself is not why it is silent. */
function troubleOf(
  replicas: ReplicaDirectory,
  silent: ReadonlyMap<string, NodeRecord | undefined>,
  nodeId: string,
): Pick<NodeInfo, 'problem'> | undefined {
  if (!silent.has(nodeId)) return undefined;
  const trouble = silent.get(nodeId) === undefined ? unknownRecord : replicas.troubleWith?.(nodeId);
  return trouble === undefined ? undefined : { problem: trouble };
}

function infoOf(
  nodeId: string,
  node: Omit<StorageNode, 'local'> | undefined,
  marked: MarkRecord | undefined,
  copies: { readonly count: number; readonly storeId: string } | undefined,
): Omit<NodeInfo, 'alive' | 'silent'> {
  return {
    nodeId,
    storeId: node?.storeId ?? copies?.storeId,
    mark: marked?.mark,
    markedAtMs: marked?.atMs,
    address: node?.address,
    zone: node?.zone,
    weight: node?.weight,
    capacityBytes: node?.capacityBytes,
    usedBytes: node?.usedBytes,
    problem: node?.problem,
    clockApartMs: node?.clockApartMs,
    copies: copies?.count ?? 0,
  };
}
