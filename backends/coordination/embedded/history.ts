import type { WatchBatch, WatchEvent } from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import { inRange } from '../request-check.js';

export interface HistoryLimits {
  /** Revisions kept. */
  readonly maxRevisions: number;
  /** Bytes of keys and values kept. */
  readonly maxSizeBytes: number;
}

/**
 * Some minutes of a busy server: a push writes about four revisions of a few hundred bytes. A watcher that was away
 * longer lists again, which costs one range read.
 */
export const defaultHistoryLimits: HistoryLimits = {
  maxRevisions: 20_000,
  maxSizeBytes: 32 * 2 ** 20,
};

interface Watched {
  readonly key: string;
  readonly rangeEnd: string | undefined;
}

/**
 * The last revisions, in memory, and everyone who follows them. A watcher owns no queue: it is a position in this
 * history, so a slow one costs nothing until its position falls off the end.
 */
export class History {
  readonly #limits: HistoryLimits;
  /** Revisions without gaps, oldest first, from `#start` on; what lies before it is dropped in bulk. */
  #batches: WatchBatch[] = [];
  #start = 0;
  #sizeBytes = 0;
  #revision: number;
  #ended = false;
  readonly #waiting = new Set<() => void>();

  /** `revision` is the store's revision now: everything up to it counts as compacted. */
  constructor(revision: number, limits: HistoryLimits) {
    this.#revision = revision;
    this.#limits = limits;
  }

  get revision(): number {
    return this.#revision;
  }

  append(batches: readonly WatchBatch[]): void {
    for (const batch of batches) {
      this.#batches.push(batch);
      this.#sizeBytes += batchSizeBytes(batch);
      this.#revision = batch.revision;
    }
    while (
      this.#batches.length - this.#start > this.#limits.maxRevisions ||
      this.#sizeBytes > this.#limits.maxSizeBytes
    ) {
      const oldest = this.#batches[this.#start];
      if (oldest === undefined) break;
      this.#sizeBytes -= batchSizeBytes(oldest);
      this.#start += 1;
    }
    if (this.#start > this.#limits.maxRevisions) {
      this.#batches = this.#batches.slice(this.#start);
      this.#start = 0;
    }
    this.#wake();
  }

  /** Ends all watches. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Batches of the watched keys from a revision on, until the signal aborts or the history ends. */
  async *follow(
    watched: Watched,
    fromRevision: number,
    signal: AbortSignal,
  ): AsyncGenerator<WatchBatch, void, undefined> {
    let next = fromRevision;
    while (!signal.aborted && !this.#ended) {
      const batch = this.#find(watched, next);
      if (batch === undefined) {
        next = Math.max(next, this.#revision + 1);
        await this.#change(signal);
      } else {
        next = batch.revision + 1;
        yield batch;
      }
    }
  }

  /** The first batch at or after a revision that touches the watched keys, cut down to them. */
  #find(watched: Watched, fromRevision: number): WatchBatch | undefined {
    const oldest = this.#batches[this.#start]?.revision ?? this.#revision + 1;
    if (fromRevision < oldest) {
      throw new QuorateError('failed-precondition', 'that history is gone: list again', {
        details: { compactedRevision: oldest },
      });
    }
    for (let i = this.#start + (fromRevision - oldest); i < this.#batches.length; i += 1) {
      const batch = this.#batches[i];
      if (batch === undefined) break;
      const events = batch.events.filter((event) =>
        inRange(eventKey(event), watched.key, watched.rangeEnd),
      );
      if (events.length > 0) return { revision: batch.revision, events };
    }
    return undefined;
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}

function eventKey(event: WatchEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}

function batchSizeBytes(batch: WatchBatch): number {
  let sizeBytes = 0;
  for (const event of batch.events) {
    sizeBytes += eventKey(event).length + (event.type === 'put' ? event.entry.value.length : 0);
  }
  return sizeBytes;
}
