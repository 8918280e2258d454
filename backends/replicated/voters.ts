import type { KnownNode } from '../contract/cluster.js';
import type { Clock } from '../contract/environment.js';
import { type ErrorCode, noRetry, QuorateError, refuseCancelled } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import type { Voter } from './records.js';
import { hangingStores } from './stuck.js';

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
  /** Why it takes nothing new although it runs, and the remedy; absent while all is well. */
  readonly problem?: string | undefined;
  /** Its disk answers nothing: others are asked first. */
  readonly hangs?: boolean | undefined;
  /** By how much its clock on the wall is ahead of ours, in ms; absent while they are together. */
  readonly clockApartMs?: number;
  /** In this process. */
  readonly local: boolean;
}

/** Finds the stores behind the voters of a configuration. */
export interface ReplicaDirectory {
  nodes(): readonly StorageNode[];
  /** All that announced themselves, also those that do not answer; by their ids. Absent: there is one store only. */
  known?(): readonly KnownNode[];
  /** Why a node that announces itself does not answer, where its credentials or ours are the reason. */
  troubleWith?(nodeId: string): string | undefined;
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

/** What a store in trouble says, where another may do better. */
export const storeTroubles: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'unavailable',
  'storage-failure',
  'data-corrupt',
  'not-found',
  'deadline-exceeded',
]);

/** One store on this machine: the replica set of every repository on an embedded coordinator. */
export function singleReplica(
  nodeId: string,
  replica: Replica,
  hangs: () => boolean = () => false,
): ReplicaDirectory {
  const { storeId } = replica;
  const node = (): StorageNode => ({
    nodeId,
    storeId,
    address: '',
    zone: '',
    weight: 1,
    capacityBytes: 0,
    usedBytes: 0,
    draining: false,
    hangs: hangs(),
    local: true,
  });
  return {
    nodes: () => [node()],
    find: (wanted) => (wanted === storeId ? replica : undefined),
    load: () => 0,
    place: () => [{ nodeId, storeId }],
  };
}

/**
 * The voters that can be asked now, best first: the store of this process, then the one with the fewest requests from
 * here; last those whose disk hangs, by their own word. Without those that a change of configuration declared stale.
 */
export function reachable(directory: ReplicaDirectory, voters: readonly Voter[]): Member[] {
  const members = voters.flatMap(({ storeId, state }): Member[] => {
    const replica = state === 'stale' ? undefined : directory.find(storeId);
    return replica === undefined ? [] : [{ storeId, replica }];
  });
  if (members.length < 2) return members;
  const nodes = directory.nodes();
  const here = new Set(nodes.flatMap((node) => (node.local ? [node.storeId] : [])));
  const hanging = hangingStores({ nodes: () => nodes });
  const cost = ({ storeId }: Member): number => {
    if (hanging.has(storeId)) return Number.MAX_SAFE_INTEGER;
    return here.has(storeId) ? -1 : directory.load(storeId);
  };
  return members.sort((a, b) => cost(a) - cost(b));
}

/** A node that was paused, restarted or cut off for a moment is seen again within this time. */
const patienceMs = 3_000;
export const lookEveryMs = 100;

/**
 * As `reachable`, with a bounded wait for more of them while they are not `enough`: what comes when the nodes are just
 * coming back is served late and not refused. The caller judges whether those returned are enough after all.
 */
export async function gathered(
  directory: ReplicaDirectory,
  voters: readonly Voter[],
  {
    enough,
    clock,
    signal,
  }: {
    readonly enough: (members: readonly Member[]) => boolean;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  },
): Promise<Member[]> {
  const members = reachable(directory, voters);
  if (enough(members) || !voters.some((voter) => mayComeBack(directory, voter))) return members;
  return lookAgain(() => reachable(directory, voters), { enough, clock, signal });
}

type Placed = ReturnType<ReplicaDirectory['place']>;

/** Stores for a new repository, with the same wait while there are fewer than `least`: the caller judges as well. */
export async function placed(
  directory: ReplicaDirectory,
  repositoryId: string,
  {
    count,
    least,
    clock,
  }: { readonly count: number; readonly least: number; readonly clock: Clock },
): Promise<Placed> {
  const look = (): Placed => directory.place(repositoryId, count);
  const enough = (found: Placed): boolean => found.length >= least;
  const now = look();
  return enough(now) ? now : lookAgain(look, { enough, clock });
}

async function lookAgain<T>(
  look: () => T,
  {
    enough,
    clock,
    signal,
  }: {
    readonly enough: (found: T) => boolean;
    readonly clock: Clock;
    readonly signal?: AbortSignal;
  },
): Promise<T> {
  const untilMs = clock.monotonicMs() + patienceMs;
  for (;;) {
    await clock.sleep(lookEveryMs, signal);
    if (signal !== undefined) refuseCancelled(signal);
    const found = look();
    if (enough(found) || clock.monotonicMs() >= untilMs) return found;
  }
}

/** Does not answer now, and its node has not come back with another disk. */
function mayComeBack(directory: ReplicaDirectory, { nodeId, storeId, state }: Voter): boolean {
  if (state === 'stale' || directory.find(storeId) !== undefined) return false;
  return !directory.nodes().some((node) => node.nodeId === nodeId);
}

/** The preferred healthy voter. `unavailable` when none answers, or when the disk is not the one that was configured. */
export function primaryOf(directory: ReplicaDirectory, voters: readonly Voter[]): Replica {
  const [first] = reachable(directory, voters);
  if (first !== undefined) return first.replica;
  throw nobodyReachable(directory, voters);
}

export function nobodyReachable(
  directory: ReplicaDirectory,
  voters: readonly Voter[],
): QuorateError {
  const silent = voters.filter(({ storeId }) => directory.find(storeId) === undefined);
  const isReplaced = silent.some(({ nodeId }) =>
    directory.nodes().some((node) => node.nodeId === nodeId),
  );
  return new QuorateError(
    'unavailable',
    isReplaced
      ? 'no storage node with this repository answers: a disk was replaced or is not mounted'
      : 'no storage node with this repository answers; try again, and see quorate node list if it stays so',
    {
      details: {
        voters: voters.map((voter) => voter.storeId),
        ...(isReplaced ? noRetry : {}),
      },
    },
  );
}
