import { z } from 'zod';
import type { KeyValue } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';

/** What is stored under `users/`, `keys/` and `tokens/`: JSON, checked on every read. Unknown fields are dropped. */

export const userRecord = z.object({
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
export type TokenRecord = z.infer<typeof tokenRecord>;

/** Throws `data-corrupt` for a value that is not what its key promises. */
export function decodeRecord<T>(schema: z.ZodType<T>, entry: KeyValue): T {
  const parsed = schema.safeParse(parseJson(entry.value));
  if (parsed.success) return parsed.data;
  throw new QuorateError('data-corrupt', 'an account record is damaged', {
    details: { kind: entry.key.split('/')[0], revision: entry.modRevision },
    cause: parsed.error,
  });
}

export function encodeRecord(record: UserRecord | SshKeyRecord | TokenRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

function parseJson(value: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(value).toString('utf8'));
  } catch {
    return undefined;
  }
}
