import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { PeerSource } from '../contract/replica.js';
import { deleted } from './basis.js';
import { storeTroubles } from './commit.js';
import { damagesOf, reportsIn } from './damage.js';
import { asQuorateError } from '../contract/errors.js';
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
  }: { readonly coordinator: Coordinator; readonly replicas: ReplicaDirectory },
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
      try {
        return await replica.export(own.id, { have, atLeast, signal });
      } catch (error) {
        last = error;
        if (!storeTroubles.has(asQuorateError(error).code)) throw error;
      }
    }
    throw last;
  };
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
