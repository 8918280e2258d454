import { setMaxListeners } from 'node:events';
import type { KnownNode } from '../contract/cluster.js';
import type { Coordinator, WatchEvent } from '../contract/coordinator.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Replica } from '../contract/replica.js';
import { decodeNodeMark, type MarkRecord } from './node-marks.js';
import { decodeNode, type NodeRecord } from './node-record.js';
import { Ring } from './placement.js';
import type { Voter } from './records.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

/** A way to a node's store. */
export interface NodeConnection {
  readonly replica: Replica;
  /** Answers now. */
  readonly reachable: boolean;
  /** It does not take this process for a member of its cluster. */
  readonly refused: boolean;
  /** What does not fit in its credentials or ours, when that is why it does not answer; with the remedy. */
  readonly misfit?: string | undefined;
  /** What it said last, by itself, is wrong with its disk; with the remedy. */
  readonly problem?: string | undefined;
  /** By how much its clock on the wall is ahead of ours; absent while they are together. */
  readonly clockApartMs?: number | undefined;
  /** Requests that run there from here. */
  readonly running: number;
  /** Resolves when it is known for the first time whether it answers. */
  readonly asked: Promise<void>;
  close(): Promise<void>;
}

export interface NodeDirectoryDependencies {
  readonly coordinator: Coordinator;
  readonly connect: (node: {
    readonly storeId: string;
    readonly address: string;
  }) => NodeConnection;
  /** The store of this process, if it has one: it is reached without a connection. */
  readonly own?: () => { readonly node: NodeRecord; readonly replica: Replica } | undefined;
  /** Of the store of this process, also before it is announced: no connection is made to it. */
  readonly ownStoreId?: () => string | undefined;
  /** Called whenever a mark may have changed; see `markOf`. */
  readonly marked?: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
}

interface Known {
  readonly record: NodeRecord;
  readonly connection: NodeConnection;
}

/** A node whose record is gone may only have lost its lease for a moment: so long, what runs there may go on. */
const lingerMs = 60_000;
const retryMs = 500;
/** Marks and nodes, which are neighbours among the keys. */
const watched = { from: keys.nodeMarks, rangeEnd: prefixEnd(keys.nodes) };

/**
 * The storage nodes of the cluster, from their records in the coordinator: listed once, then watched. A node counts as
 * alive when its record is there and it answers; what is watched may lag, so nothing is judged safe by it.
 */
export class NodeDirectory implements ReplicaDirectory {
  readonly #dependencies: NodeDirectoryDependencies;
  readonly #known = new Map<string, Known>();
  readonly #marks = new Map<string, MarkRecord>();
  /** Connections whose node's record is gone, by store and address. */
  readonly #lingering = new Map<string, NodeConnection>();
  readonly #closing = new AbortController();
  readonly #ends = new Set<Promise<void>>();
  #following: Promise<void> | undefined;

  constructor(dependencies: NodeDirectoryDependencies) {
    this.#dependencies = dependencies;
    // Every connection that lingers listens.
    setMaxListeners(0, this.#closing.signal);
    const { meter } = dependencies;
    meter.gauge('storage_nodes', { state: 'answering' }, () => this.#count(true));
    meter.gauge('storage_nodes', { state: 'silent' }, () => this.#count(false));
  }

  /**
   * Resolves when the nodes that are there were listed and asked once. Throws `failed-precondition` when none of them
   * takes this process for a member, and some say so.
   */
  async start(): Promise<void> {
    const revision = await this.#list();
    this.#following = this.#follow(revision);
    const known = [...this.#known.values()];
    await Promise.all(known.map(({ connection }) => connection.asked));
    const stranger = known.find(({ connection }) => connection.refused);
    if (stranger === undefined || known.some(({ connection }) => connection.reachable)) return;
    await this.close();
    const { nodeId, address } = stranger.record;
    throw new QuorateError(
      'failed-precondition',
      `the storage node ${nodeId} at ${address} has another cluster secret: give this process the one that the other members have, with --cluster-secret-file`,
    );
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#following;
    const connections = [
      ...[...this.#known.values()].map(({ connection }) => connection),
      ...this.#lingering.values(),
    ];
    await Promise.all([...connections.map((connection) => connection.close()), ...this.#ends]);
  }

  nodes(): readonly StorageNode[] {
    const own = this.#dependencies.own?.();
    const others = [...this.#known.values()]
      .filter(({ record, connection }) => {
        return connection.reachable && record.storeId !== own?.node.storeId;
      })
      .map(({ record, connection: { clockApartMs } }) => ({
        ...this.#storageNode(record, false),
        ...(clockApartMs === undefined ? {} : { clockApartMs }),
      }));
    return own === undefined ? others : [this.#storageNode(own.node, true), ...others];
  }

  known(): readonly KnownNode[] {
    const own = this.#dependencies.own?.()?.node;
    const others = [...this.#known.values()].filter(
      ({ record }) => record.storeId !== own?.storeId,
    );
    return [
      ...(own === undefined ? [] : [{ ...this.#knownNode(own), answers: true }]),
      ...others.map(({ record, connection }) => ({
        ...this.#knownNode(record),
        answers: connection.reachable,
        problem: connection.reachable ? connection.problem : connection.misfit,
      })),
    ].sort((a, b) => a.nodeId.localeCompare(b.nodeId));
  }

  /** What people decided about a node, as far as this process has heard. */
  markOf(nodeId: string): MarkRecord | undefined {
    return this.#marks.get(nodeId);
  }

  troubleWith(nodeId: string): string | undefined {
    const connection = this.#known.get(nodeId)?.connection;
    return connection?.reachable === false ? connection.misfit : undefined;
  }

  /**
   * Why no other storage node takes part with this process, where credentials are the reason; undefined while one
   * does, or there is no other.
   */
  get stranger(): string | undefined {
    const others = [...this.#known.values()];
    if (others.some(({ connection }) => connection.reachable)) return undefined;
    const [first] = others.flatMap(({ connection }) => connection.misfit ?? []);
    if (first === undefined) return undefined;
    const nodes = others.map(({ record }) => record.nodeId).join(', ');
    return `no other storage node (${nodes}) takes part with this process: ${first}`;
  }

  find(storeId: string): Replica | undefined {
    const own = this.#dependencies.own?.();
    if (own?.node.storeId === storeId) return own.replica;
    const connection = this.#connectionTo(storeId);
    return connection?.reachable === true ? connection.replica : undefined;
  }

  load(storeId: string): number {
    return this.#connectionTo(storeId)?.running ?? 0;
  }

  place(repositoryId: string, count: number): readonly Omit<Voter, 'joinedEpoch'>[] {
    return new Ring(this.nodes())
      .place(repositoryId, count)
      .map(({ nodeId, storeId }) => ({ nodeId, storeId }));
  }

  #storageNode(record: NodeRecord, local: boolean): StorageNode {
    const { nodeId, storeId, address, zone, weight, capacityBytes, usedBytes } = record;
    const { problem, hangs } = record;
    const draining = record.draining || this.#marks.has(nodeId);
    const space = { capacityBytes, usedBytes };
    return { nodeId, storeId, address, zone, weight, ...space, draining, problem, hangs, local };
  }

  #knownNode(record: NodeRecord): Omit<KnownNode, 'answers'> {
    const { nodeId, address, zone, problem } = record;
    return { nodeId, address, zone, mark: this.#marks.get(nodeId)?.mark, problem };
  }

  #count(answering: boolean): number {
    return [...this.#known.values()].filter(({ connection }) => connection.reachable === answering)
      .length;
  }

  #connectionTo(storeId: string): NodeConnection | undefined {
    for (const { record, connection } of this.#known.values()) {
      if (record.storeId === storeId) return connection;
    }
    return undefined;
  }

  async #list(): Promise<number> {
    const { coordinator } = this.#dependencies;
    const { entries, revision } = await coordinator.range(watched.from, watched);
    const listed = new Set<string>();
    this.#marks.clear();
    for (const kv of entries) {
      if (kv.key.startsWith(keys.nodes)) listed.add(kv.key.slice(keys.nodes.length));
      this.#see({ type: 'put', entry: kv });
    }
    for (const nodeId of this.#known.keys()) if (!listed.has(nodeId)) this.#forget(nodeId);
    this.#dependencies.marked?.();
    return revision;
  }

  /** Watches from the listed revision on; lists anew when history was compacted away, or the watch broke. */
  async #follow(listedRevision: number): Promise<void> {
    const { coordinator, clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    let revision = listedRevision;
    while (!signal.aborted) {
      try {
        const batches = coordinator.watch(watched.from, {
          rangeEnd: watched.rangeEnd,
          fromRevision: revision + 1,
          signal,
        });
        for await (const { events } of batches) {
          for (const event of events) this.#see(event);
          if (events.some((event) => keyOf(event).startsWith(keys.nodeMarks))) {
            this.#dependencies.marked?.();
          }
        }
      } catch (error) {
        logger.warn({ component: 'nodes', err: error }, 'the storage nodes are listed anew');
      }
      while (!signal.aborted) {
        await clock.sleep(retryMs, signal);
        try {
          revision = await this.#list();
          break;
        } catch (error) {
          logger.debug({ component: 'nodes', err: error }, 'the storage nodes cannot be listed');
        }
      }
    }
  }

  #see(event: WatchEvent): void {
    const key = keyOf(event);
    if (key.startsWith(keys.nodeMarks)) {
      const nodeId = key.slice(keys.nodeMarks.length);
      if (event.type === 'delete') this.#marks.delete(nodeId);
      else this.#marks.set(nodeId, decodeNodeMark(event.entry.value));
      return;
    }
    if (event.type === 'delete') {
      this.#forget(event.key.slice(keys.nodes.length));
      return;
    }
    let record: NodeRecord;
    try {
      record = decodeNode(event.entry);
    } catch (error) {
      // Of a later version, perhaps: one node less is no reason to know none.
      this.#dependencies.logger.error(
        { component: 'nodes', err: error },
        'a node is not understood',
      );
      return;
    }
    const { nodeId, storeId, address } = record;
    // Its record is heard of before the answer that it was put.
    const { own, ownStoreId } = this.#dependencies;
    if (storeId === (ownStoreId?.() ?? own?.()?.node.storeId)) return;
    const before = this.#known.get(nodeId);
    if (before?.record.storeId === storeId && before.record.address === address) {
      this.#known.set(nodeId, { ...before, record });
      return;
    }
    this.#forget(nodeId);
    const name = `${storeId} ${address}`;
    const connection = this.#lingering.get(name) ?? this.#dependencies.connect(record);
    this.#lingering.delete(name);
    this.#known.set(nodeId, { record, connection });
  }

  #forget(nodeId: string): void {
    const known = this.#known.get(nodeId);
    if (known === undefined) return;
    this.#known.delete(nodeId);
    const { record, connection } = known;
    const name = `${record.storeId} ${record.address}`;
    this.#lingering.set(name, connection);
    const ending = this.#closeLater(name, connection).finally(() => this.#ends.delete(ending));
    this.#ends.add(ending);
  }

  async #closeLater(name: string, connection: NodeConnection): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    do {
      await clock.sleep(lingerMs, signal);
      if (signal.aborted || this.#lingering.get(name) !== connection) return;
    } while (connection.running > 0);
    this.#lingering.delete(name);
    await connection.close();
  }
}

function keyOf(event: WatchEvent): string {
  return event.type === 'delete' ? event.key : event.entry.key;
}
