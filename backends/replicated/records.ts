import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { prefixEnd } from '../contract/keys.js';
import type { RepositoryEvent } from '../contract/pipeline.js';
import type { HeadRecord, LogEntry, Repository } from '../contract/repository.js';
import type { StoredSettings } from '../contract/settings.js';
import { storedObject } from '../contract/stored-object.js';

/**
 * JSON forms of what the coordinator keeps about repositories. Read through these only: what is stored is validated, but
 * for fields and settings that a later version put.
 */

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
const head = z.union([z.object({ symref: z.string() }), z.object({ oid })]);

const voterSchema = storedObject({
  nodeId: z.string(),
  storeId: z.string(),
  joinedEpoch: z.int(),
  /**
   * Declared by a change of configuration: `down` is not waited for by `strong`; `stale` is too far behind to count,
   * to be waited for or to be read. Absent: in good standing.
   */
  state: z.enum(['down', 'stale']).exactOptional(),
});
export type Voter = z.infer<typeof voterSchema>;

const settings: z.ZodType<StoredSettings> = z.record(z.string(), z.string());

const repositorySchema = storedObject({
  name: z.string(),
  objectFormat: z.enum(['sha1', 'sha256']),
  settings,
  access: storedObject({
    public: z.boolean(),
    grants: z.record(z.string(), z.enum(['read', 'write', 'admin'])),
  }),
  createdAtMs: z.number(),
  epoch: z.int(),
  /** `creating` until its files are on disk and its name is taken; `deleted` is the tombstone. */
  state: z.enum(['creating', 'active', 'deleted']),
  voters: z.array(voterSchema),
  learners: z.array(voterSchema),
  /**
   * Copies beyond the voters that are only read, while many read. Like learners they count for nothing and hold up
   * nothing; unlike these they never become voters by themselves. `stale` until they are filled.
   */
  readers: z.array(voterSchema).exactOptional(),
  /** The object pool that it shares with its forks. */
  pool: z.string().exactOptional(),
  /** Nodes that somebody asked for it to be on (`quorate repo move`); absent: wherever placement puts it. */
  target: z.array(z.string()).exactOptional(),
  /** Front-end that is creating it (`frontEnds/`), while the state is `creating`. */
  creator: z.string().exactOptional(),
  /**
   * Of a tombstone that somebody put: the cluster's incarnation in which that was (`incarnationName`). While it is this
   * one, nobody has put an older copy of the coordinator back since: whatever stores hold, they held when it was deleted.
   */
  deletedIn: z.string().exactOptional(),
});

export type RepositoryRecord = Repository &
  Omit<z.infer<typeof repositorySchema>, keyof Repository>;

/** Every copy there is, whatever it is for. */
export function copiesOf({
  voters,
  learners,
  readers = [],
}: Pick<RepositoryRecord, 'voters' | 'learners' | 'readers'>): Voter[] {
  return [...voters, ...learners, ...readers];
}

const poolSchema = storedObject({
  /** `deleted` is the tombstone: nobody borrows from it any more. */
  state: z.enum(['active', 'deleted']),
  /** Stores that have its files. */
  voters: z.array(voterSchema),
  createdAtMs: z.number(),
});
export type PoolRecord = z.infer<typeof poolSchema>;

const headSchema = z.object({ generation: z.int().min(0), digest: z.string() });

const logEntrySchema = z.object({
  generation: z.int().min(1),
  pushId: z.string(),
  updates: z.array(z.object({ ref: z.string(), oldOid: oid, newOid: oid })),
  updatesDigest: z.string().optional(),
  head: z.object({ old: head, new: head }).optional(),
  after: z.object({ generation: z.int().min(0), digest: z.string() }).optional(),
  prepared: z.array(z.string()),
  digest: z.string(),
  pushOptions: z.array(z.string()).optional(),
  actor: z.string(),
  atMs: z.number(),
});

const repositoryEventSchema = z.object({
  repositoryId: z.string(),
  name: z.string(),
  epoch: z.int().min(1),
  actor: z.string(),
  atMs: z.number(),
  change: z.discriminatedUnion('action', [
    z.object({ action: z.literal('created') }),
    z.object({ action: z.literal('renamed'), from: z.string() }),
    z.object({ action: z.literal('deleted') }),
    z.object({
      action: z.literal('changed'),
      public: z.boolean().optional(),
      settings: z.record(z.string(), z.string().nullable()).optional(),
    }),
  ]),
});

const outboxSchema = z.object({
  generation: z.int().min(1),
  /** Whose it is to do what follows the commit, while `frontEnds/{frontEnd}` exists. */
  frontEnd: z.string().exactOptional(),
});
export type OutboxRecord = z.infer<typeof outboxSchema>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A record as the bytes that the coordinator keeps. */
export function encodeRecord(record: object): Uint8Array {
  return encoder.encode(JSON.stringify(record));
}

function decode<T>(schema: z.ZodType<T>, kv: KeyValue): T {
  let json: unknown;
  try {
    json = JSON.parse(decoder.decode(kv.value));
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${kv.key} is not JSON`, {
      cause,
    });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new QuorateError(
    'data-corrupt',
    `the coordinator's record ${kv.key} is damaged, or of a later version: then upgrade this server`,
    { details: { issues: parsed.error.issues.length }, cause: parsed.error },
  );
}

/**
 * A decoder that remembers what it decoded: an entry of the same key and revision has the same bytes. Every request
 * reads its repository's record anew, and it rarely changes. For the entries of one coordinator only. What it answers
 * is shared, and must not be changed by whoever gets it; the least recently used go first.
 */
export function rememberingDecoder<T>(
  decodeEntry: (kv: KeyValue) => T,
  maxEntries: number,
): (kv: KeyValue) => T {
  const known = new Map<string, { readonly modRevision: number; readonly decoded: T }>();
  return (kv) => {
    const entry = known.get(kv.key);
    // Newest last; the map is only touched when it is full enough for the order to matter.
    if (entry !== undefined && entry.modRevision === kv.modRevision) {
      if (known.size > maxEntries / 2) {
        known.delete(kv.key);
        known.set(kv.key, entry);
      }
      return entry.decoded;
    }
    const decoded = decodeEntry(kv);
    known.delete(kv.key);
    known.set(kv.key, { modRevision: kv.modRevision, decoded });
    if (known.size > maxEntries) {
      const [oldest] = known.keys();
      if (oldest !== undefined) known.delete(oldest);
    }
    return decoded;
  };
}

/** Records that one remembering decoder keeps: some kilobytes each. */
export const rememberedRecords = 2000;

export function decodeRepository(kv: KeyValue): RepositoryRecord {
  return { ...decode(repositorySchema, kv), id: kv.key.slice(kv.key.indexOf('/') + 1) };
}

/** The name of a repository now, or undefined when it is gone. */
export async function repositoryName(
  coordinator: Coordinator,
  id: string,
): Promise<string | undefined> {
  const kv = await coordinator.get(keys.repo(id));
  const record = kv === undefined ? undefined : decodeRepository(kv);
  return record?.state === 'active' ? record.name : undefined;
}

export function encodeRepository(record: RepositoryRecord): Uint8Array {
  const { id: _id, ...stored } = record;
  return encodeRecord(stored);
}

export function decodePool(kv: KeyValue): PoolRecord {
  return decode(poolSchema, kv);
}

export function decodeHead(kv: KeyValue): HeadRecord {
  return decode(headSchema, kv);
}

export function decodeLogEntry(kv: KeyValue): LogEntry {
  const {
    updatesDigest,
    head: headChange,
    pushOptions,
    after,
    ...entry
  } = decode(logEntrySchema, kv);
  return {
    ...entry,
    ...(after === undefined ? {} : { after }),
    ...(updatesDigest === undefined ? {} : { updatesDigest }),
    ...(headChange === undefined ? {} : { head: headChange }),
    ...(pushOptions === undefined ? {} : { pushOptions }),
  };
}

export function decodeRepositoryEvent(kv: KeyValue): RepositoryEvent {
  return decode(repositoryEventSchema, kv);
}

export function decodeOutbox(kv: KeyValue): OutboxRecord {
  return decode(outboxSchema, kv);
}

/** Every entry under a prefix, page by page, so that no single request grows with the number of repositories. */
export async function* scan(
  coordinator: Coordinator,
  prefix: string,
  options: { readonly keysOnly?: boolean } = {},
): AsyncGenerator<KeyValue> {
  const rangeEnd = prefixEnd(prefix);
  let from = prefix;
  for (;;) {
    const page = await coordinator.range(from, { rangeEnd, limit: 500, ...options });
    yield* page.entries;
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) return;
    from = `${last.key}\0`;
  }
}
