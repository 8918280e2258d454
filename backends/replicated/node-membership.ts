import { processLeaseMs } from '../coordination/process-lease.js';
import type { Coordinator, KeyValue, Lease, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { mayPass, placeIn, sayThatItWaits } from './front-end-name.js';
import { encodeNode, type NodeRecord, understood } from './node-record.js';

export interface MembershipDependencies {
  readonly coordinator: Coordinator;
  /** A node whose process is away for longer is not counted on; its pushes go to others. */
  readonly lease: ProcessLease;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What the record is to say now. Asked again every half a minute. */
  readonly describe: () => Promise<NodeRecord>;
  /**
   * Whether it is our own store that answers at an address. Then nothing else lives there, and what an earlier store
   * of this node left need not be waited for. Absent: it is waited for.
   */
  readonly isOwnAddress?: (address: string) => Promise<boolean>;
}

/** What another process of the same id left behind is gone by then: a new leader of etcd gives leases all their time. */
const patienceMs = 2 * processLeaseMs + 3_000;
const retryMs = 500;
/** How full the disk is changes slowly. */
const refreshMs = 30_000;

/**
 * The record by which a storage node is known, as long as its process lives. A lost lease is followed by a new one with
 * a new record.
 */
export class NodeMembership {
  readonly #dependencies: MembershipDependencies;
  readonly #closing = new AbortController();
  #keeping: Promise<void> | undefined;
  /** Announcements follow each other: none overwrites what a later one was told. */
  #announcing: Promise<void> = Promise.resolve();
  /** Something has changed that was not announced yet. */
  #owes = false;
  #record: NodeRecord | undefined;
  /** The lease that the record is under. */
  #under: Lease | undefined;
  /** Announced, perhaps without an answer. */
  #nodeId: string | undefined;
  #refresh = new AbortController();

  constructor(dependencies: MembershipDependencies) {
    this.#dependencies = dependencies;
  }

  /** What was said last; undefined before `join`. */
  get record(): NodeRecord | undefined {
    return this.#record;
  }

  /**
   * Announces the node. Throws `failed-precondition`, naming the remedy, when another store goes by the same node id,
   * the same store by another one, or a front-end by this one.
   */
  async join(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const deadlineMs = clock.monotonicMs() + patienceMs;
    for (let told = false; ;) {
      try {
        await this.#announce();
        break;
      } catch (error) {
        if (!mayPass(error) || clock.monotonicMs() >= deadlineMs) throw error;
        if (!told) sayThatItWaits(logger, error);
        told = true;
        await clock.sleep(retryMs);
      }
    }
    this.#keeping = this.#keep();
  }

  /** Says at once what has changed. If that fails, it rejects, and it is said as soon as it can be, until `leave`. */
  async update(): Promise<void> {
    this.#owes = true;
    try {
      await this.#announce();
    } finally {
      this.#refresh.abort();
    }
  }

  /** Takes the record away. Idempotent. */
  async leave(): Promise<void> {
    this.#closing.abort();
    this.#refresh.abort();
    await this.#keeping;
    // Else it might put the record again that is taken away here.
    await this.#announcing.catch(() => undefined);
    if (this.#nodeId !== undefined) await this.#dependencies.lease.leave(keys.node(this.#nodeId));
  }

  async #keep(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    let failing = false;
    while (!signal.aborted) {
      this.#refresh = new AbortController();
      // Of the lease that the record is under: there may be another one already.
      const lost = this.#under === undefined ? [] : [this.#under.lost];
      if (!this.#owes) {
        await clock.sleep(refreshMs, AbortSignal.any([signal, this.#refresh.signal, ...lost]));
      }
      if (signal.aborted) return;
      try {
        await this.#announce();
        failing = false;
      } catch (error) {
        const context = { component: 'membership', err: error };
        // What is owed is tried again often.
        if (!failing) logger.warn(context, 'the node cannot announce itself');
        failing = this.#owes;
        await clock.sleep(retryMs, signal);
      }
    }
  }

  #announce(): Promise<void> {
    const turn = this.#announcing.catch(() => undefined).then(() => this.#announceOnce());
    this.#announcing = turn;
    return turn;
  }

  async #announceOnce(): Promise<void> {
    const owes = this.#owes;
    this.#owes = false;
    try {
      await this.#put();
    } catch (error) {
      this.#owes ||= owes;
      throw error;
    }
  }

  async #put(): Promise<void> {
    const { coordinator } = this.#dependencies;
    const record = await this.#dependencies.describe();
    const lease = await this.#dependencies.lease.current();
    const { entries } = await coordinator.range(keys.nodes, { rangeEnd: prefixEnd(keys.nodes) });
    const before = entries.find(({ key }) => key === keys.node(record.nodeId));
    const replaced = before !== undefined && (await this.#isReplaced(before, record));
    refuseTwins(record, replaced ? entries.filter((entry) => entry !== before) : entries);
    const frontEnd = await coordinator.get(keys.frontEndName(record.nodeId));
    if (frontEnd !== undefined) throw takenByFrontEnd(record.nodeId, frontEnd);
    this.#nodeId = record.nodeId;
    const { succeeded } = await coordinator.transaction({
      compares: [
        {
          key: keys.node(record.nodeId),
          target: 'modRevision',
          op: '=',
          operand: before?.modRevision ?? 0,
        },
        {
          key: keys.frontEndName(record.nodeId),
          target: 'createRevision',
          op: '=',
          operand: 0,
        },
      ],
      success: [putRecord(record, lease)],
      failure: [],
    });
    if (!succeeded) {
      throw new QuorateError('unavailable', `another process announces itself as ${record.nodeId}`);
    }
    this.#record = record;
    this.#under = lease;
  }

  /** A record of another store under our node id, at our own address, where it is we who answer. */
  async #isReplaced(before: KeyValue, record: NodeRecord): Promise<boolean> {
    const { isOwnAddress } = this.#dependencies;
    const other = understood(before);
    if (isOwnAddress === undefined || other === undefined) return false;
    if (other.storeId === record.storeId || other.address !== record.address) return false;
    return isOwnAddress(record.address);
  }
}

function putRecord(record: NodeRecord, lease: Lease) {
  return {
    type: 'put' as const,
    key: keys.node(record.nodeId),
    value: encodeNode(record),
    lease: lease.id,
  };
}

function refuseTwins({ nodeId, storeId, address }: NodeRecord, entries: readonly KeyValue[]): void {
  for (const kv of entries) {
    const other = understood(kv);
    if (other === undefined) continue;
    if (other.nodeId === nodeId && other.storeId !== storeId) {
      throw new QuorateError(
        'failed-precondition',
        `the node id ${nodeId} is taken by the node at ${other.address}, which has another store: give this one another with --node-id`,
        { details: { nodeId, address: other.address, storeId: other.storeId } },
      );
    }
    // Two processes on copies of one disk would overwrite each other's record; after a restart the old one fades.
    if (other.nodeId === nodeId && other.address !== address) {
      throw new QuorateError(
        'failed-precondition',
        `the node ${nodeId} is running at ${other.address} already: one process at a time has its store; start this one when that one has stopped, or on an empty directory with another --node-id`,
        { details: { nodeId, address: other.address } },
      );
    }
    if (other.nodeId !== nodeId && other.storeId === storeId) {
      throw new QuorateError(
        'failed-precondition',
        `this data directory is a copy of the one of node ${other.nodeId} at ${other.address}: start a new node on an empty directory, it is filled by the others`,
        { details: { nodeId: other.nodeId, address: other.address, storeId } },
      );
    }
  }
}

function takenByFrontEnd(nodeId: string, record: KeyValue): QuorateError {
  const place = placeIn(record);
  const where =
    place === undefined ? '' : ` with the data directory ${place.directory} on ${place.host}`;
  return new QuorateError(
    'failed-precondition',
    `the node id ${nodeId} is taken by the front-end${where}: give this one another with --node-id, or start it when that one has stopped`,
    { details: { nodeId, ...place } },
  );
}
