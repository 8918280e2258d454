import type { Coordinator } from '../contract/coordinator.js';
import { type NodeMark, readNodeMarks } from './node-marks.js';
import type { Voter } from './records.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

/**
 * A positive word that a store is gone for good: its node was removed by somebody, or announces itself with another
 * store. A store that answers, under whatever name, is not gone.
 */
export function goneForGood(
  { nodeId, storeId }: Pick<Voter, 'nodeId' | 'storeId'>,
  nodes: readonly Pick<StorageNode, 'nodeId' | 'storeId'>[],
  marks: ReadonlyMap<string, NodeMark>,
): 'removed' | 'replaced' | undefined {
  if (nodes.some((node) => node.storeId === storeId)) return undefined;
  if (nodes.some((node) => node.nodeId === nodeId)) return 'replaced';
  return marks.get(nodeId) === 'removed' ? 'removed' : undefined;
}

/** All that `goneForGood` goes by, in one text, so that a change of it shows. */
export async function storesAsKnown({
  coordinator,
  replicas,
}: {
  readonly coordinator: Coordinator;
  readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
}): Promise<string> {
  const marks = await readNodeMarks(coordinator);
  const removed = [...marks].flatMap(([nodeId, mark]) => (mark === 'removed' ? [nodeId] : []));
  const there = replicas.nodes().map(({ nodeId, storeId }) => `${nodeId} ${storeId}`);
  return JSON.stringify([there.toSorted(), removed.toSorted()]);
}
