import { z } from 'zod';
import { storedObject } from '../../backends/contract/stored-object.js';

/** What a webhook may be told of. `ping` comes from tests only. */
export const webhookEvents = ['push', 'create', 'delete', 'repository'] as const;
export type WebhookEvent = (typeof webhookEvents)[number];
export type DeliveryEvent = WebhookEvent | 'ping';

/** Webhooks of one repository by its id, or of the whole server: those hear of all repositories. */
export type WebhookScope = { readonly repositoryId: string } | 'server';

/** The scope as part of a key: the directory backend's ids are paths. */
export function scopeKey(scope: WebhookScope): string {
  return scope === 'server' ? 'server' : `repositories/${encodeURIComponent(scope.repositoryId)}`;
}

/** What everybody who may see webhooks sees of one: not its secret. */
export interface Webhook {
  /** Sixteen hexadecimal digits. */
  readonly id: string;
  readonly url: string;
  readonly events: readonly WebhookEvent[];
  /** Who added it. */
  readonly by: string;
  readonly createdAtMs: number;
}

/** What can be changed of one; what is absent stays. */
export interface WebhookChange {
  readonly url?: string | undefined;
  readonly events?: readonly WebhookEvent[] | undefined;
  readonly secret?: string | undefined;
}

/** Stored under `webhooks/hooks/`. */
export const webhookRecord = storedObject({
  url: z.string(),
  events: z.array(z.enum(webhookEvents)),
  /** As it is, not hashed: every delivery is signed with it. Leaves the store for `signature.ts` only. */
  secret: z.string(),
  by: z.string(),
  createdAtMs: z.number(),
  /** Its repository is gone: it is told what it waits for, and nothing new. */
  retired: z.boolean().optional(),
});

export type WebhookRecord = z.infer<typeof webhookRecord>;

/** A webhook with its secret, for those who send. */
export interface Subscriber extends WebhookRecord {
  readonly id: string;
  readonly scope: WebhookScope;
}

const maxUrlLength = 2048;
const minSecretLength = 16;
const maxSecretLength = 256;

/** Why this cannot be where deliveries go, or undefined when it can. What its name resolves to is judged at connect. */
export function webhookUrlProblem(text: string): string | undefined {
  if (text.length > maxUrlLength) return `is longer than ${maxUrlLength} characters`;
  if (!URL.canParse(text)) return 'is no URL';
  const url = new URL(text);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    return 'has to start with https:// or http://';
  }
  // They would be seen by everybody who lists webhooks; the signature says who sends.
  if (url.username !== '' || url.password !== '') return 'must not hold a user name or password';
  if (url.hash !== '') return 'must not have a fragment (#...)';
  return undefined;
}

export function webhookSecretProblem(secret: string): string | undefined {
  if (secret.length < minSecretLength || secret.length > maxSecretLength) {
    return `has to be ${minSecretLength} to ${maxSecretLength} characters long`;
  }
  return /^[\x21-\x7e]+$/.test(secret) ? undefined : 'has to be of printable ASCII without spaces';
}

/** A URL as logs may show it: paths and queries of webhooks hold secrets more often than not. */
export function shownOrigin(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : 'invalid';
}
