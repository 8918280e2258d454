import { asQuorateError, QuorateError } from '../../contract/errors.js';
import type {
  PeerSource,
  PrepareRequest,
  Replica,
  ReplicaExport,
  ReplicaRead,
} from '../../contract/replica.js';
import type { Network } from './network.js';
import { describeValue, type SimulatedProcess } from './simulated-process.js';
import type { LocalReplica } from '../../local/local-replica.js';

/** A storage node while it runs. */
export interface RunningStore {
  readonly process: SimulatedProcess;
  /** Undefined until it has started. */
  readonly replica: LocalReplica | undefined;
  /** Where it gets what its copies lack. */
  readonly source: ((id: string) => PeerSource) | undefined;
  /** Some store's disk does not answer: its own, or that of one which it waits for. */
  readonly hangs: boolean;
}

/** A node hears no more of a caller for so long before it lets go what it held for that one. */
const noticedDeadMs = 30_000;
/** How long a front-end waits for an answer of a storage node: one that was lost, say. */
const answerMs = 10_000;
/** A node that is there and has not done yet what it was asked is waited for as long as `backends/node` does. */
const callTimeoutMs = 15 * 60_000;

/**
 * Calls a storage node over the network, as `backends/node` does over HTTP: an answer may be lost after the work was
 * done, a request may come twice or late, and a node that is gone is found out by a refusal or by silence.
 */
export class NodeConnection {
  readonly #network: Network;
  readonly #caller: SimulatedProcess;
  readonly #nodeName: string;
  readonly #storeId: string;
  readonly #node: () => RunningStore | undefined;
  readonly happened: (what: string) => void;
  /** Told at the node, in the moment in which a read begins there. */
  readonly shown: (repositoryId: string, generation: number) => void;

  constructor(options: {
    readonly network: Network;
    readonly caller: SimulatedProcess;
    readonly nodeName: string;
    /** A node whose disk was swapped is not the one that is meant. */
    readonly storeId: string;
    readonly node: () => RunningStore | undefined;
    readonly happened: (what: string) => void;
    readonly shown: (repositoryId: string, generation: number) => void;
  }) {
    this.#network = options.network;
    this.#caller = options.caller;
    this.#nodeName = options.nodeName;
    this.#storeId = options.storeId;
    this.#node = options.node;
    this.happened = options.happened;
    this.shown = options.shown;
  }

  /** The node lives and can be heard, and what it was asked waits for a disk. */
  get #isHeld(): boolean {
    const node = this.#node();
    const { name } = this.#caller;
    const isHeard =
      !this.#network.isCut(name, this.#nodeName) && !this.#network.isCut(this.#nodeName, name);
    return node?.hangs === true && node.process.alive && !node.process.paused && isHeard;
  }

  /**
   * `again`: harmless when it happens twice. `name`: worth counting when it comes late, or twice. `release`: gives back
   * what a result holds at the node, when the caller does not get it or is gone.
   */
  call<T>(
    run: (replica: LocalReplica, ended: AbortSignal, node: RunningStore) => Promise<T>,
    {
      again = true,
      name,
      release,
      signal,
    }: {
      readonly again?: boolean;
      readonly name?: string;
      readonly release?: (result: T) => void;
      /** Of who waits for the answer, as far as `backends/node` heeds it. */
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<T> {
    const { name: caller } = this.#caller;
    const endMs = this.#caller.scheduler.nowMs + callTimeoutMs;
    let arrivals = 0;
    let served = 0;
    /** Results that hold something, of which the caller gets the first that arrives in time. */
    const held: T[] = [];
    let taken: T | undefined;
    return new Promise((resolve, reject) => {
      const ended = new AbortController();
      const letGo = (): void => {
        for (const result of held) if (result !== taken) release?.(result);
      };
      if (release !== undefined) {
        this.#caller.onDeath(() => {
          taken = undefined;
          this.#caller.scheduler.after(noticedDeadMs, letGo);
        });
      }
      const settle = (finish: () => void): void => {
        stopWaiting?.();
        forget?.();
        finish();
      };
      const giveUp = (error: QuorateError): void => {
        settle(() => {
          ended.abort();
          reject(error);
          letGo();
        });
      };
      let stopWaiting: (() => void) | undefined;
      const wait = (): void => {
        stopWaiting = this.#caller.after(answerMs, () => {
          if (served < arrivals && this.#isHeld && this.#caller.scheduler.nowMs < endMs) wait();
          else giveUp(unreachable());
        });
      };
      wait();
      const forget =
        signal === undefined ? undefined : this.#caller.onAbort(signal, () => giveUp(gaveUp()));
      const answer = (finish: () => void): void =>
        this.#network.send(this.#nodeName, caller, () => this.#caller.arrive(() => settle(finish)));
      const arrive = (): void => {
        const node = this.#node();
        const replica = node?.replica;
        if (!node?.process.alive || replica?.storeId !== this.#storeId) {
          answer(() => reject(unreachable()));
          return;
        }
        node.process.onDeath(() => answer(() => reject(unreachable())));
        arrivals++;
        if (name !== undefined && ended.signal.aborted) this.happened(`${name} comes late`);
        else if (name !== undefined && arrivals > 1) this.happened(`${name} comes twice`);
        node.process.arrive(() => {
          node.process.passes('message');
          if (node.process.alive) void serve(node, replica);
        });
      };
      const serve = async (node: RunningStore, replica: LocalReplica): Promise<void> => {
        const { process } = node;
        try {
          const result = await run(replica, ended.signal, node);
          if (!process.alive) return;
          if (release !== undefined) held.push(result);
          if (ended.signal.aborted || !this.#caller.alive) letGo();
          process.passes('message');
          answer(() => {
            taken ??= result;
            resolve(result);
            letGo();
          });
        } catch (error) {
          // An error crosses the network by its code and message.
          const { code, message, details } = asQuorateError(error);
          const sent = new QuorateError(code, message, { details });
          originals.set(sent, error);
          answer(() => reject(sent));
        } finally {
          served++;
        }
      };
      this.#caller.passes('message');
      this.#network.send(caller, this.#nodeName, arrive);
      if (again && this.#caller.random.chance(this.#network.weather.late)) {
        this.#network.send(caller, this.#nodeName, arrive);
      }
      this.#caller.passes('message');
    });
  }
}

function gaveUp(): QuorateError {
  return new QuorateError('cancelled', 'the caller gave up');
}

/** What errors were before they crossed the network: for people who read of them, and nothing that a caller sees. */
const originals = new WeakMap<Error, unknown>();

/** An error as it was where it came about. */
export function describeError(error: unknown): string {
  return describeValue(error instanceof Error ? (originals.get(error) ?? error) : error);
}

function unreachable(): QuorateError {
  return new QuorateError('unavailable', 'the storage node cannot be reached');
}

/** The `Replica` that a front-end holds of a storage node. */
export function remoteReplica(storeId: string, node: NodeConnection): Replica {
  return {
    storeId,
    create: (id, options) => node.call((replica) => replica.create(id, options)),
    upload: async (key, pack, options) => {
      const bytes = await collect(pack);
      return node.call(
        (replica) => replica.upload(key, replay(bytes), { ...options, progress: () => undefined }),
        { again: false, name: 'upload', signal: options.signal },
      );
    },
    prepare: (request) =>
      node.call((replica) => replica.prepare(detached(request)), {
        name: 'prepare',
        signal: request.signal,
      }),
    nonFastForwards: (key, commands, signal) =>
      node.call((replica) => replica.nonFastForwards(key, commands, signal), { signal }),
    runHook: () => Promise.reject(new QuorateError('unimplemented', 'no hooks here')),
    inspect: async function* () {},
    storeUpdates: (key, updates) => node.call((replica) => replica.storeUpdates(key, updates)),
    apply: (id, generation) =>
      node.call((replica) => replica.apply(id, generation), { name: 'apply' }),
    keep: (key) => node.call((replica) => replica.keep(key)),
    abort: (key) => node.call((replica) => replica.abort(key), { name: 'abort' }),
    heldPushes: (id, digests) => node.call((replica) => replica.heldPushes(id, digests)),
    gather: (key, from) => node.call((replica) => replica.gather(key, from)),
    applied: (id) => node.call((replica) => replica.applied(id)),
    read: (id, atLeast, options) =>
      node.call((replica) => openRead(replica, node, { id, atLeast, ...options }), {
        release: (read) => read.release(),
      }),
    maintain: (id, options) => node.call((replica) => replica.maintain(id, options)),
    destroy: (id) => node.call((replica) => replica.destroy(id)),
    fork: (fork) => node.call((replica) => replica.fork(fork)),
    leavePool: (id, poolId) => node.call((replica) => replica.leavePool(id, poolId)),
    destroyPool: (poolId) => node.call((replica) => replica.destroyPool(poolId)),
    copies: (after) => node.call((replica) => replica.copies(after)),
    state: (id, options) => node.call((replica) => replica.state(id, options)),
    stats: (id) => node.call((replica) => replica.stats(id)),
    export: (id, options) =>
      node.call((replica) => sendExport(replica, node, { ...options, id }), {
        signal: options.signal,
      }),
    // A node asks its peers itself: who told it to may be gone before they answer.
    catchUp: (id, options) =>
      node.call(
        (replica, signal, { source = unopened }) =>
          replica.catchUp(id, { ...options, source: source(id), signal }),
        { name: 'fill', signal: options.signal },
      ),
    verify: (id, options) => node.call((replica) => replica.verify(id, options)),
  };
}

/** A request that was received does not hear its sender's signal any more; the node may hear of it by other means. */
function detached(request: PrepareRequest): PrepareRequest {
  return { ...request, signal: new AbortController().signal };
}

function unopened(): never {
  throw unreachable();
}

function unused(): never {
  throw new Error('the simulation serves no packs');
}

async function openRead(
  replica: LocalReplica,
  node: NodeConnection,
  {
    id,
    atLeast,
    ...options
  }: { readonly id: string; readonly atLeast: number; readonly eventual?: boolean },
): Promise<ReplicaRead> {
  const read = await replica.read(id, atLeast, options);
  node.shown(id, read.snapshot.generation);
  return {
    snapshot: read.snapshot,
    digest: read.digest,
    firstForbiddenWant: (wants, visible) =>
      node.call(() => read.firstForbiddenWant(wants, visible)),
    objectSizes: (oids) => node.call(() => read.objectSizes(oids)),
    uploadPack: unused,
    wholePack: unused,
    shape: unused,
    uploadArchive: unused,
    release: () => read.release(),
  };
}

/** The pack travels with the answer: what is on the wire when the sender dies comes to nothing anyway. */
async function sendExport(
  replica: LocalReplica,
  node: NodeConnection,
  { id, ...options }: Parameters<Replica['export']>[1] & { readonly id: string },
): Promise<ReplicaExport> {
  const sent = await replica.export(id, options);
  node.happened('copies sent between stores');
  try {
    const pack = sent.pack === undefined ? undefined : replay(await collect(sent.pack));
    return { ...sent, pack, release: () => undefined };
  } finally {
    sent.release();
  }
}

async function collect(pack: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function* replay(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
