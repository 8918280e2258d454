import assert from 'node:assert/strict';
import { z } from 'zod';
import { parseInput, type Endpoint } from './endpoint.js';
import { pageLimit } from './routes/fields.js';

/** How the entries of a list are told apart and ordered: by these fields, which together are in no two entries. */
interface ListShape {
  /** Name of the list in the answer. */
  readonly rows: string;
  readonly key: readonly string[];
}

/**
 * Lists that are read whole from the coordinator, by action: thousands of entries at most. Repositories and the audit
 * log page by themselves.
 */
const lists: Readonly<Record<string, ListShape>> = {
  'user.list': { rows: 'users', key: ['name'] },
  'key.list': { rows: 'keys', key: ['fingerprint'] },
  'token.list': { rows: 'tokens', key: ['id'] },
  'group.list': { rows: 'groups', key: ['name'] },
  'grant.list': { rows: 'grants', key: ['pattern', 'subject'] },
  'authority.list': { rows: 'authorities', key: ['fingerprint'] },
  'revocation.list': { rows: 'revocations', key: ['id'] },
  'issuer.list': { rows: 'issuers', key: ['name'] },
  'deploy-key.list': { rows: 'deployKeys', key: ['fingerprint'] },
  'rule.list': { rows: 'rules', key: ['name'] },
  'webhook.list': { rows: 'webhooks', key: ['id'] },
  'quota.list': { rows: 'quotas', key: ['kind', 'name'] },
  'hook.list': { rows: 'hooks', key: ['stage'] },
  'signing-key.list': { rows: 'signingKeys', key: ['fingerprint', 'user'] },
  'host-key.list': { rows: 'hostKeys', key: ['type'] },
  'node.list': { rows: 'nodes', key: ['nodeId'] },
  'repository.replicas': { rows: 'replicas', key: ['storeId'] },
  'lock.list': { rows: 'locks', key: ['scope', 'repositoryId', 'ref', 'state', 'pushId'] },
};

const pageFields = { after: z.string().max(4096).optional(), limit: pageLimit };
const pageInput = z.strictObject(pageFields);

/** The endpoint with `limit` and `after` in its query and `next` in its answer, if it answers such a list. */
export function withPages(endpoint: Endpoint): Endpoint {
  const list = lists[endpoint.action];
  if (list === undefined) return endpoint;
  return {
    ...endpoint,
    input:
      endpoint.input instanceof z.ZodObject ? endpoint.input.extend(pageFields) : endpoint.input,
    handle: async (call, raw) => {
      const { after, limit, ...rest } = isRecord(raw) ? raw : {};
      const page = parseInput(pageInput, {
        ...(after === undefined ? {} : { after }),
        ...(limit === undefined ? {} : { limit }),
      });
      const reply = await endpoint.handle(call, rest);
      return reply && { ...reply, body: pageOf(reply.body, list, page) };
    },
  };
}

function pageOf(
  body: object,
  { rows, key }: ListShape,
  { after, limit }: z.output<typeof pageInput>,
): object {
  const all: unknown = Object.entries(body).find(([name]) => name === rows)?.[1];
  if (!Array.isArray(all)) throw new Error(`the answer has no ${rows}`);
  const keyed = all
    .map((row: unknown) => ({ row, place: placeOf(row, key) }))
    .filter(({ place }) => after === undefined || place > after)
    .sort((left, right) => (left.place < right.place ? -1 : 1));
  const page = keyed.slice(0, limit);
  const next = keyed.length > limit ? (page.at(-1)?.place ?? null) : null;
  return { ...body, [rows]: page.map(({ row }) => row), next };
}

function placeOf(row: unknown, key: readonly string[]): string {
  const fields = isRecord(row) ? row : {};
  const parts = key.map((name) => fields[name]);
  // Without what tells them apart, entries would be left out of later pages.
  assert(
    parts.some((part) => typeof part === 'string'),
    `entries have ${key.join(' and ')}`,
  );
  return parts.map((part) => (typeof part === 'string' ? part : '')).join(' ');
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
