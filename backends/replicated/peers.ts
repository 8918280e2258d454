import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { Clock } from '../contract/environment.js';
import type { Oid } from '../contract/objects.js';
import type { PeerSource, ReplicaExport } from '../contract/replica.js';
import { deleted } from './basis.js';
import { damagesOf, reportsIn } from './damage.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { decodeRepository } from './records.js';
import { hangingStores } from './stuck.js';
import {
  type Member,
  nobodyReachable,
  reachable,
  type ReplicaDirectory,
  storeTroubles,
} from './voters.js';

/**
 * The other voters of a repository, as where one of its stores gets what it lacks: the first that can send it, those in
 * which damage was found after the others, and those whose disk hangs, by their own word, last.
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
    const hanging = hangingStores(replicas);
    const trouble = ({ storeId }: Member): number =>
      hanging.has(storeId) ? 2 : Number(damaged.has(storeId));
    const inTurn = [...takeTurns(replicas, peers)].sort((a, b) => trouble(a) - trouble(b));
    for (const [index, peer] of inTurn.entries()) {
      const next = inTurn[index + 1];
      // Whoever sends slowly is better than one that may not send at all, or what is damaged.
      const mayBeSlow = next === undefined || trouble(next) > trouble(peer);
      try {
        const hangs = (): boolean => hangingStores(replicas).has(peer.storeId);
        return await exportOf(peer, { id: own.id, have, atLeast, signal, clock, mayBeSlow, hangs });
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
/** Between two parts of a pack: git counts and compresses all objects before it writes the first byte. */
const stallMs = 60 * 60_000;
const lookEveryMs = 5_000;
/** A peer that sends nothing and says for a minute that its disk hangs is left: what it reads may keep the disk busy as well. */
const hangingLooks = 12;

interface Exporting {
  readonly id: string;
  readonly have: readonly Oid[];
  readonly atLeast: number;
  readonly signal: AbortSignal;
  readonly clock: Pick<Clock, 'sleep'>;
  /** There is no other one as good. */
  readonly mayBeSlow: boolean;
  /** Whether it says of itself that its disk hangs. */
  readonly hangs: () => boolean;
}

/** `deadline-exceeded` when it comes late; the peer is told that nobody wants it any more. */
async function exportOf(
  { replica }: Member,
  { id, have, atLeast, signal, clock, mayBeSlow, hangs }: Exporting,
): Promise<ReplicaExport> {
  // Not `AbortSignal.any`: the other signal may live as long as the process.
  const ended = new AbortController();
  const end = (): void => ended.abort('over');
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  const leave = (): void => signal.removeEventListener('abort', end);
  try {
    const sending = replica.export(id, { have, atLeast, signal: ended.signal });
    const sent = await (mayBeSlow ? sending : within(sending, beginMs, clock));
    if (sent === undefined) {
      void sending.then((late) => late.release()).catch(() => undefined);
      end();
      throw new QuorateError('deadline-exceeded', 'the other store has not begun to send in time');
    }
    const release = (): void => {
      leave();
      sent.release();
    };
    return { ...sent, pack: sent.pack && unlessStalled(sent.pack, { clock, hangs }), release };
  } catch (error) {
    leave();
    throw error;
  }
}

async function* unlessStalled(
  pack: AsyncIterable<Uint8Array>,
  peer: Pick<Exporting, 'clock' | 'hangs'>,
): AsyncGenerator<Uint8Array> {
  const chunks = pack[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await sentInTime(chunks.next(), peer);
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

/** Undefined: nothing was sent for too long, or nothing is to be expected. */
async function sentInTime<T>(
  sending: Promise<T>,
  { clock, hangs }: Pick<Exporting, 'clock' | 'hangs'>,
): Promise<T | undefined> {
  let looks = 0;
  for (let waitedMs = 0; waitedMs < stallMs && looks < hangingLooks; waitedMs += lookEveryMs) {
    const sent = await within(sending, lookEveryMs, clock);
    if (sent !== undefined) return sent;
    looks = hangs() ? looks + 1 : 0;
  }
  return undefined;
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
