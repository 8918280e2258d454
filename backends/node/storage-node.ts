import type { Coordinator, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { PeerSource, Replica } from '../contract/replica.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { GitRunner } from '../git/git-runner.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import type { DiskWatch } from '../local/disk-watch.js';
import { type LocalStore, openLocalStore } from '../local/local-store.js';
import { claimStore, storeRoot } from '../local/store-owner.js';
import { reportDamage } from '../replicated/damage.js';
import { beginEvictions } from '../replicated/evictions.js';
import { NodeDirectory } from '../replicated/node-directory.js';
import { NodeMembership } from '../replicated/node-membership.js';
import type { NodeRecord } from '../replicated/node-record.js';
import { peerSourceOf } from '../replicated/peers.js';
import { Scrub } from '../replicated/scrub.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { connectTo } from './node-connection.js';
import type { NodeAddress } from './node-requests.js';
import { createNodeServer, type NodeServer } from './node-server.js';
import { OwnMark } from './own-mark.js';
import { SnapshotMemory } from './snapshot-memory.js';

export interface StorageNodeOptions {
  readonly nodeId: string;
  readonly listen: NodeAddress;
  /** Where others reach it; undefined: the host and port that it listens on. */
  readonly advertise: NodeAddress | undefined;
  /** Host to advertise when it listens on all addresses. */
  readonly ownHost: string;
  readonly zone: string;
  readonly weight: number;
  readonly version: string;
}

export interface StorageNodeDependencies {
  readonly dataDirectory: string;
  /** Of the data directory; somebody keeps looking. */
  readonly disk: Pick<DiskWatch, 'look' | 'finding' | 'space'>;
  readonly coordinator: Coordinator;
  /** For the record that says that the node lives: it is there while commits are frozen, too. */
  readonly unguarded: Coordinator;
  readonly lease: ProcessLease;
  /** Of the coordinator: whose stores belong to it. */
  readonly clusterId: string;
  /** Of the cluster, when this process began. */
  readonly incarnation: number;
  readonly credentials: ClusterCredentials;
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly files?: TakeFileSteps;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly options: StorageNodeOptions;
  readonly maintenance: { readonly enabled: boolean; readonly pruneGraceMs: number };
  /** In how long everything is to be read once; 0: never. */
  readonly scrubIntervalMs: number;
}

/** How long a quarantine lies idle before this node finds out for itself what became of its push. */
const settleEveryMs = 60_000;
/** A push that has its objects here may wait for its locks: never for so long. While its hooks run, it says so. */
const idleMs = 600_000;
/** How long it waits until others can see that it drains: a coordinator that is away is not waited for. */
const tellMs = 1_000;
/** A disk that does not come back is told of when that is found: a node that drains does not wait for it. */
const describeWaitMs = 500;
/** How often it compares what it said of its disk with what was found. */
const tellOfDiskEveryMs = 1_000;
/** Members ask a node every second whether it lives. */
const heardWithinMs = 15_000;
/** How often it looks for copies that are to go. */
const evictEveryMs = 5_000;

/**
 * The storage side of a cluster's member: the store, its API, and its record among the nodes. It knows the other nodes
 * too, since it catches up from them.
 */
export class StorageNode {
  readonly directory: NodeDirectory;
  readonly memory: SnapshotMemory;
  readonly #dependencies: StorageNodeDependencies;
  readonly #store: LocalStore;
  readonly #mark: OwnMark;
  readonly #server: NodeServer;
  readonly #membership: NodeMembership;
  readonly #closing = new AbortController();
  #address = '';
  #draining = false;
  #settling: Promise<unknown> | undefined;
  readonly #scrub: Scrub;

  private constructor(
    dependencies: StorageNodeDependencies,
    parts: {
      readonly store: LocalStore;
      readonly mark: OwnMark;
      readonly directory: NodeDirectory;
      readonly memory: SnapshotMemory;
    },
  ) {
    this.#dependencies = dependencies;
    this.#store = parts.store;
    this.#mark = parts.mark;
    this.directory = parts.directory;
    this.memory = parts.memory;
    this.#server = createNodeServer({
      ...dependencies,
      replica: parts.store.replica,
      peers: (repositoryId, stores) =>
        stores === undefined
          ? this.#peers(repositoryId)
          : fromStores(this.directory, repositoryId, stores),
      problem: () => dependencies.disk.finding?.problem,
    });
    this.#scrub = new Scrub({
      ...dependencies,
      replica: parts.store.replica,
      intervalMs: dependencies.scrubIntervalMs,
      reportDamage: (id, storeId) => reportDamage(dependencies.coordinator, id, storeId),
    });
    this.#membership = new NodeMembership({
      ...dependencies,
      coordinator: dependencies.unguarded,
      describe: () => this.#describe(),
      isOwnAddress: (address) => this.#answersAt(address),
    });
  }

  /** Opens the store, unless it is another cluster's. Nothing is announced before `start`. */
  static async open(dependencies: StorageNodeDependencies): Promise<StorageNode> {
    const { coordinator, dataDirectory, clusterId, clock } = dependencies;
    await claimStore(
      storeRoot(dataDirectory),
      clusterId,
      async (id) => (await coordinator.get(keys.repo(id))) !== undefined,
    );
    const memory = new SnapshotMemory();
    let node: StorageNode | undefined;
    const { nodeId } = dependencies.options;
    const mark = new OwnMark({ ...dependencies, nodeId });
    const directory: NodeDirectory = new NodeDirectory({
      ...dependencies,
      marked: () => mark.show(directory.markOf(nodeId)),
      connect: (to) => connectTo(to, { ...dependencies, memory }),
      own: () => node?.own,
      ownStoreId: () => node?.replica.storeId,
    });
    const store = await openLocalStore({
      ...dependencies,
      peers: (id) =>
        peerSourceOf({ coordinator, replicas: directory, clock }, { id, storeId: storeId() }),
      suspect: (id) => {
        if (node !== undefined) node.#scrub.suspect(id);
      },
    });
    const storeId = (): string => store.replica.storeId;
    node = new StorageNode(dependencies, { store, mark, directory, memory });
    return node;
  }

  get nodeId(): string {
    return this.#dependencies.options.nodeId;
  }

  get replica(): Replica {
    return this.#store.replica;
  }

  /** Where the node API is, once it is open. */
  get address(): string {
    return this.#address;
  }

  /** Why it gets no repositories although it runs: for its health. */
  get problem(): string | undefined {
    return this.#mark.problem;
  }

  /**
   * Why it is no member in truth: no other node takes part with it, and none, nor a front-end, has come here, for the
   * last seconds. Undefined when it is one, or is alone.
   */
  get stranger(): string | undefined {
    const { stranger } = this.directory;
    if (stranger === undefined) return undefined;
    const heardMs = this.#server.heardMs ?? -Infinity;
    return this.#dependencies.clock.monotonicMs() - heardMs < heardWithinMs ? undefined : stranger;
  }

  get quarantines(): number {
    return this.#store.replica.quarantines.length;
  }

  get maintenanceQueued(): number {
    return this.#store.maintenance.queued;
  }

  /** This node as the directory of this process shows it; undefined before it is announced. */
  get own(): { readonly node: NodeRecord; readonly replica: Replica } | undefined {
    const node = this.#membership.record;
    return node === undefined ? undefined : { node, replica: this.#store.replica };
  }

  /** Opens the API, finds the other nodes, settles what an earlier process left, and announces the node. */
  async start(): Promise<void> {
    const { options } = this.#dependencies;
    const bound = await this.#listen();
    const { host, port } = options.advertise ?? {
      host: isAnyAddress(bound.host) ? options.ownHost : bound.host,
      port: bound.port,
    };
    this.#address = `${host.includes(':') ? `[${host}]` : host}:${port === 0 ? bound.port : port}`;
    await this.directory.start();
    await this.#membership.join();
    this.#settling = Promise.all([
      this.#settleForEver(),
      this.#evictForEver(),
      this.#tellOfDiskForEver(),
    ]);
    this.#scrub.start();
  }

  /** No new work comes here, and what runs may finish. `close` takes the node's record away. Idempotent. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    // Others see it in the record; those that do not yet are refused and go elsewhere.
    const told = new AbortController();
    const telling = this.#membership.update().catch(() => undefined);
    await Promise.race([telling, this.#dependencies.clock.sleep(tellMs, told.signal)]);
    told.abort();
    await this.#server.drain(graceMs);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#server.drain(0);
    await this.#membership.leave();
    await this.#scrub.close();
    await this.#settling;
    await this.directory.close();
    await this.#store.close();
  }

  async #listen(): Promise<NodeAddress> {
    const { host, port } = this.#dependencies.options.listen;
    try {
      return await this.#server.listen(host, port);
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
      throw new QuorateError(
        'failed-precondition',
        `node cannot listen on ${host}:${port} (${code}); choose another address with --node HOST:PORT`,
        { cause },
      );
    }
  }

  async #answersAt(address: string): Promise<boolean> {
    const { storeId } = this.#store.replica;
    const connection = connectTo(
      { storeId, address },
      { ...this.#dependencies, memory: this.memory },
    );
    try {
      await connection.asked;
      return connection.reachable;
    } finally {
      await connection.close();
    }
  }

  #peers(repositoryId: string): PeerSource {
    const { coordinator, clock } = this.#dependencies;
    const own = { id: repositoryId, storeId: this.#store.replica.storeId };
    return peerSourceOf({ coordinator, replicas: this.directory, clock }, own);
  }

  async #describe(): Promise<NodeRecord> {
    const { options, disk, incarnation } = this.#dependencies;
    const finding = await disk.look(describeWaitMs);
    return {
      nodeId: options.nodeId,
      storeId: this.#store.replica.storeId,
      address: this.#address,
      zone: options.zone,
      weight: options.weight,
      // A disk that says nothing of itself is no reason to say nothing of the node.
      ...(disk.space ?? unknownSpace),
      draining: this.#draining,
      version: options.version,
      ...(finding === undefined ? {} : { problem: finding.problem }),
      ...(finding?.hangs === true ? { hangs: true } : {}),
      incarnation,
    };
  }

  /** What is wrong with its disk all see soon, in its record; and so that it is well again. */
  async #tellOfDiskForEver(): Promise<void> {
    const { clock, disk, logger, options } = this.#dependencies;
    const { signal } = this.#closing;
    const about = { component: 'store', node: options.nodeId };
    while (!signal.aborted) {
      await clock.sleep(tellOfDiskEveryMs, signal);
      if (signal.aborted || disk.finding?.problem === this.#membership.record?.problem) continue;
      await this.#membership.update().catch((error: unknown) => {
        logger.debug({ ...about, err: error }, 'what became of the disk is told later');
      });
    }
  }

  /** Removes the copies that went elsewhere. */
  async #evictForEver(): Promise<void> {
    const { clock, coordinator, logger } = this.#dependencies;
    const { replica } = this.#store;
    const { signal } = this.#closing;
    const underWay = new Map<string, Promise<void>>();
    while (!signal.aborted) {
      try {
        await beginEvictions({ coordinator, replica, logger }, underWay);
      } catch (error) {
        logger.debug({ component: 'store', err: error }, 'evictions could not be read');
      }
      await clock.sleep(evictEveryMs, signal);
    }
    await Promise.all(underWay.values());
  }

  /** At once what an earlier process left; then what nothing has happened to for long. */
  async #settleForEver(): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    const { replica } = this.#store;
    await this.#store.settle(replica.leftQuarantines);
    while (!signal.aborted) {
      await clock.sleep(settleEveryMs, signal);
      await this.#store.settle(replica.idleQuarantines(idleMs), { idle: true });
    }
  }
}

/** Nothing is put on such a node by how full it is. */
const unknownSpace = { capacityBytes: 0, usedBytes: 0 };

function isAnyAddress(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

/** The named stores, in their order. */
function fromStores(
  directory: NodeDirectory,
  repositoryId: string,
  stores: readonly string[],
): PeerSource {
  return async (have, atLeast, signal) => {
    let last: unknown = new QuorateError('unavailable', 'no store to catch up from is reachable');
    for (const storeId of stores) {
      const replica = directory.find(storeId);
      if (replica === undefined) continue;
      try {
        return await replica.export(repositoryId, { have, atLeast, signal });
      } catch (error) {
        if (signal.aborted) throw error;
        last = error;
      }
    }
    throw last;
  };
}
