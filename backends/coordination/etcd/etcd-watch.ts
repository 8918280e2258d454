import { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IEvent, IWatchResponse } from 'etcd3';
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
  readonly pool: MemberPool;
  readonly format: WireFormat;
  readonly logger: Logger;
  /** The coordinator closes: every watch ends. */
  readonly closing: AbortSignal;
}

const firstPauseMs = 50;
const longestPauseMs = 1_000;

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
  #closed = false;

  constructor(parts: WatchParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
    for (const one of [signal, parts.closing]) one.addEventListener('abort', this.#onAbort);
  }

  /** Ends, or fails, when the stream does. Throws `failed-precondition` when the history is gone. */
  async *open(
    { key, rangeEnd }: WatchRequest,
    fromRevision: number,
  ): AsyncGenerator<IWatchResponse, void, void> {
    const { pool, format } = this.#parts;
    // Finds a member that serves, and signs in again to one that has forgotten us, which a stream could not.
    const probe = { key: format.key(key), keys_only: true, limit: 1, serializable: true };
    await pool.repeat((member) => member.askRange(probe));
    const member = await pool.connected();
    if (member === undefined || this.#closed) return;
    const stream = await member.watchClient.watch();
    if (!(stream instanceof Duplex)) throw new QuorateError('internal', 'the watch is no stream');
    this.#cancel = () => {
      stream.end();
      stream.cancel();
    };
    // A stream that was cancelled fails once more, when nobody reads it any more.
    stream.on('error', () => undefined);
    if (this.#closed) {
      this.#cancel();
      return;
    }
    stream.write({
      create_request: {
        ...format.range(key, rangeEnd),
        start_revision: String(fromRevision),
        progress_notify: true,
      },
    });
    try {
      for await (const chunk of stream) {
        const response: IWatchResponse = chunk;
        pool.observe(response.header);
        if (response.canceled) throw whyCanceled(response);
        yield response;
      }
    } catch (error) {
      if (!(error instanceof QuorateError) && !this.#closed) pool.avoid(member);
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
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
