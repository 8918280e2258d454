import { z } from 'zod';
import { attemptOutcomes } from '../../hooks/webhooks/delivery.js';
import { webhookEvents } from '../../hooks/webhooks/webhook.js';

/*
 * What the endpoints answer, by action, for the OpenAPI document; the tests hold every answer against it. An action
 * that is not here is documented as an object.
 */

const time = z.iso.datetime();
const next = z
  .string()
  .nullable()
  .describe('where the next page starts (`after`); null: this is the last');
const level = z.enum(['read', 'write', 'admin']);

const user = z.strictObject({
  name: z.string(),
  admin: z.boolean(),
  disabled: z.boolean(),
  canCreate: z.boolean(),
  createdAt: time,
});

const key = z.strictObject({
  fingerprint: z.string(),
  user: z.string(),
  type: z.string(),
  comment: z.string(),
  createdAt: time,
});

const token = z.object({
  id: z.string(),
  user: z.string(),
  name: z.string(),
  scope: level,
  repositoryPattern: z.string().nullable(),
  createdAt: time,
  expiresAt: time.nullable(),
});

const repository = z.object({
  id: z
    .string()
    .describe('never reused, and kept when it is renamed; what logs and disks name it by'),
  name: z.string(),
  public: z.boolean(),
  objectFormat: z.enum(['sha1', 'sha256']),
  createdAt: time,
  epoch: z.int().min(1),
});

const administered = repository.extend({
  settings: z.record(z.string(), z.string()),
  grants: z.record(z.string(), level),
});

const shown = repository.extend({
  head: z.string(),
  generation: z.int(),
  refCount: z.int(),
  packCount: z.int(),
  looseObjectCount: z.int(),
  sizeBytes: z.int().describe("objects that are this repository's alone"),
  sharedBytes: z.int().describe('objects that it shares with its forks or its source'),
  sharedBy: z.int().describe('repositories that share them, this one included; 1: none are shared'),
  savedBytes: z.int().describe('what the others would hold more without sharing'),
  settings: z.record(z.string(), z.string()).optional(),
  grants: z.record(z.string(), level).optional(),
});

const webhook = z.strictObject({
  id: z.string(),
  url: z.string(),
  events: z.array(z.enum(webhookEvents)),
  by: z.string(),
  createdAt: time,
});

const delivery = z.strictObject({
  id: z.string(),
  event: z.enum([...webhookEvents, 'ping']),
  repository: z.string().nullable().describe('its name when it happened'),
  status: z.enum(['pending', 'delivered', 'failed', 'dropped']),
  attempts: z.int().min(0),
  createdAt: time,
  nextAttemptAt: time.nullable(),
  last: z
    .strictObject({
      at: time,
      durationMs: z.number(),
      outcome: z.enum(attemptOutcomes),
      status: z.int().nullable(),
      problem: z.string().nullable(),
      response: z.string().nullable().describe("the beginning of the answer's body"),
    })
    .nullable(),
});

const auditEvent = z
  .looseObject({ time, event: z.string(), outcome: z.string(), actor: z.string() })
  .describe('a line of the audit log');

const quota = z.strictObject({
  kind: z.enum(['owner', 'repository']),
  name: z.string(),
  quotaBytes: z.int().min(0).nullable().describe('null: there is none'),
  usedBytes: z.int().min(0),
  state: z.enum(['ok', 'warning', 'exceeded']),
});

const hostKey = z.strictObject({
  type: z.string(),
  fingerprint: z.string(),
  publicKey: z.string().describe('a line as in a .pub file'),
  certificate: z
    .strictObject({
      keyId: z.string(),
      serial: z.string(),
      principals: z.array(z.string()),
      authority: z.string().describe('its fingerprint'),
      validUntil: time.nullable().describe('null: it never ends'),
    })
    .nullable()
    .describe('the one on offer'),
  problem: z.string().nullable().describe('why the file that should hold one is not used'),
});

const storageNode = z.strictObject({
  nodeId: z.string(),
  storeId: z.string().optional().describe('random, of its disk'),
  alive: z.boolean(),
  silent: z.boolean().describe('it announces itself, and does not answer this server'),
  mark: z.enum(['draining', 'removed']).optional(),
  markedAtMs: z
    .number()
    .optional()
    .describe('when it got its mark, milliseconds since the Unix epoch; absent when not known'),
  address: z.string().optional(),
  zone: z.string().optional(),
  weight: z.number().optional(),
  capacityBytes: z.number().optional(),
  usedBytes: z.number().optional(),
  problem: z
    .string()
    .optional()
    .describe('why it takes nothing new although it runs (its disk is full, say), and the remedy'),
  clockApartMs: z
    .number()
    .optional()
    .describe("its clock is ahead of this server's by so much; absent while they are together"),
  copies: z.int(),
});

const marked = z.strictObject({
  node: z.strictObject({
    nodeId: z.string(),
    mark: z.enum(['draining', 'removed']).nullable(),
  }),
});

const copy = z.strictObject({
  nodeId: z.string(),
  storeId: z.string(),
  role: z.enum(['voter', 'learner', 'reader']),
  declared: z.enum(['down', 'stale']).optional(),
  alive: z.boolean(),
  generation: z.int().optional(),
  lag: z.int().optional().describe('generations behind the head'),
  sound: z.boolean().optional().describe('its refs are those of the head'),
  frozen: z.string().optional().describe('why the store neither serves nor changes it'),
});

const pushStory = z.strictObject({
  pushId: z.string(),
  repositoryId: z.string(),
  repository: z.string().optional().describe('its name now'),
  actor: z.string(),
  frontEnd: z.string(),
  steps: z.array(
    z.strictObject({
      step: z.string(),
      atMs: z.number().describe('milliseconds since the Unix epoch'),
      nodeId: z.string().optional(),
      detail: z.string().optional(),
    }),
  ),
});

/** By `Endpoint.action`. */
export const answers: Readonly<Record<string, z.ZodType>> = {
  'user.list': z.strictObject({ users: z.array(user), next }),
  'user.create': z.strictObject({ user }),
  'user.change': z.strictObject({ user }),
  'key.list': z.strictObject({ keys: z.array(key), next }),
  'key.add': z.strictObject({ key }),
  'key.remove': z.strictObject({ removed: z.string() }),
  'token.list': z.strictObject({ tokens: z.array(token), next }),
  'token.create': z.strictObject({ token, secret: z.string().describe('shown this once') }),
  'token.revoke': z.strictObject({ revoked: z.string() }),
  'repository.list': z.strictObject({ repositories: z.array(repository), next }),
  'repository.create': z.strictObject({ repository }),
  'repository.fork': z.strictObject({ repository }),
  'repository.show': z.strictObject({ repository: shown }),
  'repository.set': z.strictObject({ repository: administered }),
  'repository.set-head': z.strictObject({ head: z.string() }),
  'repository.grant': z.strictObject({ repository: administered }),
  'repository.revoke': z.strictObject({ repository: administered }),
  'repository.rename': z.strictObject({ repository }),
  'repository.delete': z.strictObject({
    deleted: z.string(),
    // Of what was kept about it: deploy keys, rules, hooks, quota.
    cleanUp: z.enum(['done', 'goes on']),
  }),
  'repository.replicas': z.strictObject({ replicas: z.array(copy), next }),
  'repository.move': z.strictObject({
    repository: z.strictObject({ name: z.string(), nodes: z.array(z.string()).nullable() }),
  }),
  'node.list': z.strictObject({
    nodes: z.array(storageNode),
    replicationFactor: z.int().describe('copies that a repository is to have'),
    next,
  }),
  'node.drain': marked,
  'node.undrain': marked,
  'node.remove': marked,
  'push.explain': z.strictObject({ push: pushStory }),
  'webhook.list': z.strictObject({ webhooks: z.array(webhook), next }),
  'webhook.add': z.strictObject({
    webhook,
    secret: z.string().optional().describe('made here, unless one came along; shown this once'),
  }),
  'webhook.change': z.strictObject({ webhook }),
  'webhook.rotate-secret': z.strictObject({
    webhook,
    secret: z.string().optional().describe('made here, unless one came along; shown this once'),
  }),
  'webhook.remove': z.strictObject({ removed: z.string() }),
  'webhook.test': z.strictObject({ delivery }),
  'webhook.deliveries': z.strictObject({ deliveries: z.array(delivery), next }),
  'webhook.delivery': z.strictObject({ delivery: delivery.extend({ body: z.string() }) }),
  'webhook.redeliver': z.strictObject({ delivery }),
  'quota.list': z.strictObject({
    quotas: z.array(quota),
    next,
    promisedBytes: z.int().min(0),
    mayPromiseBytes: z.int().min(0),
  }),
  'quota.show': z.strictObject({ quota }),
  'quota.set': z.strictObject({ quota }),
  'quota.remove': z.strictObject({ removed: z.string() }),
  'audit.list': z.strictObject({ events: z.array(auditEvent), next }),
  status: z.looseObject({ version: z.string(), node: z.string(), startedAt: time }),
  'host-key.list': z.strictObject({ hostKeys: z.array(hostKey), next }),
  'lock.list': z.strictObject({ locks: z.array(z.looseObject({})), next }),
};

/** The body of every failed answer (RFC 9457); `error-map.ts` makes it. */
export const problem = z.strictObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  instance: z.string().describe('the request id'),
  code: z.string(),
  details: z.record(z.string(), z.unknown()),
});
