import { z } from 'zod';
import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { prefixEnd } from '../../backends/contract/keys.js';
import { storedObject } from '../../backends/contract/stored-object.js';

/** What is stored under `users/`, `keys/` and `tokens/`: JSON, checked on every read. What is changed in part keeps fields of later versions. */

export const userRecord = storedObject({
  name: z.string(),
  admin: z.boolean(),
  disabled: z.boolean(),
  canCreate: z.boolean(),
  createdAtMs: z.number(),
});

export const sshKeyRecord = z.object({
  fingerprint: z.string(),
  user: z.string(),
  type: z.string(),
  comment: z.string(),
  /** Wire format in base64: the fingerprint finds the record, this decides. */
  blob: z.string(),
  createdAtMs: z.number(),
});

/** Under `keys/` like the keys of users, so that a key is one or the other. */
export const deployKeyRecord = z.object({
  fingerprint: z.string(),
  repositoryId: z.string(),
  write: z.boolean(),
  type: z.string(),
  comment: z.string(),
  blob: z.string(),
  createdAtMs: z.number(),
});

export const anyKeyRecord = z.union([sshKeyRecord, deployKeyRecord]);

export const tokenUseRecord = z.object({ atMs: z.number() });

export const tokenRecord = z.object({
  id: z.string(),
  /** SHA-256 of the secret, hexadecimal; also the record's key. */
  hash: z.string(),
  user: z.string(),
  name: z.string(),
  scope: z.enum(['read', 'write', 'admin']),
  /** null: every repository. */
  repositoryPattern: z.string().nullable(),
  createdAtMs: z.number(),
  /** null: never. */
  expiresAtMs: z.number().nullable(),
});

export type UserRecord = z.infer<typeof userRecord>;
export type SshKeyRecord = z.infer<typeof sshKeyRecord>;
export type DeployKeyRecord = z.infer<typeof deployKeyRecord>;
export type AnyKeyRecord = z.infer<typeof anyKeyRecord>;
export type TokenRecord = z.infer<typeof tokenRecord>;

export function isDeployKey(record: AnyKeyRecord): record is DeployKeyRecord {
  return 'repositoryId' in record;
}

export function isUserKey(record: AnyKeyRecord): record is SshKeyRecord {
  return 'user' in record;
}

/**
 * Decodes with one schema, and remembers what it decoded: the embedded coordinator gives the same entry, as an object,
 * for as long as it does not change. What is answered is shared, and must not be changed.
 */
export function rememberingDecoder<T>(schema: z.ZodType<T>): (entry: KeyValue) => T {
  const known = new WeakMap<KeyValue, T>();
  return (entry) => {
    const remembered = known.get(entry);
    if (remembered !== undefined) return remembered;
    const decoded = decodeRecord(schema, entry);
    known.set(entry, decoded);
    return decoded;
  };
}

/** Throws `data-corrupt` for a value that is not what its key promises. */
export function decodeRecord<T>(schema: z.ZodType<T>, entry: KeyValue): T {
  const parsed = schema.safeParse(parseJson(entry.value));
  if (parsed.success) return parsed.data;
  throw new QuorateError('data-corrupt', 'an account record is damaged', {
    details: { kind: entry.key.split('/')[0], revision: entry.modRevision },
    cause: parsed.error,
  });
}

export function encodeRecord(record: object): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** Entries per range read: far below what a reply can hold, and few round trips for thousands of users. */
const pageSize = 500;

/** All entries whose key starts with `prefix`, in key order. */
export async function readAll(
  coordinator: Coordinator,
  prefix: string,
): Promise<readonly KeyValue[]> {
  const entries: KeyValue[] = [];
  let start = prefix;
  for (;;) {
    const page = await coordinator.range(start, { rangeEnd: prefixEnd(prefix), limit: pageSize });
    entries.push(...page.entries);
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) return entries;
    // The next key in bytewise order.
    start = `${last.key}\0`;
  }
}

function parseJson(value: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(value).toString('utf8'));
  } catch {
    return undefined;
  }
}
