import type { RefCommand } from '../../backends/contract/objects.js';
import type { RepositoryEvent } from '../../backends/contract/pipeline.js';
import type { LogEntry } from '../../backends/contract/repository.js';
import type { DeliveryEvent, WebhookEvent } from './webhook.js';

/*
 * Bodies of deliveries; docs/webhooks.md says what receivers may rely on. Fields are added, never changed.
 */

/** Of the updates in one body, as JSON. What is beyond is counted, not listed. */
const maxUpdatesBytes = 48 * 1024;
/** Of the push options, of which a log entry holds 16 KiB. */
const maxPushOptions = 64;

/** One event, ready for each webhook that wants it. */
export interface Occurrence {
  readonly event: DeliveryEvent;
  /** Names what happened for ever: with webhook and event it makes the delivery's id. */
  readonly cause: string;
  readonly atMs: number;
  readonly repository: { readonly id: string; readonly name: string } | null;
  /** Besides what every body has. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** `publicUrl`: under which the server is reached; undefined when nobody said. */
export function bodyOf(
  occurrence: Occurrence,
  { delivery, publicUrl }: { readonly delivery: string; readonly publicUrl: string | undefined },
): Uint8Array {
  const { event, atMs, repository, fields } = occurrence;
  const url =
    publicUrl === undefined || repository === null
      ? {}
      : { url: `${publicUrl}/${repository.name}.git` };
  return Buffer.from(
    JSON.stringify({
      event,
      delivery,
      at: new Date(atMs).toISOString(),
      repository: repository === null ? null : { ...repository, ...url },
      ...fields,
    }),
  );
}

/** What a committed entry is told as: a push, with its created and its deleted refs once more; or a new HEAD. */
export function occurrencesOf(
  repository: { readonly id: string; readonly name: string },
  entry: LogEntry,
): readonly Occurrence[] {
  const common = { cause: entry.pushId, atMs: entry.atMs, repository };
  const what = {
    pusher: { name: entry.actor },
    generation: entry.generation,
    // What a read can ask for at least.
    readToken: String(entry.generation),
  };
  if (entry.head !== undefined) {
    const fields = { action: 'head-changed', ...what, old: entry.head.old, new: entry.head.new };
    return [{ ...common, event: 'repository', fields }];
  }
  const push = { ...what, pushId: entry.pushId };
  // More refs than a log entry holds, and their process died: something was pushed, and nobody knows what.
  const known = entry.updates.length > 0;
  const tellings = (['push', 'create', 'delete'] as const).map((event) => ({
    event,
    updates: entry.updates.filter((update) => isAbout(event, update)),
  }));
  return tellings
    .filter(({ updates }) => !known || updates.length > 0)
    .map(({ event, updates }) => ({
      ...common,
      event,
      fields: {
        ...push,
        ...listed(updates, known),
        ...(event === 'push' ? pushOptions(entry.pushOptions ?? []) : {}),
      },
    }));
}

export function occurrenceOfChange(event: RepositoryEvent): Occurrence {
  const { repositoryId, name, epoch, actor, atMs, change } = event;
  return {
    event: 'repository',
    cause: `${repositoryId} ${epoch}`,
    atMs,
    repository: { id: repositoryId, name },
    fields: { ...change, pusher: { name: actor } },
  };
}

/** `create` and `delete` are about branches and tags; `push` is about everything. */
function isAbout(event: WebhookEvent, { ref, oldOid, newOid }: RefCommand): boolean {
  if (event === 'push') return true;
  const created = isZero(oldOid);
  return kindOf(ref) !== 'other' && (event === 'create' ? created : isZero(newOid));
}

function listed(updates: readonly RefCommand[], known: boolean): Record<string, unknown> {
  const shown: object[] = [];
  let bytes = 0;
  for (const { ref, oldOid, newOid } of updates) {
    const change = isZero(oldOid) ? 'create' : isZero(newOid) ? 'delete' : 'update';
    const update = { ref, kind: kindOf(ref), change, old: oldOid, new: newOid };
    bytes += Buffer.byteLength(JSON.stringify(update)) + 1;
    if (bytes > maxUpdatesBytes) break;
    shown.push(update);
  }
  return {
    updates: shown,
    updateCount: known ? updates.length : null,
    complete: known && shown.length === updates.length,
  };
}

function pushOptions(options: readonly string[]): Record<string, unknown> {
  return options.length === 0 ? {} : { pushOptions: options.slice(0, maxPushOptions) };
}

function kindOf(ref: string): 'branch' | 'tag' | 'other' {
  if (ref.startsWith('refs/heads/')) return 'branch';
  return ref.startsWith('refs/tags/') ? 'tag' : 'other';
}

function isZero(oid: string): boolean {
  return /^0+$/.test(oid);
}
