import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import type { Voter } from './records.js';

/** Finds the stores behind the voters of a configuration. */
export interface ReplicaDirectory {
  /** Id and store of this process's own voter: what a new repository is placed on. */
  place(): readonly Omit<Voter, 'joinedEpoch'>[];
  /** The replica with this store id, or undefined when it is not reachable. */
  find(storeId: string): Replica | undefined;
}

/** One store on this machine: the replica set of every repository on an embedded coordinator. */
export function singleReplica(nodeId: string, replica: Replica): ReplicaDirectory {
  return {
    place: () => [{ nodeId, storeId: replica.storeId }],
    find: (storeId) => (storeId === replica.storeId ? replica : undefined),
  };
}

/** The preferred healthy voter. `unavailable` when none answers, or when the disk is not the one that was configured. */
export function primaryOf(directory: ReplicaDirectory, voters: readonly Voter[]): Replica {
  for (const voter of voters) {
    const replica = directory.find(voter.storeId);
    if (replica !== undefined) return replica;
  }
  throw new QuorateError(
    'unavailable',
    'no storage node with this repository can be reached; its disk was replaced or is not mounted',
    { details: { voters: voters.map((voter) => voter.storeId) } },
  );
}
