import { z } from 'zod';
import { storedObject } from '../../backends/contract/stored-object.js';

/** What is stored under `groups/` and `grants/`: JSON, checked on every read. */

export const groupRecord = storedObject({
  name: z.string(),
  /** User names, sorted. */
  members: z.array(z.string()),
  createdAtMs: z.number(),
  /** Kept so that the name is not given again. */
  removed: z.boolean(),
});

export const grantRecord = z.object({
  pattern: z.string(),
  subject: z.string(),
  level: z.enum(['read', 'write', 'admin']),
});

export type GroupRecord = z.infer<typeof groupRecord>;
export type GrantRecord = z.infer<typeof grantRecord>;
