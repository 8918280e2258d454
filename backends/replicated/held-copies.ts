import type { Coordinator } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Replica } from '../contract/replica.js';
import { readNodeMarks } from './node-marks.js';
import { scan, type Voter } from './records.js';
import type { ReplicaDirectory } from './voters.js';

/** A store in which something of a repository lies. */
export type Holder = Pick<Voter, 'nodeId' | 'storeId'>;

/** What the stores say that they hold, whatever any record says. */
export interface HeldCopies {
  /** By repository id. */
  readonly holders: ReadonlyMap<string, readonly Holder[]>;
  /** Node ids, in order: these announce themselves, and do not say what they hold. */
  readonly unheard: readonly string[];
}

export interface HeldCopiesDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly clock: Clock;
}

/** Nodes that are asked at the same time: some hundred are asked within seconds, and few of their answers wait here. */
const maxAsked = 16;
/** For one answer. A node that is gone is told by its silence, long before; a disk that hangs is not. */
const answerTimeoutMs = 30_000;
/** Before the first. */
const noId = '0'.repeat(32);

/** Asks every storage node that lives, each of them once for each 10,000 of its copies or so. */
export async function listCopies(
  { coordinator, replicas, clock }: HeldCopiesDependencies,
  signal: AbortSignal,
): Promise<HeldCopies> {
  const holders = new Map<string, Holder[]>();
  const marks = await readNodeMarks(coordinator);
  const unheard = new Set<string>();
  for await (const { key } of scan(coordinator, keys.nodes, { keysOnly: true })) {
    const nodeId = key.slice(keys.nodes.length);
    if (marks.get(nodeId) !== 'removed') unheard.add(nodeId);
  }
  const nodes = replicas.nodes();
  await eachOf(nodes, maxAsked, async ({ nodeId, storeId }) => {
    refuseCancelled(signal);
    unheard.delete(nodeId);
    const replica = replicas.find(storeId);
    try {
      if (replica === undefined) throw new QuorateError('unavailable', 'it went away');
      for (const id of await idsIn(replica, clock)) {
        const known = holders.get(id);
        if (known === undefined) holders.set(id, [{ nodeId, storeId }]);
        else known.push({ nodeId, storeId });
      }
    } catch {
      unheard.add(nodeId);
    }
  });
  return { holders, unheard: [...unheard].sort((a, b) => a.localeCompare(b)) };
}

async function idsIn(replica: Replica, clock: Clock): Promise<readonly string[]> {
  const all: string[] = [];
  for (let after = noId; ;) {
    const { ids, more } = await withinTime(clock, (late) => inTime(replica.copies(after), late));
    all.push(...ids);
    const last = ids.at(-1);
    if (!more) return all;
    if (last === undefined || last <= after) {
      throw new QuorateError('internal', 'a storage node tells the same copies again');
    }
    after = last;
  }
}

/** What is asked has to be answered before `late` resolves; `unavailable` otherwise. */
export async function inTime<T>(answer: Promise<T>, late: Promise<void>): Promise<T> {
  const first = await Promise.race([answer.then((value) => ({ value })), late]);
  if (first !== undefined) return first.value;
  throw new QuorateError('unavailable', 'a storage node took too long to answer');
}

/** Asks with a limit to the time of each answer. */
export async function withinTime<T>(
  clock: Clock,
  asking: (late: Promise<void>) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  try {
    return await asking(clock.sleep(answerTimeoutMs, over.signal));
  } finally {
    over.abort();
  }
}

/** Works on some at a time; no more are begun once one has failed. */
export async function eachOf<T>(
  items: Iterable<T> | AsyncIterable<T>,
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = (async function* all() {
    yield* items;
  })();
  const one = async (): Promise<void> => {
    for (;;) {
      const next = await iterator.next();
      if (next.done === true) return;
      try {
        await work(next.value);
      } catch (error) {
        await iterator.return(undefined);
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: atOnce }, one));
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
