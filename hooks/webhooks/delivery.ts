import { createHash } from 'node:crypto';
import { z } from 'zod';
import { storedObject } from '../../backends/contract/stored-object.js';
import { type DeliveryEvent, webhookEvents } from './webhook.js';

/** How an attempt ended. Closed: these are labels of metrics. */
export const attemptOutcomes = [
  'delivered', // 2xx
  'status', // any other status, but for
  'redirect', // 3xx: not followed, since only the URL itself was judged
  'forbidden-address',
  'dns',
  'connection',
  'tls',
  'protocol', // no HTTP, or headers that are too large
  'timeout',
] as const;
export type AttemptOutcome = (typeof attemptOutcomes)[number];

const attempt = z.object({
  atMs: z.number(),
  durationMs: z.number(),
  outcome: z.enum(attemptOutcomes),
  /** Of the answer. */
  status: z.int().optional(),
  /** What went wrong, in a sentence of ours. */
  problem: z.string().optional(),
  /** The beginning of the answer's body. */
  response: z.string().optional(),
});
export type Attempt = z.infer<typeof attempt>;

/** Stored under `webhooks/deliveries/`; the body is beside it, since it never changes. */
export const deliveryRecord = storedObject({
  event: z.enum([...webhookEvents, 'ping']),
  /** Of the webhook: `server`, or a repository's id. */
  scope: z.union([z.literal('server'), z.object({ repositoryId: z.string() })]),
  /** Name of the repository that it is about, when it happened; null for the ping of a server's webhook. */
  repository: z.string().nullable(),
  /** `dropped`: given up, since too many waited. */
  status: z.enum(['pending', 'delivered', 'failed', 'dropped']),
  createdAtMs: z.number(),
  attempts: z.int().min(0),
  /** The next attempt, while pending. 0: now, also when the receiver is being left alone. */
  dueAtMs: z.number(),
  /** An attempt that fails after this is the last. */
  retryUntilMs: z.number(),
  last: attempt.optional(),
});
export type DeliveryRecord = z.infer<typeof deliveryRecord>;

export interface Delivery extends DeliveryRecord {
  readonly id: string;
}

/** What is put into the queue of one webhook. */
export interface NewDelivery {
  readonly id: string;
  readonly event: DeliveryEvent;
  readonly repository: string | null;
  readonly body: Uint8Array;
  readonly createdAtMs: number;
  readonly dueAtMs: number;
  readonly retryUntilMs: number;
}

/**
 * The id of a delivery: ordered by time, and the same whenever the same event is queued for the same webhook again,
 * so that what is queued at least once is stored once. 12 and 16 hexadecimal digits.
 */
export function deliveryId(
  atMs: number,
  of: { readonly webhook: string; readonly event: DeliveryEvent; readonly cause: string },
): string {
  const time = Math.floor(atMs).toString(16).padStart(12, '0');
  const hash = createHash('sha256').update(JSON.stringify([of.webhook, of.event, of.cause]));
  return `${time}-${hash.digest('hex').slice(0, 16)}`;
}

export function isDeliveryId(text: string): boolean {
  return /^[0-9a-f]{12}-[0-9a-f]{16}$/.test(text);
}
