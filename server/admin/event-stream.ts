import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { MaintenanceProgress } from '../../backends/contract/backend.js';
import type { Clock } from '../../backends/contract/environment.js';
import type { Problem } from './error-map.js';

/** A terminal shows no more than ten changes a second. */
const progressIntervalMs = 100;
/** Well under the idle timeouts of proxies (nginx: 60 s); a client may take silence three times as long for death. */
const heartbeatMs = 10_000;

/**
 * Answer of a long-running request: newline-delimited JSON, one event per line. Lines are
 * `{"progress": {step, done, total}}`, `{"alive": true}` when nothing else was said for ten seconds, and at the end
 * exactly one `{"result": ...}` or `{"error": ...}`. A stream that ends without either was cut.
 */
export interface EventStream {
  /** True once the status line is out: from then on a failure is an event. */
  readonly started: boolean;
  /** At most ten a second are sent, plus each step's first and last; repeats are not, and all are dropped while the client does not read. Never throws. */
  progress(progress: MaintenanceProgress): void;
  /** Something that happened. Resolves when the client has taken enough for more, or is gone. */
  event(event: object): Promise<void>;
  /** Keeps the stream alive until its end, while `work` runs. */
  during<T>(work: Promise<T>): Promise<T>;
  end(last: { readonly result: object } | { readonly error: Problem }): Promise<void>;
}

export function createEventStream(options: {
  readonly response: ServerResponse;
  readonly clock: Clock;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}): EventStream {
  const { response, clock, signal } = options;
  let started = false;
  let last: MaintenanceProgress | undefined;
  let lastSentMs = -Infinity;

  const send = (event: object): void => {
    if (signal.aborted) return;
    if (!started) {
      started = true;
      response.writeHead(200, { 'Content-Type': 'application/x-ndjson; charset=utf-8' });
    }
    response.write(`${JSON.stringify(event)}\n`);
    lastSentMs = clock.monotonicMs();
  };

  return {
    get started() {
      return started;
    },
    progress: (progress) => {
      const due = clock.monotonicMs() - lastSentMs >= progressIntervalMs;
      const { step, done, total } = progress;
      const telling = step !== last?.step || done === total;
      const repeated = step === last?.step && done === last.done && total === last.total;
      if ((!due && !telling) || repeated || response.writableNeedDrain) return;
      last = progress;
      send({ progress: { step, done, total } });
    },
    event: async (event) => {
      send(event);
      if (response.writableNeedDrain && !signal.aborted) {
        await once(response, 'drain', { signal }).catch(() => undefined);
      }
    },
    during: async (work) => {
      const over = new AbortController();
      const stop = AbortSignal.any([over.signal, signal]);
      const beat = async (): Promise<void> => {
        while (!stop.aborted) {
          await clock.sleep(heartbeatMs, stop);
          const silent = clock.monotonicMs() - lastSentMs >= heartbeatMs;
          if (!stop.aborted && silent && !response.writableNeedDrain) send({ alive: true });
        }
      };
      const beating = beat();
      try {
        return await work;
      } finally {
        over.abort();
        await beating;
      }
    },
    end: async (last) => {
      send(last);
      if (signal.aborted) return;
      response.end();
      await once(response, 'finish', { signal }).catch(() => undefined);
    },
  };
}
