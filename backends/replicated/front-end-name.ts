import { z } from 'zod';
import type { Coordinator, KeyValue, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { processLeaseMs } from '../coordination/process-lease.js';
import { understood } from './node-record.js';
import { encodeRecord } from './records.js';

export interface FrontEndNameDependencies {
  readonly coordinator: Coordinator;
  readonly lease: ProcessLease;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly nodeId: string;
  /** Where its data directory is, which one process at a time uses: who comes again is not taken for another. */
  readonly place: { readonly host: string; readonly directory: string };
  /** Of the cluster, in which this process began. */
  readonly incarnation: number;
}

const schema = z.object({
  host: z.string(),
  directory: z.string(),
  /** Absent in records of earlier versions. */
  incarnation: z.int().min(1).optional(),
});

/** What a process that is gone left is gone by then: a new leader of etcd gives leases all their time. */
const patienceMs = 2 * processLeaseMs + 3_000;
const retryMs = 500;

/**
 * The node id of a front-end without a store, which no other process has as long as it lives, with a store or without:
 * people tell members by it, in locks, in lives of pushes and in logs.
 */
export class FrontEndName {
  readonly #dependencies: FrontEndNameDependencies;
  readonly #key: string;
  readonly #closing = new AbortController();
  #keeping: Promise<void> | undefined;

  constructor(dependencies: FrontEndNameDependencies) {
    this.#dependencies = dependencies;
    this.#key = keys.frontEndName(dependencies.nodeId);
  }

  /** Throws `failed-precondition`, naming the other one and the remedy, when the name is taken. */
  async take(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const deadlineMs = clock.monotonicMs() + patienceMs;
    let lost: AbortSignal | undefined;
    let told = false;
    while (lost === undefined) {
      try {
        lost = await this.#put();
      } catch (error) {
        if (!mayPass(error) || clock.monotonicMs() >= deadlineMs) throw error;
        if (!told) sayThatItWaits(logger, error);
        told = true;
        await clock.sleep(retryMs);
      }
    }
    this.#keeping = this.#keep(lost);
  }

  /** Idempotent. */
  async leave(): Promise<void> {
    this.#closing.abort();
    await this.#keeping;
    await this.#dependencies.lease.leave(this.#key);
  }

  /** With each lease that is lost the name is put anew under the next. */
  async #keep(first: AbortSignal): Promise<void> {
    const { clock, logger, nodeId } = this.#dependencies;
    const { signal } = this.#closing;
    for (let lost = first; ;) {
      await firstOf(lost, signal);
      while (lost.aborted && !signal.aborted) {
        try {
          lost = await this.#put();
        } catch (error) {
          const { code } = asQuorateError(error);
          logger.debug({ component: 'membership', code, node: nodeId }, 'the name is put later');
          await clock.sleep(retryMs, signal);
        }
      }
      if (signal.aborted) return;
    }
  }

  /** Returns what is aborted when the lease is lost that it is under. */
  async #put(): Promise<AbortSignal> {
    const { coordinator, lease, nodeId, place, incarnation } = this.#dependencies;
    const { id, lost } = await lease.current();
    const found = await coordinator.get(this.#key);
    const store = await coordinator.get(keys.node(nodeId));
    if (store !== undefined) throw takenByNode(nodeId, store);
    const other = found === undefined ? undefined : placeIn(found);
    if (
      other !== undefined &&
      !(other.host === place.host && other.directory === place.directory)
    ) {
      throw new QuorateError(
        'failed-precondition',
        `the node id ${nodeId} is taken by the front-end with the data directory ${other.directory} on ${other.host}: give this one another with --node-id, ` +
          'or none (one is made from the host name), so that both may run side by side; or start it when that one has stopped',
        { details: { nodeId, host: other.host, directory: other.directory } },
      );
    }
    const { succeeded } = await coordinator.transaction({
      compares: [
        { key: this.#key, target: 'modRevision', op: '=', operand: found?.modRevision ?? 0 },
        { key: keys.node(nodeId), target: 'createRevision', op: '=', operand: 0 },
      ],
      success: [
        { type: 'put', key: this.#key, value: encodeRecord({ ...place, incarnation }), lease: id },
      ],
      failure: [],
    });
    if (!succeeded) {
      throw new QuorateError('unavailable', `another process announces itself as ${nodeId}`);
    }
    return lost;
  }
}

/**
 * Whether what kept a process from saying who it is may pass. What it says may be said twice; a coordinator that is full
 * stays so.
 */
export function mayPass(error: unknown): boolean {
  const { code, details } = asQuorateError(error);
  if (code === 'outcome-unknown') return details['answered'] !== true;
  return code === 'failed-precondition' || code === 'unavailable';
}

/** A start that is silent for many seconds looks as if it hung. */
export function sayThatItWaits(logger: Logger, error: unknown): void {
  const { code, message } = asQuorateError(error);
  const fields = { component: 'membership', code, reason: message, seconds: patienceMs / 1000 };
  logger.info(fields, 'the start waits: what a process that was killed has left is gone by then');
}

function firstOf(...signals: readonly AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const signal of signals) signal.removeEventListener('abort', done);
      resolve();
    };
    if (signals.some(({ aborted }) => aborted)) return resolve();
    for (const signal of signals) signal.addEventListener('abort', done);
  });
}

function takenByNode(nodeId: string, record: KeyValue): QuorateError {
  const address = understood(record)?.address ?? 'an address that only later versions can read';
  return new QuorateError(
    'failed-precondition',
    `the node id ${nodeId} is taken by the storage node at ${address}: give this front-end another with --node-id, ` +
      'or none (one is made from the host name)',
    { details: { nodeId, address } },
  );
}

/** Undefined for a record of a later version. */
export function placeIn({ value }: KeyValue): z.infer<typeof schema> | undefined {
  return schema.safeParse(JSON.parse(new TextDecoder().decode(value))).data;
}

/** The incarnation of the cluster in which the front-end began whose record this is. */
export function beganIn(record: KeyValue): number {
  return placeIn(record)?.incarnation ?? 1;
}
