import { z } from 'zod';
import { endpoint, type Endpoint } from '../endpoint.js';
import type { AdminApiOptions } from '../options.js';
import { requireServerAdmin } from '../permissions.js';
import { pageLimit } from './fields.js';

const instant = z.iso
  .datetime({ offset: true, error: 'has to be a time like 2026-11-21T08:00:00Z' })
  .transform((text) => Date.parse(text));

/** The audit log, for server administrators: it says who came from where. */
export function auditEndpoints({
  audit,
  auditTrail,
}: Pick<AdminApiOptions, 'audit' | 'auditTrail'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/audit',
    action: 'audit.list',
    input: z.strictObject({
      repository: z.string().min(1).max(1024).optional(),
      user: z.string().min(1).max(128).optional(),
      event: z.string().min(1).max(64).optional(),
      outcome: z
        .enum(['ok', 'refused', 'error'], { error: 'has to be ok, refused or error' })
        .optional(),
      since: instant.optional(),
      until: instant.optional(),
      after: z.string().max(64).optional(),
      limit: pageLimit,
    }),
    run: async (call, { since, until, after, limit, ...filter }) => {
      requireServerAdmin(call.principal, 'reading the audit log');
      // What happened before is in the answer; while the disk fails, what it has.
      await audit.flush().catch(() => undefined);
      const page = await auditTrail.query(
        { ...filter, sinceMs: since, untilMs: until },
        { limit, after, signal: call.signal },
      );
      return { status: 200, body: { events: page.events, next: page.next ?? null } };
    },
  });
  return [list];
}
