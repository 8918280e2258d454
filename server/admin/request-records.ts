import { z } from 'zod';
import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { asQuorateError, type ErrorCode, QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import { decodeRecord, encodeRecord } from '../auth/account-records.js';
import type { Reply } from './endpoint.js';

/** A client that tries again does so within minutes. */
export const rememberedMs = 3_600_000;
/** Answers are some hundred bytes; a larger one is remembered as given, and not kept. */
const maxAnswerBytes = 8 * 1024;
/** 80 MB with the largest answers, 5 MB with usual ones. Beyond, the oldest are forgotten. */
const maxRemembered = 10_000;
/** How often one process looks for what is too old. */
const sweepEveryMs = 600_000;
const pageSize = 200;
/** Each takes a compare and an operation. */
const deletesAtOnce = 50;
/** Others that begin with the same key at the same moment. */
const maxRaces = 8;

/** After these a request may be tried again; after others somebody has to look. */
const nothingHappened: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'unauthenticated',
  'permission-denied',
  'not-found',
  'already-exists',
  'failed-precondition',
  'aborted',
  'resource-exhausted',
  'unavailable',
  'unimplemented',
]);

/** Stored under `admin-requests/`. */
const requestRecord = z.object({
  /** Digest of what was asked. */
  request: z.string(),
  /** Request id of who does it, or did. */
  by: z.string(),
  atMs: z.number(),
  done: z
    .object({
      status: z.union([z.literal(200), z.literal(201)]),
      /** Without what is shown only once. */
      body: z.record(z.string(), z.unknown()),
      /** It is the answer as it was. */
      whole: z.boolean(),
    })
    .nullable(),
});
type RequestRecord = z.infer<typeof requestRecord>;

/** A request that may come again. */
export interface RepeatableRequest {
  /** Of the key and of who sent it, 64 hexadecimal digits. */
  readonly place: string;
  /** Digest of what is asked. */
  readonly request: string;
  readonly requestId: string;
  /** Fields of the answer that are shown once, and kept nowhere. */
  readonly secrets: readonly string[];
}

/**
 * What was asked with an `Idempotency-Key`, for all front-ends and across restarts: in the coordinator, for an hour.
 * A request is written down before it is run, and with its answer afterwards. So one that comes again is never run a
 * second time, also when nobody knows how the first one ended. Secrets are left out.
 */
export class RequestRecords {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #sweptMs: number | undefined;

  constructor(parts: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#coordinator = parts.coordinator;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
  }

  /**
   * The answer of `run`, or the one that was given before. Throws `already-exists` when the key was used for another
   * request, or when the answer cannot be given again; `failed-precondition` while nobody knows how the first one
   * ended. A failure of `run` is forgotten, unless it may have happened all the same.
   */
  async once(
    of: RepeatableRequest,
    run: () => Promise<Reply | undefined>,
  ): Promise<{ readonly reply: Reply | undefined; readonly repeated: boolean }> {
    this.#sweepNowAndThen();
    const key = keys.adminRequest(of.place);
    const begun = await this.#begin(key, of);
    if (typeof begun !== 'number') return { reply: this.#again(begun, of), repeated: true };
    let reply: Reply | undefined;
    try {
      reply = await run();
    } catch (error) {
      if (nothingHappened.has(asQuorateError(error).code)) await this.#forget(key, begun);
      throw error;
    }
    // A stream cannot be told again.
    if (reply === undefined) await this.#forget(key, begun);
    else await this.#finish(key, begun, { of, reply });
    return { reply, repeated: false };
  }

  /** The revision of our own record, or the record of who was first. */
  async #begin(key: string, of: RepeatableRequest): Promise<number | RequestRecord> {
    const own: RequestRecord = {
      request: of.request,
      by: of.requestId,
      atMs: this.#clock.nowMs(),
      done: null,
    };
    let wrote = false;
    for (let race = 0; race < maxRaces; race += 1) {
      const entry = await this.#coordinator.get(key);
      const known = entry && decodeRecord(requestRecord, entry);
      // What this very request wrote, and was not told of.
      const ours = wrote && known?.by === of.requestId && known.done === null;
      if (entry !== undefined && ours) return entry.modRevision;
      if (known !== undefined && !this.#isOld(known)) return known;
      try {
        const { succeeded, revision } = await this.#coordinator.transaction({
          compares: [{ key, target: 'modRevision', op: '=', operand: entry?.modRevision ?? 0 }],
          success: [{ type: 'put', key, value: encodeRecord(own) }],
          failure: [],
        });
        if (succeeded) return revision;
      } catch (error) {
        if (asQuorateError(error).code !== 'outcome-unknown') throw error;
        wrote = true;
      }
    }
    throw new QuorateError('aborted', 'requests with this Idempotency-Key come all at once');
  }

  #again({ request, atMs, done }: RequestRecord, of: RepeatableRequest): Reply {
    if (request !== of.request) throw keyOfAnother();
    if (done === null) {
      throw new QuorateError(
        'failed-precondition',
        'a request with this Idempotency-Key is at work, or its server died before it had an answer: look whether it was done',
        { details: { startedAt: new Date(atMs).toISOString() } },
      );
    }
    if (done.whole) return { status: done.status, body: done.body };
    const what =
      of.secrets.length > 0
        ? `its ${of.secrets.join(', ')} was shown then, and is`
        : 'its answer is';
    throw new QuorateError(
      'already-exists',
      `this was done already, with the same Idempotency-Key; ${what} kept nowhere`,
      { details: { answer: done.body } },
    );
  }

  async #finish(
    key: string,
    begun: number,
    { of, reply }: { readonly of: RepeatableRequest; readonly reply: Reply },
  ): Promise<void> {
    const body = JSON.stringify(reply.body);
    const fields = Object.entries(reply.body).filter(([name]) => !of.secrets.includes(name));
    const kept = Buffer.byteLength(body) <= maxAnswerBytes;
    const whole = kept && fields.length === Object.keys(reply.body).length;
    const done = { status: reply.status, body: kept ? Object.fromEntries(fields) : {}, whole };
    const record: RequestRecord = {
      request: of.request,
      by: of.requestId,
      atMs: this.#clock.nowMs(),
      done,
    };
    // It is done, whether or not this can be written down: then it is not done a second time either.
    await this.#write(key, begun, encodeRecord(record));
  }

  #forget(key: string, begun: number): Promise<void> {
    return this.#write(key, begun, undefined);
  }

  async #write(key: string, begun: number, value: Uint8Array | undefined): Promise<void> {
    try {
      await this.#coordinator.transaction({
        compares: [{ key, target: 'modRevision', op: '=', operand: begun }],
        success: [value === undefined ? { type: 'delete', key } : { type: 'put', key, value }],
        failure: [],
      });
    } catch (error) {
      this.#logger.warn({ component: 'admin', err: error }, 'how a request ended was not noted');
    }
  }

  #isOld({ atMs }: RequestRecord): boolean {
    return this.#clock.nowMs() - atMs >= rememberedMs;
  }

  #sweepNowAndThen(): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#sweptMs !== undefined && nowMs - this.#sweptMs < sweepEveryMs) return;
    this.#sweptMs = nowMs;
    this.sweep().catch((error: unknown) => {
      this.#logger.warn({ component: 'admin', err: error }, 'old requests were not forgotten');
    });
  }

  /** Forgets what is too old, and the oldest of what is too much. */
  async sweep(): Promise<void> {
    const end = prefixEnd(keys.adminRequests);
    const young: { readonly entry: KeyValue; readonly atMs: number }[] = [];
    let old: KeyValue[] = [];
    let from: string = keys.adminRequests;
    for (;;) {
      const page = await this.#coordinator.range(from, { rangeEnd: end, limit: pageSize });
      for (const entry of page.entries) {
        const record = readable(entry);
        if (record === undefined || this.#isOld(record)) old.push(stamp(entry));
        else young.push({ entry: stamp(entry), atMs: record.atMs });
        from = `${entry.key}\0`;
      }
      if (!page.more) break;
    }
    const tooMany = young.toSorted((a, b) => a.atMs - b.atMs).slice(0, -maxRemembered);
    old = [...old, ...tooMany.map(({ entry }) => entry)];
    for (let at = 0; at < old.length; at += deletesAtOnce) {
      const batch = old.slice(at, at + deletesAtOnce);
      // One that changed meanwhile keeps its batch for the next time.
      await this.#coordinator.transaction({
        compares: batch.map(({ key, modRevision }) => ({
          key,
          target: 'modRevision',
          op: '=',
          operand: modRevision,
        })),
        success: batch.map(({ key }) => ({ type: 'delete', key })),
        failure: [],
      });
    }
  }
}

export function keyOfAnother(): QuorateError {
  return new QuorateError('already-exists', 'this Idempotency-Key was used for another request');
}

/** A damaged one is as good as old. */
function readable(entry: KeyValue): RequestRecord | undefined {
  try {
    return decodeRecord(requestRecord, entry);
  } catch {
    return undefined;
  }
}

/** Without the value: thousands are held at once. */
function stamp(entry: KeyValue): KeyValue {
  return { ...entry, value: new Uint8Array() };
}
