import type { Coordinator } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { NodeHeard } from '../contract/recovery.js';
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
  /** All that announce themselves, in order of their ids. */
  readonly nodes: readonly NodeHeard[];
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
  questions = new Questions(clock),
): Promise<HeldCopies> {
  const holders = new Map<string, Holder[]>();
  const marks = await readNodeMarks(coordinator);
  const nodes = new Map<string, NodeHeard>();
  const missed = (nodeId: string, trouble: string): void => {
    nodes.set(nodeId, { nodeId, copies: undefined, trouble });
  };
  for await (const { key } of scan(coordinator, keys.nodes, { keysOnly: true })) {
    const nodeId = key.slice(keys.nodes.length);
    if (marks.get(nodeId) !== 'removed') missed(nodeId, 'it cannot be reached');
  }
  await eachOf(replicas.nodes(), maxAsked, async ({ nodeId, storeId }) => {
    refuseCancelled(signal);
    try {
      const replica = replicas.find(storeId);
      if (replica === undefined) throw new QuorateError('unavailable', 'it went away');
      const ids = await idsIn(replica, questions);
      for (const id of ids) {
        const known = holders.get(id);
        if (known === undefined) holders.set(id, [{ nodeId, storeId }]);
        else known.push({ nodeId, storeId });
      }
      nodes.set(nodeId, { nodeId, copies: ids.length, trouble: undefined });
    } catch (error) {
      missed(nodeId, asQuorateError(error).message);
    }
  });
  const inOrder = [...nodes.values()].sort((a, b) => a.nodeId.localeCompare(b.nodeId));
  return { holders, nodes: inOrder };
}

async function idsIn(replica: Replica, questions: Questions): Promise<readonly string[]> {
  const all: string[] = [];
  for (let after = noId; ;) {
    const { ids, more } = await questions.ask(replica.storeId, () => replica.copies(after));
    all.push(...ids);
    const last = ids.at(-1);
    if (!more) return all;
    if (last === undefined || last <= after) {
      throw new QuorateError('internal', 'it tells the same copies again');
    }
    after = last;
  }
}

/** So often a store says nothing to anybody while an answer is waited for: its disk may hang, and it may have thousands. */
const maxSilences = 2;
/** So many answers of it are waited for in vain. A few large copies may take their time; a run takes minutes, not hours. */
const maxLate = 32;

/** Of one store. */
interface Patience {
  answers: number;
  /** Since the last answer. */
  silences: number;
  late: number;
}

/**
 * What is asked of stores in one run, each answer with a limit to its time; who is late for too many, or says nothing at
 * all, is asked no more.
 */
export class Questions {
  readonly #clock: Clock;
  readonly #patience = new Map<string, Patience>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `unavailable` when there is no answer in time, or none is waited for any more. */
  async ask<T>(storeId: string, question: () => Promise<T>): Promise<T> {
    const patience = this.#patience.get(storeId) ?? { answers: 0, silences: 0, late: 0 };
    this.#patience.set(storeId, patience);
    if (patience.silences >= maxSilences || patience.late >= maxLate) {
      throw new QuorateError('unavailable', 'it took too long to answer, and is asked no more');
    }
    const { answers } = patience;
    const over = new AbortController();
    const late = this.#clock.sleep(answerTimeoutMs, over.signal);
    try {
      const first = await Promise.race([question().then((value) => ({ value })), late]);
      if (first !== undefined) {
        patience.answers += 1;
        patience.silences = 0;
        return first.value;
      }
    } finally {
      over.abort();
    }
    patience.late += 1;
    if (patience.answers === answers) patience.silences += 1;
    throw new QuorateError('unavailable', 'it took too long to answer');
  }
}

/** What is asked has to be answered before `late` resolves; `unavailable` otherwise. */
export async function inTime<T>(answer: Promise<T>, late: Promise<void>): Promise<T> {
  const first = await Promise.race([answer.then((value) => ({ value })), late]);
  if (first !== undefined) return first.value;
  throw new QuorateError('unavailable', 'it took too long to answer');
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
