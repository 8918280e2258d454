import type { MissedMajorities } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { suffices } from './quorum.js';
import { decodeRepository, type RepositoryRecord, scan } from './records.js';
import type { ReplicaDirectory } from './voters.js';

/** Whether the stores of too few voters are `alive` for a push at `quorum`. Of a repository that is not active: false. */
export function lacksMajority(
  { state, voters }: Pick<RepositoryRecord, 'state' | 'voters'>,
  alive: ReadonlySet<string>,
): boolean {
  return state === 'active' && !suffices('quorum', voters, alive);
}

/** By the records of the repositories and the nodes that this process reaches: no store is asked. */
export async function findWithoutMajority({
  coordinator,
  replicas,
}: {
  readonly coordinator: Coordinator;
  readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
}): Promise<MissedMajorities> {
  const alive = new Set(replicas.nodes().map(({ storeId }) => storeId));
  const missed = new Set<string>();
  let repositories = 0;
  for await (const entry of scan(coordinator, keys.repos)) {
    const record = decodeRepository(entry);
    if (!lacksMajority(record, alive)) continue;
    repositories++;
    for (const { nodeId, storeId } of record.voters) if (!alive.has(storeId)) missed.add(nodeId);
  }
  return { repositories, nodes: [...missed].sort((a, b) => a.localeCompare(b)) };
}
