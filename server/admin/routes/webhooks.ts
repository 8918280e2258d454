import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { Delivery } from '../../../hooks/webhooks/delivery.js';
import {
  shownOrigin,
  type Webhook,
  webhookEvents,
  type WebhookScope,
  webhookSecretProblem,
  webhookUrlProblem,
} from '../../../hooks/webhooks/webhook.js';
import { newWebhookSecret } from '../../../hooks/webhooks/webhooks.js';
import { principalName } from '../../auth/principal.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { eitherOf, nothing, pageLimit } from './fields.js';
import { openRepository } from './repositories.js';

type WebhookOptions = Pick<AdminApiOptions, 'backend' | 'authorizer' | 'webhooks' | 'random'>;

const url = z.string({ error: 'a URL is wanted' }).superRefine(refineBy(webhookUrlProblem));
const secret = z.string().superRefine(refineBy(webhookSecretProblem));
const events = z
  .array(z.enum(webhookEvents, { error: `has to be ${eitherOf(webhookEvents)}` }))
  .min(1, { error: 'names no event' })
  .max(webhookEvents.length);

function refineBy(problemOf: (text: string) => string | undefined) {
  return (text: string, context: z.RefinementCtx): void => {
    const problem = problemOf(text);
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
  };
}

/** Whose webhooks a request is about. */
interface Scoped {
  readonly scope: WebhookScope;
  /** Undefined for the server's. */
  readonly repository: { readonly id: string; readonly name: string } | undefined;
}

interface Place {
  readonly prefix: string;
  readonly open: (call: Call) => Promise<Scoped>;
}

/** Webhooks: of a repository, for those who administer it; of the whole server, for its administrators. */
export function webhookEndpoints(options: WebhookOptions): Endpoint[] {
  const places: readonly Place[] = [
    {
      prefix: '/repositories/:repository',
      open: async (call) => {
        const { id, name } = await openRepository(options, call, 'admin');
        return { scope: { repositoryId: id }, repository: { id, name } };
      },
    },
    {
      prefix: '',
      open: (call) => {
        requireServerAdmin(call.principal, 'webhooks for all repositories');
        return Promise.resolve({ scope: 'server', repository: undefined });
      },
    },
  ];
  return places.flatMap((place) => [
    ...webhooksOf(options, place),
    ...changesOf(options, place),
    ...deliveriesOf(options, place),
  ]);
}

function webhooksOf(options: WebhookOptions, { prefix, open }: Place): Endpoint[] {
  const { webhooks, backend, random } = options;

  const list = endpoint({
    method: 'get',
    path: `${prefix}/webhooks`,
    action: 'webhook.list',
    input: nothing,
    run: async (call) => {
      const found = await webhooks.list((await open(call)).scope);
      return { status: 200, body: { webhooks: found.map(shownWebhook) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: `${prefix}/webhooks`,
    action: 'webhook.add',
    secrets: ['secret'],
    input: z.strictObject({ url, events: events.default(['push']), secret: secret.optional() }),
    // Paths and queries of such URLs may be secrets too.
    shown: (input) => ({ receiver: shownOrigin(input.url), events: input.events }),
    run: async (call, input) => {
      const { scope } = await open(call);
      if (!backend.capabilities.generations) {
        throw new QuorateError(
          'failed-precondition',
          'on the directory backend, where others push too, nothing could be promised: use a post-receive hook of the repository',
        );
      }
      refuseTarget(webhooks.targetProblem(input.url));
      const given = input.secret ?? newWebhookSecret(random);
      const by = principalName(call.principal);
      const added = await webhooks.add(scope, { ...input, secret: given, by });
      call.note({ webhook: added.id });
      return {
        status: 201,
        body: {
          webhook: shownWebhook(added),
          // Who brought one knows it.
          ...(input.secret === undefined ? { secret: given } : {}),
        },
      };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: `${prefix}/webhooks/:webhook`,
    action: 'webhook.remove',
    input: nothing,
    run: async (call) => {
      const id = call.param('webhook');
      await webhooks.remove((await open(call)).scope, id);
      return { status: 200, body: { removed: id } };
    },
  });

  const test = endpoint({
    method: 'post',
    path: `${prefix}/webhooks/:webhook/test`,
    action: 'webhook.test',
    input: nothing,
    run: async (call) => {
      const { scope, repository } = await open(call);
      const queued = await webhooks.test(scope, call.param('webhook'), repository ?? null);
      call.note({ delivery: queued.id });
      return { status: 201, body: { delivery: shownDelivery(queued) } };
    },
  });

  return [list, add, remove, test];
}

/** What is left out stays. A secret is not changed together with the rest: then it is not done by the way. */
function changesOf({ webhooks, random }: WebhookOptions, { prefix, open }: Place): Endpoint[] {
  const change = endpoint({
    method: 'patch',
    path: `${prefix}/webhooks/:webhook`,
    action: 'webhook.change',
    input: z
      .strictObject({ url: url.optional(), events: events.optional() })
      .refine((input) => Object.keys(input).length > 0, {
        path: ['url'],
        error: 'give a url or events',
      }),
    shown: (input) => ({
      ...(input.url === undefined ? {} : { receiver: shownOrigin(input.url) }),
      ...(input.events === undefined ? {} : { events: input.events }),
    }),
    run: async (call, input) => {
      const { scope } = await open(call);
      if (input.url !== undefined) refuseTarget(webhooks.targetProblem(input.url));
      const changed = await webhooks.change(scope, call.param('webhook'), input);
      return { status: 200, body: { webhook: shownWebhook(changed) } };
    },
  });

  const rotate = endpoint({
    method: 'post',
    path: `${prefix}/webhooks/:webhook/secret`,
    action: 'webhook.rotate-secret',
    secrets: ['secret'],
    input: z.strictObject({ secret: secret.optional() }),
    shown: (input) => ({ brought: input.secret !== undefined }),
    run: async (call, input) => {
      const { scope } = await open(call);
      const given = input.secret ?? newWebhookSecret(random);
      const changed = await webhooks.change(scope, call.param('webhook'), { secret: given });
      const body = { webhook: shownWebhook(changed) };
      return { status: 200, body: input.secret === undefined ? { ...body, secret: given } : body };
    },
  });

  return [change, rotate];
}

function deliveriesOf({ webhooks }: WebhookOptions, { prefix, open }: Place): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: `${prefix}/webhooks/:webhook/deliveries`,
    action: 'webhook.deliveries',
    input: z.strictObject({ after: z.string().max(64).optional(), limit: pageLimit }),
    run: async (call, { after, limit }) => {
      const all = await webhooks.deliveries((await open(call)).scope, call.param('webhook'));
      const left = all.filter(({ id }) => after === undefined || id < after);
      const page = left.slice(0, limit);
      return {
        status: 200,
        body: {
          deliveries: page.map(shownDelivery),
          next: left.length > limit ? (page.at(-1)?.id ?? null) : null,
        },
      };
    },
  });

  const show = endpoint({
    method: 'get',
    path: `${prefix}/webhooks/:webhook/deliveries/:delivery`,
    action: 'webhook.delivery',
    input: nothing,
    run: async (call) => {
      const { scope } = await open(call);
      const found = await webhooks.delivery(scope, call.param('webhook'), call.param('delivery'));
      const body = Buffer.from(found.body).toString('utf8');
      return { status: 200, body: { delivery: { ...shownDelivery(found.delivery), body } } };
    },
  });

  const redeliver = endpoint({
    method: 'post',
    path: `${prefix}/webhooks/:webhook/deliveries/:delivery/redeliver`,
    action: 'webhook.redeliver',
    input: nothing,
    run: async (call) => {
      const { scope } = await open(call);
      const again = await webhooks.redeliver(scope, call.param('webhook'), call.param('delivery'));
      return { status: 200, body: { delivery: shownDelivery(again) } };
    },
  });

  return [list, show, redeliver];
}

function refuseTarget(problem: string | undefined): void {
  if (problem === undefined) return;
  throw new QuorateError('invalid-argument', `url: ${problem}`, {
    details: { fields: [{ path: 'url', problem }] },
  });
}

function shownWebhook({ createdAtMs, ...webhook }: Webhook): object {
  return { ...webhook, createdAt: new Date(createdAtMs).toISOString() };
}

function shownDelivery(delivery: Delivery): object {
  const { id, event, repository, status, attempts, last, createdAtMs, dueAtMs } = delivery;
  const pending = status === 'pending';
  return {
    id,
    event,
    repository,
    status,
    attempts,
    createdAt: new Date(createdAtMs).toISOString(),
    nextAttemptAt: pending ? new Date(dueAtMs === 0 ? createdAtMs : dueAtMs).toISOString() : null,
    last:
      last === undefined
        ? null
        : {
            at: new Date(last.atMs).toISOString(),
            durationMs: last.durationMs,
            outcome: last.outcome,
            status: last.status ?? null,
            problem: last.problem ?? null,
            response: last.response ?? null,
          },
  };
}
