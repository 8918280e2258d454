import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import type { Voter } from './records.js';

/** A storage node that is alive: its record is in the coordinator under its lease. */
export interface StorageNode {
  readonly nodeId: string;
  readonly storeId: string;
  /** Where its internal API is, `host:port`; empty for the store of this very process. */
  readonly address: string;
  readonly zone: string;
  /** Share of the repositories that it is to get, against other nodes; at least 1. */
  readonly weight: number;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  /** Gets nothing new, and what it has moves away. */
  readonly draining: boolean;
  /** In this process. */
  readonly local: boolean;
}

/** Finds the stores behind the voters of a configuration. */
export interface ReplicaDirectory {
  nodes(): readonly StorageNode[];
  /** The replica with this store id, or undefined when it is not alive. */
  find(storeId: string): Replica | undefined;
  /** Requests that this process has running there: less is better. */
  load(storeId: string): number;
  /** Stores for a new repository, at most `count`, spread as placement wants it. */
  place(repositoryId: string, count: number): readonly Omit<Voter, 'joinedEpoch'>[];
}

/** A voter whose store can be reached. */
export interface Member {
  readonly storeId: string;
  readonly replica: Replica;
}

/** One store on this machine: the replica set of every repository on an embedded coordinator. */
export function singleReplica(nodeId: string, replica: Replica): ReplicaDirectory {
  const { storeId } = replica;
  const node: StorageNode = {
    nodeId,
    storeId,
    address: '',
    zone: '',
    weight: 1,
    capacityBytes: 0,
    usedBytes: 0,
    draining: false,
    local: true,
  };
  return {
    nodes: () => [node],
    find: (wanted) => (wanted === storeId ? replica : undefined),
    load: () => 0,
    place: () => [{ nodeId, storeId }],
  };
}

/**
 * The voters that can be asked now, best first: the store of this process, then the one with the fewest requests from
 * here. Without those that a change of configuration declared stale.
 */
export function reachable(directory: ReplicaDirectory, voters: readonly Voter[]): Member[] {
  const members = voters.flatMap(({ storeId, state }): Member[] => {
    const replica = state === 'stale' ? undefined : directory.find(storeId);
    return replica === undefined ? [] : [{ storeId, replica }];
  });
  if (members.length < 2) return members;
  const here = new Set(directory.nodes().flatMap((node) => (node.local ? [node.storeId] : [])));
  const cost = ({ storeId }: Member): number => (here.has(storeId) ? -1 : directory.load(storeId));
  return members.sort((a, b) => cost(a) - cost(b));
}

/** The preferred healthy voter. `unavailable` when none answers, or when the disk is not the one that was configured. */
export function primaryOf(directory: ReplicaDirectory, voters: readonly Voter[]): Replica {
  const [first] = reachable(directory, voters);
  if (first !== undefined) return first.replica;
  throw nobodyReachable(voters);
}

export function nobodyReachable(voters: readonly Voter[]): QuorateError {
  return new QuorateError(
    'unavailable',
    'no storage node with this repository can be reached; its disk was replaced or is not mounted',
    { details: { voters: voters.map((voter) => voter.storeId) } },
  );
}
