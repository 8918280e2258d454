import { z } from 'zod';

/** What is stored under `authorities/` and `revocations/`: JSON, checked on every read. */

export const authorityRecord = z.object({
  fingerprint: z.string(),
  type: z.string(),
  comment: z.string(),
  /** Wire format in base64. */
  blob: z.string(),
  createdAtMs: z.number(),
});

export const revocationRecord = z.object({
  id: z.string(),
  kind: z.enum(['serial', 'key-id', 'key']),
  value: z.string(),
  /** Fingerprint of the authority whose serial number it is; null for the other kinds. */
  authority: z.string().nullable(),
  createdAtMs: z.number(),
});

export type AuthorityRecord = z.infer<typeof authorityRecord>;
export type RevocationRecord = z.infer<typeof revocationRecord>;
