import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import type { Clock, Logger, Random } from '../../backends/contract/environment.js';
import { asQuorateError, QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import {
  scopeKey,
  type Subscriber,
  type Webhook,
  type WebhookChange,
  type WebhookEvent,
  webhookRecord,
  type WebhookScope,
} from './webhook.js';

/** Others change the same webhook at the same time: once or twice, never so often. */
const maxAttempts = 16;

/** Per scope. Each is looked at for each push. */
const maxWebhooks = 20;

/** Webhooks in the coordinator. Errors: `not-found`, `resource-exhausted` (20 in a scope), `aborted`, `data-corrupt`. */
export class WebhookStore {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;

  constructor(parts: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly random: Random;
    readonly logger: Logger;
  }) {
    this.#coordinator = parts.coordinator;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#logger = parts.logger;
  }

  /** Without their secrets, and without those of repositories that are gone. */
  async list(scope: WebhookScope): Promise<readonly Webhook[]> {
    return (await this.subscribers(scope)).filter(({ retired }) => retired !== true).map(shown);
  }

  /** `not-found` when there is none. */
  async get(scope: WebhookScope, id: string): Promise<Webhook> {
    const found = await this.subscriber(scope, id);
    if (found === undefined || found.retired === true) throw noSuchWebhook(id);
    return shown(found);
  }

  async add(
    scope: WebhookScope,
    webhook: {
      readonly url: string;
      readonly events: readonly WebhookEvent[];
      readonly secret: string;
      readonly by: string;
    },
  ): Promise<Webhook> {
    const existing = await this.subscribers(scope);
    if (existing.length >= maxWebhooks) {
      throw new QuorateError('resource-exhausted', `at most ${maxWebhooks} webhooks can be here`);
    }
    const id = Buffer.from(this.#random.bytes(8)).toString('hex');
    const record = {
      ...webhook,
      events: [...new Set(webhook.events)],
      createdAtMs: this.#clock.nowMs(),
    };
    await this.#put(scope, id, record);
    return shown({ ...record, id, scope });
  }

  /** Holds for every attempt from then on, also of what waits. `not-found`. */
  async change(scope: WebhookScope, id: string, change: WebhookChange): Promise<Webhook> {
    const key = keys.webhook(scopeKey(scope), id);
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const entry = await this.#coordinator.get(key);
      const found = entry && decode(entry, scope, id);
      if (entry === undefined || found === undefined || found.retired === true) {
        throw noSuchWebhook(id);
      }
      const { url = found.url, secret = found.secret } = change;
      const events = [...new Set(change.events ?? found.events)];
      const { id: _id, scope: _scope, ...before } = found;
      const record = { ...before, url, events, secret };
      const { succeeded } = await this.#coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'modRevision', op: '=', operand: entry.modRevision }],
        success: [{ type: 'put', key, value: Buffer.from(JSON.stringify(record)) }],
        failure: [],
      });
      if (succeeded) return shown({ ...record, id, scope });
    }
    throw new QuorateError('aborted', 'the webhook is being changed by others; try again');
  }

  /** With its deliveries, those that wait among them. `not-found`. */
  async remove(scope: WebhookScope, id: string): Promise<void> {
    const key = keys.webhook(scopeKey(scope), id);
    const { succeeded } = await this.#coordinator.transaction({
      binding: true,
      compares: [{ key, target: 'version', op: '>', operand: 0 }],
      success: [
        { type: 'delete', key },
        ...[keys.webhookDeliveries(id), keys.webhookBodies(id), keys.webhookQueue(id)].map(
          (prefix) => ({
            type: 'delete' as const,
            key: prefix,
            rangeEnd: prefixEnd(prefix),
          }),
        ),
      ],
      failure: [],
    });
    if (!succeeded) throw noSuchWebhook(id);
  }

  /** Its repository is gone: nothing new is queued for it. */
  async retire({ scope, id, ...webhook }: Subscriber): Promise<void> {
    await this.#put(scope, id, { ...webhook, retired: true });
  }

  async removeRetired({ scope, id }: Subscriber): Promise<void> {
    try {
      await this.remove(scope, id);
    } catch (error) {
      if (asQuorateError(error).code !== 'not-found') throw error;
    }
  }

  /**
   * With their secrets; those of repositories that are gone too. A damaged one is logged and left out: no push must
   * wait for it.
   */
  async subscribers(scope: WebhookScope): Promise<readonly Subscriber[]> {
    const prefix = keys.webhooksOf(scopeKey(scope));
    const { entries } = await this.#coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
    return entries.flatMap((entry) =>
      this.#tryDecode(entry, scope, entry.key.slice(prefix.length)),
    );
  }

  async subscriber(scope: WebhookScope, id: string): Promise<Subscriber | undefined> {
    const entry = await this.#coordinator.get(keys.webhook(scopeKey(scope), id));
    return entry === undefined ? undefined : decode(entry, scope, id);
  }

  /** Of all repositories that are gone, page by page. */
  async *retired(): AsyncGenerator<Subscriber> {
    const all = `${keys.webhooks}repositories/`;
    let from = all;
    for (;;) {
      const page = await this.#coordinator.range(from, { rangeEnd: prefixEnd(all), limit: 100 });
      for (const entry of page.entries) {
        const [repository = '', id = ''] = entry.key.slice(all.length).split('/');
        const scope = { repositoryId: decodeURIComponent(repository) };
        yield* this.#tryDecode(entry, scope, id).filter(({ retired }) => retired === true);
        from = `${entry.key}\0`;
      }
      if (!page.more) return;
    }
  }

  #tryDecode(entry: KeyValue, scope: WebhookScope, id: string): readonly Subscriber[] {
    try {
      return [decode(entry, scope, id)];
    } catch (error) {
      this.#logger.error({ component: 'webhooks', webhook: id, err: error }, 'a webhook is lost');
      return [];
    }
  }

  async #put(scope: WebhookScope, id: string, record: object): Promise<void> {
    const key = keys.webhook(scopeKey(scope), id);
    const value = Buffer.from(JSON.stringify(webhookRecord.parse(record)));
    await this.#coordinator.transaction({
      binding: true,
      compares: [],
      success: [{ type: 'put', key, value }],
      failure: [],
    });
  }
}

function decode(entry: KeyValue, scope: WebhookScope, id: string): Subscriber {
  try {
    const json: unknown = JSON.parse(Buffer.from(entry.value).toString('utf8'));
    return { ...webhookRecord.parse(json), id, scope };
  } catch {
    // Without the cause, which quotes what it could not read: there is a secret in it.
    throw new QuorateError('data-corrupt', `the record of webhook ${id} is damaged`);
  }
}

function shown({ id, url, events, by, createdAtMs }: Subscriber): Webhook {
  return { id, url, events, by, createdAtMs };
}

export function noSuchWebhook(id: string): QuorateError {
  return new QuorateError('not-found', `there is no webhook ${id} here`);
}
