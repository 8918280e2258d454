import type { Compare, Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import type { Operation } from '../../backends/contract/coordinator.js';
import {
  type Delivery,
  type DeliveryRecord,
  deliveryRecord,
  type NewDelivery,
} from './delivery.js';
import { scopeKey, type WebhookScope } from './webhook.js';

/** What waits, as far as its key says. */
export interface Waiting {
  readonly id: string;
  readonly dueAtMs: number;
}

/** A delivery as it was read: changes go through only while it is still that. */
export interface ReadDelivery {
  readonly delivery: Delivery;
  readonly modRevision: number;
  readonly body: Uint8Array;
}

/** A claim on the queue of one webhook. */
export interface Claim {
  readonly webhook: string;
  readonly createRevision: number;
}

/** Finished ones that a webhook keeps to be looked at and sent again. */
export const keptDeliveries = 100;
/** Removing some at a time costs less than one with each delivery. */
const keptSlack = 25;
/** Of records, which have 2 KiB at most. */
const pageSize = 200;

/**
 * Deliveries in the coordinator: a record, a body, and for those that wait a key in the queue, which is ordered by the
 * time at which they are due. Every change compares the record's revision, so that of two processes one gets through.
 */
export class DeliveryQueue {
  readonly #coordinator: Coordinator;

  constructor(coordinator: Coordinator) {
    this.#coordinator = coordinator;
  }

  /** Queues it unless it was queued before, or the webhook is gone. Durable on return. */
  async add(
    webhook: { readonly id: string; readonly scope: WebhookScope },
    { id, body, ...given }: NewDelivery,
  ): Promise<boolean> {
    const key = keys.webhookDelivery(webhook.id, id);
    const record: DeliveryRecord = {
      ...given,
      scope: webhook.scope,
      status: 'pending',
      attempts: 0,
    };
    const { succeeded } = await this.#coordinator.transaction({
      compares: [
        absent(key),
        {
          key: keys.webhook(scopeKey(webhook.scope), webhook.id),
          target: 'version',
          op: '>',
          operand: 0,
        },
      ],
      success: [
        { type: 'put', key, value: encode(record) },
        { type: 'put', key: keys.webhookBody(webhook.id, id), value: body },
        queued(webhook.id, { id, dueAtMs: given.dueAtMs }),
      ],
      failure: [],
    });
    return succeeded;
  }

  /** What waits, the first due first. */
  async waiting(webhook: string, limit: number): Promise<readonly Waiting[]> {
    const prefix = keys.webhookQueue(webhook);
    const { entries } = await this.#coordinator.range(prefix, {
      rangeEnd: prefixEnd(prefix),
      keysOnly: true,
      limit,
    });
    return entries.map(({ key }) => {
      const [due = '', id = ''] = key.slice(prefix.length).split('/');
      return { id, dueAtMs: Number(due) };
    });
  }

  /** `data-corrupt` when its record cannot be read. */
  async read(webhook: string, id: string): Promise<ReadDelivery | undefined> {
    const [entry, body] = await Promise.all([
      this.#coordinator.get(keys.webhookDelivery(webhook, id)),
      this.#coordinator.get(keys.webhookBody(webhook, id)),
    ]);
    if (entry === undefined || body === undefined) return undefined;
    return { delivery: decode(entry, id), modRevision: entry.modRevision, body: body.value };
  }

  /** All of a webhook, newest first. A damaged one is left out. */
  async list(webhook: string): Promise<readonly Delivery[]> {
    return (await this.#records(webhook)).map(({ delivery }) => delivery).reverse();
  }

  /**
   * Puts `next` in the place of what was read. False when it was changed or removed meanwhile: then nothing happened.
   */
  async change(
    webhook: string,
    { delivery, modRevision }: Pick<ReadDelivery, 'delivery' | 'modRevision'>,
    next: Omit<Delivery, 'id'>,
  ): Promise<boolean> {
    const { id } = delivery;
    const key = keys.webhookDelivery(webhook, id);
    const before = keys.webhookQueued(webhook, delivery.dueAtMs, id);
    const after = keys.webhookQueued(webhook, next.dueAtMs, id);
    const stays = next.status === 'pending';
    const queue: Operation[] = [
      ...(stays && before === after ? [] : [{ type: 'delete' as const, key: before }]),
      ...(stays ? [queued(webhook, { id, dueAtMs: next.dueAtMs })] : []),
    ];
    const { succeeded } = await this.#coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
      success: [{ type: 'put', key, value: encode(deliveryRecord.parse(stored(next))) }, ...queue],
      failure: [],
    });
    return succeeded;
  }

  /** Takes out a queue entry that is not the record's, as that was read. */
  async unqueue(webhook: string, { id, dueAtMs }: Waiting, modRevision: number): Promise<void> {
    const key = keys.webhookDelivery(webhook, id);
    await this.#coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
      success: [{ type: 'delete', key: keys.webhookQueued(webhook, dueAtMs, id) }],
      failure: [],
    });
  }

  /** What is in the queue and cannot be read, or has no record any more. */
  async forget(webhook: string, { id, dueAtMs }: Waiting): Promise<void> {
    await this.#coordinator.transaction({
      compares: [],
      success: [
        { type: 'delete', key: keys.webhookQueued(webhook, dueAtMs, id) },
        { type: 'delete', key: keys.webhookDelivery(webhook, id) },
        { type: 'delete', key: keys.webhookBody(webhook, id) },
      ],
      failure: [],
    });
  }

  /** Removes the oldest of those that ended, when there are more than are kept. */
  async prune(webhook: string): Promise<void> {
    const prefix = keys.webhookDeliveries(webhook);
    const { entries } = await this.#coordinator.range(prefix, {
      rangeEnd: prefixEnd(prefix),
      keysOnly: true,
      limit: keptDeliveries + keptSlack,
    });
    if (entries.length < keptDeliveries + keptSlack) return;
    const records = await this.#records(webhook);
    const ended = records.filter(({ delivery: { status } }) => status !== 'pending');
    const old = ended.slice(0, Math.max(0, ended.length - keptDeliveries));
    // Two deletes each: 50 stay below the 128 operations of a transaction.
    for (let from = 0; from < old.length; from += 50) {
      const batch = old.slice(from, from + 50).map(({ delivery: { id }, modRevision }) => ({
        key: keys.webhookDelivery(webhook, id),
        body: keys.webhookBody(webhook, id),
        modRevision,
      }));
      await this.#coordinator.transaction({
        // One that is being sent again is kept, and the rest goes the next time.
        compares: batch.map(({ key, modRevision }) => ({
          key,
          target: 'modRevision',
          op: '=',
          operand: modRevision,
        })),
        success: batch.flatMap(({ key, body }) => [
          { type: 'delete' as const, key },
          { type: 'delete' as const, key: body },
        ]),
        failure: [],
      });
    }
  }

  /** Ids of webhooks for which something waits. */
  async *busy(): AsyncGenerator<string> {
    const end = prefixEnd(keys.webhookQueues);
    let from: string = keys.webhookQueues;
    for (;;) {
      const { entries } = await this.#coordinator.range(from, {
        rangeEnd: end,
        keysOnly: true,
        limit: 1,
      });
      const [first] = entries;
      if (first === undefined) return;
      const [webhook = ''] = first.key.slice(keys.webhookQueues.length).split('/');
      yield webhook;
      from = prefixEnd(keys.webhookQueue(webhook));
    }
  }

  /** Ids of webhooks that other processes deliver for. */
  async claimedByOthers(lease: string | undefined): Promise<ReadonlySet<string>> {
    const { entries } = await this.#coordinator.range(keys.webhookClaims, {
      rangeEnd: prefixEnd(keys.webhookClaims),
    });
    const theirs = entries.filter((entry) => lease === undefined || entry.lease !== lease);
    return new Set(theirs.map(({ key }) => key.slice(keys.webhookClaims.length)));
  }

  /**
   * Undefined when another process has it. The claim ends with the lease. One that is under the same lease already is
   * taken up: its answer was lost, or it could not be given back.
   */
  async claim(webhook: string, lease: string): Promise<Claim | undefined> {
    const key = keys.webhookClaim(webhook);
    const { succeeded, revision, results } = await this.#coordinator.transaction({
      compares: [absent(key)],
      success: [{ type: 'put', key, value: new Uint8Array(), lease }],
      failure: [{ type: 'get', key }],
    });
    if (succeeded) return { webhook, createRevision: revision };
    const [existing] = results.flatMap((result) => (result.type === 'get' ? result.entries : []));
    return existing?.lease === lease
      ? { webhook, createRevision: existing.createRevision }
      : undefined;
  }

  /** `whenEmpty`: only if nothing waits. */
  async release(
    { webhook, createRevision }: Claim,
    { whenEmpty }: { readonly whenEmpty: boolean },
  ): Promise<'released' | 'lost' | 'not-empty'> {
    const key = keys.webhookClaim(webhook);
    const queue = keys.webhookQueue(webhook);
    const empty: Compare = { ...absent(queue), rangeEnd: prefixEnd(queue) };
    const { succeeded, results } = await this.#coordinator.transaction({
      compares: [
        { key, target: 'createRevision', op: '=', operand: createRevision },
        ...(whenEmpty ? [empty] : []),
      ],
      success: [{ type: 'delete', key }],
      failure: [{ type: 'get', key }],
    });
    if (succeeded) return 'released';
    const [existing] = results.flatMap((result) => (result.type === 'get' ? result.entries : []));
    return existing?.createRevision === createRevision ? 'not-empty' : 'lost';
  }

  /** In the order of their ids, which is that of time. */
  async #records(webhook: string): Promise<Omit<ReadDelivery, 'body'>[]> {
    const prefix = keys.webhookDeliveries(webhook);
    const found: Omit<ReadDelivery, 'body'>[] = [];
    let from = prefix;
    for (;;) {
      const rangeEnd = prefixEnd(prefix);
      const { entries, more } = await this.#coordinator.range(from, { rangeEnd, limit: pageSize });
      for (const entry of entries) {
        const record = tryDecode(entry);
        const id = entry.key.slice(prefix.length);
        const { modRevision } = entry;
        if (record !== undefined) found.push({ delivery: { id, ...record }, modRevision });
        from = `${entry.key}\0`;
      }
      if (!more) return found;
    }
  }
}

function absent(
  key: string,
): Extract<Compare, { target: 'createRevision' | 'modRevision' | 'version' }> {
  return { key, target: 'createRevision', op: '=', operand: 0 };
}

function queued(webhook: string, { id, dueAtMs }: Waiting): Operation {
  return { type: 'put', key: keys.webhookQueued(webhook, dueAtMs, id), value: new Uint8Array() };
}

function stored(delivery: Omit<Delivery, 'id'> & { readonly id?: string }): object {
  const { id: _id, ...record } = delivery;
  return record;
}

function encode(record: DeliveryRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

function decode(entry: KeyValue, id: string): Delivery {
  const record = tryDecode(entry);
  if (record !== undefined) return { ...record, id };
  throw new QuorateError('data-corrupt', `the record of delivery ${id} is damaged`);
}

function tryDecode(entry: KeyValue): DeliveryRecord | undefined {
  try {
    const json: unknown = JSON.parse(Buffer.from(entry.value).toString('utf8'));
    return deliveryRecord.parse(json);
  } catch {
    return undefined;
  }
}
