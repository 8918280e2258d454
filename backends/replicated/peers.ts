import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { Clock } from '../contract/environment.js';
import type { PeerSource, ReplicaExport } from '../contract/replica.js';
import { deleted } from './basis.js';
import { storeTroubles } from './commit.js';
import { damagesOf, reportsIn } from './damage.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { decodeRepository } from './records.js';
import { nobodyReachable, reachable, type ReplicaDirectory } from './voters.js';

/**
 * The other voters of a repository, as where one of its stores gets what it lacks: the first that can send it, and
 * those in which damage was found last.
 */
export function peerSourceOf(
  {
    coordinator,
    replicas,
    clock,
  }: {
    readonly coordinator: Coordinator;
    readonly replicas: ReplicaDirectory;
    readonly clock: Pick<Clock, 'sleep'>;
  },
  own: { readonly id: string; readonly storeId: string },
): PeerSource {
  return async (have, atLeast, signal) => {
    const { results } = await coordinator.transaction({
      compares: [],
      success: [{ type: 'get', key: keys.repo(own.id) }, damagesOf(own.id)],
      failure: [],
    });
    const [[kv] = [], damages = []] = results.map((result) =>
      result.type === 'get' ? result.entries : [],
    );
    if (kv === undefined) throw deleted(own.id);
    const { voters, state } = decodeRepository(kv);
    const damaged = reportsIn(damages);
    // What a tombstone removes must not come back, and some store may still have it.
    if (state === 'deleted') throw deleted(own.id);
    let last: unknown = nobodyReachable(replicas, voters);
    const peers = reachable(replicas, voters).filter(({ storeId }) => storeId !== own.storeId);
    const inTurn = takeTurns(replicas, peers);
    const soundFirst = [
      ...inTurn.filter(({ storeId }) => !damaged.has(storeId)),
      ...inTurn.filter(({ storeId }) => damaged.has(storeId)),
    ];
    for (const { replica } of soundFirst) {
      const sending = replica.export(own.id, { have, atLeast, signal });
      try {
        // The last one is all that is left: it may be slow.
        const sent = await (replica === soundFirst.at(-1)?.replica
          ? sending
          : begun(sending, clock));
        return { ...sent, pack: sent.pack && unlessStalled(sent.pack, clock) };
      } catch (error) {
        last = error;
        if (!storeTroubles.has(asQuorateError(error).code)) throw error;
      }
    }
    throw last;
  };
}

/** A peer that has not begun to send after so long has a disk that hangs, perhaps: the next one is asked. */
const beginMs = 10_000;
/** Nothing comes while the peer's git goes through the history of a large repository: as long as any call to a node. */
const stallMs = 15 * 60_000;

/** `deadline-exceeded` when it comes late; what comes after that is let go. */
async function begun(
  sending: Promise<ReplicaExport>,
  clock: Pick<Clock, 'sleep'>,
): Promise<ReplicaExport> {
  const sent = await within(sending, beginMs, clock);
  if (sent !== undefined) return sent;
  void sending.then((late) => late.release()).catch(() => undefined);
  throw new QuorateError('deadline-exceeded', 'the other store has not begun to send in time');
}

async function* unlessStalled(
  pack: AsyncIterable<Uint8Array>,
  clock: Pick<Clock, 'sleep'>,
): AsyncGenerator<Uint8Array> {
  const chunks = pack[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(chunks.next(), stallMs, clock);
      if (next === undefined) {
        throw new QuorateError('deadline-exceeded', 'the other store sends no more of a pack');
      }
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    // One that hangs takes this when it goes on; nobody waits for it.
    void chunks.return?.().catch(() => undefined);
  }
}

/** Undefined: it takes longer. */
async function within<T>(
  answer: Promise<T>,
  ms: number,
  clock: Pick<Clock, 'sleep'>,
): Promise<T | undefined> {
  const over = new AbortController();
  try {
    return await Promise.race([answer, clock.sleep(ms, over.signal).then(() => undefined)]);
  } finally {
    over.abort('over');
  }
}

const turns = new WeakMap<ReplicaDirectory, number>();

/**
 * Another one first each time: what is damaged is often noticed by nobody but the one who is sent it, when all has been
 * sent.
 */
function takeTurns<T>(replicas: ReplicaDirectory, peers: readonly T[]): readonly T[] {
  const turn = turns.get(replicas) ?? 0;
  turns.set(replicas, turn + 1);
  const first = peers.length === 0 ? 0 : turn % peers.length;
  return [...peers.slice(first), ...peers.slice(0, first)];
}
