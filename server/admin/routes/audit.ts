import { z } from 'zod';
import type { Clock } from '../../../backends/contract/environment.js';
import { QuorateError, retrySoon } from '../../../backends/contract/errors.js';
import type { AuditFilter } from '../../observe/audit-trail.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import type { AdminApiOptions } from '../options.js';
import { requireServerAdmin } from '../permissions.js';
import { pageLimit } from './fields.js';

const instant = z.iso
  .datetime({ offset: true, error: 'has to be a time like 2026-11-21T08:00:00Z' })
  .transform((text) => Date.parse(text));

const filterFields = {
  repository: z.string().min(1).max(1024).optional(),
  user: z.string().min(1).max(128).optional(),
  event: z
    .enum(['authentication', 'access', 'limit', 'push', 'admin'], {
      error: 'has to be authentication, access, limit, push or admin',
    })
    .optional(),
  outcome: z
    .enum(['ok', 'refused', 'error'], { error: 'has to be ok, refused or error' })
    .optional(),
};

const place = z.string().max(64);

/** Each reads the log's end again and again. */
const maxFollowers = 16;
/** What is new is looked for so often. */
const lookEveryMs = 500;

type AuditOptions = Pick<
  AdminApiOptions,
  'audit' | 'auditTrail' | 'auditTail' | 'clock' | 'draining'
>;

/** The audit log, for server administrators: it says who came from where. */
export function auditEndpoints(options: AuditOptions): Endpoint[] {
  const { audit, auditTrail } = options;
  const list = endpoint({
    method: 'get',
    path: '/audit',
    action: 'audit.list',
    input: z.strictObject({
      ...filterFields,
      since: instant.optional(),
      until: instant.optional(),
      after: place.optional(),
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

  let followers = 0;
  const follow = endpoint({
    method: 'get',
    path: '/audit/follow',
    action: 'audit.follow',
    input: z.strictObject({
      ...filterFields,
      last: z.coerce.number().pipe(z.int().min(0).max(1000)).default(0),
      from: place.optional(),
    }),
    run: async (call, { last, from, ...filter }) => {
      requireServerAdmin(call.principal, 'reading the audit log');
      if (followers >= maxFollowers) {
        throw new QuorateError(
          'resource-exhausted',
          `the audit log has ${maxFollowers} followers`,
          {
            details: { ...retrySoon },
          },
        );
      }
      followers += 1;
      try {
        await audit.flush().catch(() => undefined);
        const position = from ?? (await tellLast(options, call, { last, filter }));
        const end = await call.events.during(tellNews(options, call, { position, filter }));
        await call.events.end({ result: { position: end } });
      } finally {
        followers -= 1;
      }
      return undefined;
    },
  });
  return [list, follow];
}

/** The last events that fit, oldest first. Answers the place after them. */
async function tellLast(
  { auditTrail, auditTail }: AuditOptions,
  call: Call,
  { last, filter }: { readonly last: number; readonly filter: AuditFilter },
): Promise<string> {
  const end = await auditTail.end();
  const found: object[] = [];
  let after: string | undefined = end;
  while (last > found.length && after !== undefined) {
    const page: Awaited<ReturnType<typeof auditTrail.query>> = await auditTrail.query(filter, {
      limit: last - found.length,
      after,
      signal: call.signal,
    });
    found.push(...page.events);
    after = page.next;
  }
  for (const event of found.toReversed()) await call.events.event({ event });
  return end;
}

/** What is written from now on, until the client leaves or the server drains. Answers the place that was reached. */
async function tellNews(
  { auditTail, clock, draining }: AuditOptions & { readonly clock: Clock },
  call: Call,
  { position, filter }: { readonly position: string; readonly filter: AuditFilter },
): Promise<string> {
  const over = AbortSignal.any([call.signal, draining]);
  let reached = position;
  await call.events.event({ position });
  while (!over.aborted) {
    const news = await auditTail.since(reached, filter);
    for (const event of news.events) await call.events.event({ event });
    if (news.position !== reached) await call.events.event({ position: news.position });
    reached = news.position;
    if (news.atEnd) await clock.sleep(lookEveryMs, over);
  }
  return reached;
}
