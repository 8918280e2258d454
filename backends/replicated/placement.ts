import { createHash } from 'node:crypto';
import type { StorageNode } from './voters.js';

/** Points of a node on the ring for each unit of its weight: the shares of equal nodes then differ by some 10 %. */
const pointsPerWeight = 100;
/** A node fuller than this gets nothing new while others have room. */
const fullAt = 0.9;

type Placeable = Pick<
  StorageNode,
  'nodeId' | 'storeId' | 'zone' | 'weight' | 'capacityBytes' | 'usedBytes' | 'draining' | 'problem'
>;

/**
 * Chooses stores for repositories by consistent hashing: where a node comes or goes, only its share moves. The answer
 * depends on the nodes and the id alone, so that every front-end gives the same one.
 */
export class Ring {
  readonly #points: readonly { readonly at: bigint; readonly node: Placeable }[];
  readonly #nodes: readonly Placeable[];

  constructor(nodes: readonly Placeable[]) {
    this.#nodes = nodes.filter(({ draining }) => !draining);
    this.#points = this.#nodes
      .flatMap((node) => pointsOf(node).map((at) => ({ at, node })))
      .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  }

  /** Whether the node may be given anything. */
  has(nodeId: string): boolean {
    return this.#nodes.some((node) => node.nodeId === nodeId);
  }

  /**
   * At most `count` nodes for a repository, beside those it is on. Zones without one of its nodes come first, full
   * nodes last; beyond that the ring decides.
   */
  place(
    repositoryId: string,
    count: number,
    beside: readonly Pick<Placeable, 'nodeId' | 'zone'>[] = [],
  ): readonly Placeable[] {
    const order = this.#walk(repositoryId).filter(
      ({ nodeId }) => !beside.some((other) => other.nodeId === nodeId),
    );
    const zones = new Set(beside.map(({ zone }) => zone));
    const chosen: Placeable[] = [];
    while (chosen.length < count) {
      const left = order.filter((node) => !chosen.includes(node));
      const next =
        left.find((node) => !isFull(node) && !zones.has(node.zone)) ??
        left.find((node) => !isFull(node)) ??
        left[0];
      if (next === undefined) break;
      chosen.push(next);
      zones.add(next.zone);
    }
    return chosen;
  }

  /** Every node once, in the order in which the ring meets them from the repository's point on. */
  #walk(repositoryId: string): readonly Placeable[] {
    const start = this.#firstFrom(hashOf(repositoryId));
    const seen = new Set<Placeable>();
    for (let step = 0; step < this.#points.length && seen.size < this.#nodes.length; step++) {
      const point = this.#points[(start + step) % this.#points.length];
      if (point !== undefined) seen.add(point.node);
    }
    return [...seen];
  }

  #firstFrom(at: bigint): number {
    let low = 0;
    let high = this.#points.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#points[middle]?.at ?? 0n) < at) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** By node and number of points: a ring is made for each look at a repository, of the same nodes nearly always. */
const known = new Map<string, readonly bigint[]>();
/** Some 20 KB each. */
const maxKnown = 200;

function pointsOf({ nodeId, weight }: Placeable): readonly bigint[] {
  const length = pointsPerWeight * Math.max(1, Math.round(weight));
  const name = `${nodeId}/${length}`;
  let points = known.get(name);
  if (points === undefined) {
    points = Array.from({ length }, (_, n) => hashOf(`${nodeId}/${n}`));
    if (known.size >= maxKnown) known.clear();
    known.set(name, points);
  }
  return points;
}

function hashOf(text: string): bigint {
  return createHash('sha256').update(text).digest().readBigUInt64BE();
}

/** Gets nothing new while others have room. */
export function isFull({
  capacityBytes,
  usedBytes,
  problem,
}: Pick<Placeable, 'capacityBytes' | 'usedBytes' | 'problem'>): boolean {
  if (problem !== undefined) return true;
  return capacityBytes > 0 && usedBytes >= capacityBytes * fullAt;
}
