import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IEvent, IResponseHeader, IWatchResponse } from 'etcd3';
import type { WatchBatch, WatchEvent } from '../../contract/coordinator.js';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import { reasonOf } from './etcd-errors.js';
import type { MemberPool } from './member-pool.js';
import { type WireFormat, wholeNumber } from './wire-format.js';

export interface WatchRequest {
  readonly key: string;
  readonly rangeEnd: string | undefined;
  /** The next revision that is wanted. */
  readonly fromRevision: number;
}

export interface WatchParts {
  /** Fails as `MemberPool.repeat`. */
  readonly connect: (request: WatchRequest) => Promise<WatchStream>;
  /** Told of the header of every response. */
  readonly observe: (header: IResponseHeader) => void;
  readonly format: WireFormat;
  readonly logger: Logger;
  /** The coordinator closes: every watch ends. */
  readonly closing: AbortSignal;
  readonly patience?: WatchPatience;
}

/** A stream to one member, on which nothing was asked for yet. */
export interface WatchStream {
  readonly duplex: Duplex;
  cancel(): void;
  /** It failed: another member is to be asked next. */
  avoid(): void;
}

/** How long a stream may be silent before another one is begun in its place. */
export interface WatchPatience {
  /** After events. */
  readonly afterEventsMs: number;
  readonly signOfLifeMs: number;
}

/**
 * etcd forgets a watcher at times that lagged when its history was compacted: it sends it nothing more, and never says
 * that it has ended. Only who was sent events can lag, so after those a stream is not believed for long. Where nothing
 * happens etcd says so every 10 to 11 minutes (`progress_notify`), and to a forgotten watcher not even that.
 */
const usualPatience: WatchPatience = { afterEventsMs: 60_000, signOfLifeMs: 12 * 60_000 };

const firstPauseMs = 50;
const longestPauseMs = 1_000;

/** Streams to whichever member of the pool serves. */
export function watchStreams(pool: MemberPool, format: WireFormat): WatchParts['connect'] {
  return async ({ key }) => {
    // Finds a member that serves, and signs in again to that one if it has forgotten us, which a stream could not.
    const probe = { key: format.key(key), keys_only: true, limit: 1, serializable: true };
    const { member } = await pool.repeat(async (asked) => {
      const { header } = await asked.askRange(probe);
      return { header, member: asked };
    });
    const stream = await member.watch();
    return {
      duplex: stream,
      cancel: () => stream.cancel(),
      avoid: () => pool.avoid(member),
    };
  };
}

/**
 * Follows a range through any number of connections, each begun where the one before ended. Nothing is queued here: a
 * consumer that lags makes gRPC's flow control hold the stream, and etcd then reads on from its history; when that is
 * compacted meanwhile, the consumer gets the compaction error.
 */
export async function* followRange(
  parts: WatchParts,
  request: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchBatch, void, void> {
  let next = request.fromRevision;
  let pauseMs = firstPauseMs;
  const ended = (): boolean => signal.aborted || parts.closing.aborted;
  while (!ended()) {
    const connection = new WatchConnection(parts, signal);
    try {
      for await (const response of connection.open(request, next)) {
        pauseMs = firstPauseMs;
        for (const batch of batchesOf(response, parts.format)) {
          if (batch.revision < next) continue;
          yield batch;
          if (ended()) return;
          next = batch.revision + 1;
        }
        // A sign of life: everything up to its revision was sent before it.
        if (response.events.length === 0 && !response.created) {
          next = Math.max(next, wholeNumber(response.header.revision) + 1);
        }
      }
    } catch (error) {
      if (ended()) return;
      if (error instanceof QuorateError && error.code === 'failed-precondition') throw error;
      parts.logger.debug({ reason: reasonOf(error) }, 'a watch lost its connection');
    } finally {
      connection.close();
    }
    if (ended()) return;
    await sleep(pauseMs, undefined, { ref: false });
    pauseMs = Math.min(2 * pauseMs, longestPauseMs);
  }
}

/** One stream to one member. */
class WatchConnection {
  readonly #parts: WatchParts;
  readonly #signal: AbortSignal;
  readonly #onAbort = (): void => this.close();
  #cancel: (() => void) | undefined;
  #silence: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: WatchParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
    for (const one of [signal, parts.closing]) one.addEventListener('abort', this.#onAbort);
  }

  /** Ends, or fails, when the stream does, or is silent. Throws `failed-precondition` when the history is gone. */
  async *open(
    request: WatchRequest,
    fromRevision: number,
  ): AsyncGenerator<IWatchResponse, void, void> {
    const { connect, observe, format, patience = usualPatience } = this.#parts;
    const stream = await connect(request);
    const { duplex } = stream;
    this.#cancel = () => {
      duplex.end();
      stream.cancel();
    };
    // A stream that was cancelled fails once more, when nobody reads it any more.
    duplex.on('error', () => undefined);
    if (this.#closed) {
      this.#cancel();
      return;
    }
    duplex.write({
      create_request: {
        ...format.range(request.key, request.rangeEnd),
        start_revision: String(fromRevision),
        progress_notify: true,
      },
    });
    this.#closeAfter(patience.signOfLifeMs);
    try {
      for await (const chunk of duplex) {
        clearTimeout(this.#silence);
        const response: IWatchResponse = chunk;
        observe(response.header);
        if (response.canceled) throw whyCanceled(response);
        yield response;
        const isEvent = response.events.length > 0;
        this.#closeAfter(isEvent ? patience.afterEventsMs : patience.signOfLifeMs);
      }
    } catch (error) {
      if (!(error instanceof QuorateError) && !this.#closed) stream.avoid();
      throw error;
    }
  }

  /** While it is waited for the next response, not for who takes the one before. */
  #closeAfter(silenceMs: number): void {
    if (this.#closed) return;
    this.#silence = setTimeout(() => this.close(), silenceMs).unref();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#silence);
    for (const one of [this.#signal, this.#parts.closing]) {
      one.removeEventListener('abort', this.#onAbort);
    }
    this.#cancel?.();
  }
}

function whyCanceled(response: IWatchResponse): Error {
  const compactedRevision = wholeNumber(response.compact_revision);
  if (compactedRevision === 0) return new Error(`etcd ended the watch: ${response.cancel_reason}`);
  return new QuorateError(
    'failed-precondition',
    'the history that the watch asks for is gone: list and watch from there',
    { details: { compactedRevision } },
  );
}

/** etcd sends whole revisions, in order, several in one response when it catches up. */
function* batchesOf(response: IWatchResponse, format: WireFormat): Generator<WatchBatch> {
  let batch: { revision: number; events: WatchEvent[] } | undefined;
  for (const event of response.events) {
    const revision = wholeNumber(event.kv.mod_revision);
    if (batch !== undefined && batch.revision !== revision) {
      yield batch;
      batch = undefined;
    }
    batch ??= { revision, events: [] };
    batch.events.push(eventOf(event, format));
  }
  if (batch !== undefined) yield batch;
}

function eventOf(event: IEvent, format: WireFormat): WatchEvent {
  if (event.type === 'Put') return { type: 'put', entry: format.entry(event.kv) };
  return {
    type: 'delete',
    key: format.plainKey(event.kv.key),
    modRevision: wholeNumber(event.kv.mod_revision),
  };
}
