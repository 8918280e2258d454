import { isIP } from 'node:net';
import type { Coordinator, ProcessLease } from '../../backends/contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { CommittedPush, RepositoryEvent } from '../../backends/contract/pipeline.js';
import { type Delivery, deliveryId, isDeliveryId } from './delivery.js';
import { DeliveryQueue } from './delivery-queue.js';
import { Dispatcher } from './dispatcher.js';
import { bodyOf, type Occurrence, occurrenceOfChange, occurrencesOf } from './payload.js';
import { createSender, type Resolve } from './send.js';
import { Slots } from './slots.js';
import { createTargets, type Targets } from './targets.js';
import type { Subscriber, Webhook, WebhookChange, WebhookEvent, WebhookScope } from './webhook.js';
import { WebhookStore } from './webhook-store.js';
import type { DeliveryOptions } from './worker.js';

export interface WebhookParts {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Name of a repository, or undefined when it is gone. */
  readonly repositoryName: (id: string) => Promise<string | undefined>;
  /** Says which process delivers. */
  readonly lease: ProcessLease;
  readonly version: string;
  /** Under which clients reach the server, without a slash at its end; undefined when nobody said. */
  readonly publicUrl: string | undefined;
  readonly options: DeliveryOptions & {
    /** `webhooks.enabled`: without it nothing is queued, and nothing that waits is sent. */
    readonly enabled: boolean;
    /** From the first attempt on. */
    readonly retryForMs: number;
    /** Of one attempt, all in all. */
    readonly timeoutMs: number;
    readonly allowedNetworks: string;
  };
  /** Default: the system's resolver. */
  readonly resolve?: Resolve;
}

export interface NewWebhook {
  readonly url: string;
  readonly events: readonly WebhookEvent[];
  readonly secret: string;
  readonly by: string;
}

/**
 * Webhooks: who is told, what is told, and the telling. Errors: `not-found`, `resource-exhausted`,
 * `failed-precondition`, `aborted`, `data-corrupt`.
 */
export interface Webhooks {
  readonly enabled: boolean;
  list(scope: WebhookScope): Promise<readonly Webhook[]>;
  add(scope: WebhookScope, webhook: NewWebhook): Promise<Webhook>;
  /** Holds for every attempt from then on, also of what waits. */
  change(scope: WebhookScope, id: string, change: WebhookChange): Promise<Webhook>;
  /** Its deliveries go with it, those that wait among them. */
  remove(scope: WebhookScope, id: string): Promise<void>;
  /** Queues a `ping`, of one attempt. */
  test(scope: WebhookScope, id: string, repository: Occurrence['repository']): Promise<Delivery>;
  /** Newest first. */
  deliveries(scope: WebhookScope, id: string): Promise<readonly Delivery[]>;
  delivery(
    scope: WebhookScope,
    id: string,
    delivery: string,
  ): Promise<{ readonly delivery: Delivery; readonly body: Uint8Array }>;
  /** Queues it once more, under its id; what waits already is tried at once. */
  redeliver(scope: WebhookScope, id: string, delivery: string): Promise<Delivery>;
  /** Why deliveries cannot go to this URL's host, when that can be said without looking its name up. */
  targetProblem(url: string): string | undefined;
  /** Queues what a committed entry is told as. Durable on return; again is the same. */
  committed(push: Pick<CommittedPush, 'entry' | 'repositoryId'>): Promise<void>;
  /** Whether `committed` would tell anybody now. */
  listening(repositoryId: string): Promise<boolean>;
  /** As `committed`. A repository that is gone takes its webhooks along, once they know. */
  repositoryChanged(event: RepositoryEvent): Promise<void>;
  /** Begins to deliver. */
  start(): void;
  close(): Promise<void>;
}

export function createWebhooks(parts: WebhookParts): Webhooks {
  return new CoordinatedWebhooks(parts);
}

/** For webhooks that come without one: as long as the hash that it makes. */
export function newWebhookSecret(random: Random): string {
  return Buffer.from(random.bytes(32)).toString('base64url');
}

class CoordinatedWebhooks implements Webhooks {
  readonly enabled: boolean;
  readonly #parts: WebhookParts;
  readonly #store: WebhookStore;
  readonly #queue: DeliveryQueue;
  readonly #targets: Targets;
  readonly #dispatcher: Dispatcher;

  constructor(parts: WebhookParts) {
    const { options, version } = parts;
    this.#parts = parts;
    this.enabled = options.enabled;
    this.#store = new WebhookStore(parts);
    this.#queue = new DeliveryQueue(parts.coordinator);
    this.#targets = createTargets(options.allowedNetworks);
    this.#dispatcher = new Dispatcher({
      ...parts,
      store: this.#store,
      queue: this.#queue,
      slots: new Slots(options.concurrency),
      send: createSender({ ...parts, targets: this.#targets, timeoutMs: options.timeoutMs }),
      userAgent: `Quorate/${version}`,
    });
  }

  list(scope: WebhookScope): Promise<readonly Webhook[]> {
    return this.#store.list(scope);
  }

  async add(scope: WebhookScope, webhook: NewWebhook): Promise<Webhook> {
    this.#refuseDisabled();
    return this.#store.add(scope, webhook);
  }

  async change(scope: WebhookScope, id: string, change: WebhookChange): Promise<Webhook> {
    const changed = await this.#store.change(scope, id, change);
    this.#dispatcher.nudge(id);
    return changed;
  }

  remove(scope: WebhookScope, id: string): Promise<void> {
    return this.#store.remove(scope, id);
  }

  async test(
    scope: WebhookScope,
    id: string,
    repository: Occurrence['repository'],
  ): Promise<Delivery> {
    this.#refuseDisabled();
    await this.#store.get(scope, id);
    const atMs = this.#parts.clock.nowMs();
    const cause = Buffer.from(this.#parts.random.bytes(16)).toString('hex');
    const ping: Occurrence = { event: 'ping', cause, atMs, repository, fields: {} };
    const queued = await this.#queueFor({ id, scope }, ping, { dueAtMs: 0, retryUntilMs: 0 });
    return (await this.delivery(scope, id, queued)).delivery;
  }

  async deliveries(scope: WebhookScope, id: string): Promise<readonly Delivery[]> {
    await this.#store.get(scope, id);
    return this.#queue.list(id);
  }

  async delivery(scope: WebhookScope, id: string, delivery: string) {
    await this.#store.get(scope, id);
    const read = isDeliveryId(delivery) ? await this.#queue.read(id, delivery) : undefined;
    if (read === undefined) {
      throw new QuorateError('not-found', `webhook ${id} has no delivery ${delivery}`);
    }
    return read;
  }

  async redeliver(scope: WebhookScope, id: string, delivery: string): Promise<Delivery> {
    this.#refuseDisabled();
    await this.#store.get(scope, id);
    const read = isDeliveryId(delivery) ? await this.#queue.read(id, delivery) : undefined;
    if (read === undefined) {
      throw new QuorateError('not-found', `webhook ${id} has no delivery ${delivery}`);
    }
    const retryUntilMs =
      read.delivery.event === 'ping'
        ? 0
        : this.#parts.clock.nowMs() + this.#parts.options.retryForMs;
    const next = { ...read.delivery, status: 'pending' as const, dueAtMs: 0, retryUntilMs };
    if (!(await this.#queue.change(id, read, next))) {
      throw new QuorateError('aborted', 'the delivery has just been tried; look at it again');
    }
    this.#dispatcher.nudge(id);
    return next;
  }

  targetProblem(url: string): string | undefined {
    const { hostname } = new URL(url);
    const address = hostname.replaceAll(/[[\]]/g, '');
    if (isIP(address) === 0 || this.#targets.permits(address)) return undefined;
    return 'is not a public address; the server lets others in by webhooks.allowedNetworks';
  }

  async committed({
    entry,
    repositoryId,
  }: Pick<CommittedPush, 'entry' | 'repositoryId'>): Promise<void> {
    if (!this.enabled) return;
    const subscribers = await this.#subscribers(repositoryId);
    if (subscribers.length === 0) return;
    const name = await this.#parts.repositoryName(repositoryId);
    // Gone meanwhile: that is what they are told.
    if (name === undefined) return;
    await this.#tell(subscribers, occurrencesOf({ id: repositoryId, name }, entry));
  }

  async listening(repositoryId: string): Promise<boolean> {
    return this.enabled && (await this.#subscribers(repositoryId)).length > 0;
  }

  async repositoryChanged(event: RepositoryEvent): Promise<void> {
    const { repositoryId, change } = event;
    const subscribers = await this.#subscribers(repositoryId);
    if (this.enabled) await this.#tell(subscribers, [occurrenceOfChange(event)]);
    if (change.action !== 'deleted') return;
    for (const subscriber of subscribers) {
      if (subscriber.scope === 'server') continue;
      // What waits is still delivered; nothing new comes, and the last delivery ends it.
      await this.#store.retire(subscriber);
      const waits = this.enabled && (await this.#queue.waiting(subscriber.id, 1)).length > 0;
      if (!waits) await this.#store.removeRetired(subscriber);
    }
  }

  start(): void {
    if (this.enabled) this.#dispatcher.start();
  }

  close(): Promise<void> {
    return this.#dispatcher.close();
  }

  async #subscribers(repositoryId: string): Promise<readonly Subscriber[]> {
    const [server, own] = await Promise.all([
      this.#store.subscribers('server'),
      this.#store.subscribers({ repositoryId }),
    ]);
    return [...server, ...own].filter(({ retired }) => retired !== true);
  }

  async #tell(
    subscribers: readonly Subscriber[],
    occurrences: readonly Occurrence[],
  ): Promise<void> {
    const nowMs = this.#parts.clock.nowMs();
    const times = { dueAtMs: nowMs, retryUntilMs: nowMs + this.#parts.options.retryForMs };
    for (const subscriber of subscribers) {
      for (const occurrence of occurrences) {
        const { event } = occurrence;
        if (event === 'ping' || !subscriber.events.includes(event)) continue;
        await this.#queueFor(subscriber, occurrence, times);
      }
    }
  }

  async #queueFor(
    webhook: { readonly id: string; readonly scope: WebhookScope },
    occurrence: Occurrence,
    times: { readonly dueAtMs: number; readonly retryUntilMs: number },
  ): Promise<string> {
    const { event, cause, atMs, repository } = occurrence;
    const id = deliveryId(atMs, { webhook: webhook.id, event, cause });
    const { publicUrl } = this.#parts;
    await this.#queue.add(webhook, {
      ...times,
      id,
      event,
      repository: repository?.name ?? null,
      body: bodyOf(occurrence, { delivery: id, publicUrl }),
      createdAtMs: atMs,
    });
    this.#dispatcher.nudge(webhook.id);
    return id;
  }

  #refuseDisabled(): void {
    if (this.enabled) return;
    throw new QuorateError(
      'failed-precondition',
      'webhooks are off on this server (webhooks.enabled)',
    );
  }
}
