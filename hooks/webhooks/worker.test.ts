import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import type { Delivery } from './delivery.js';
import { Slots } from './slots.js';
import type { Subscriber } from './webhook.js';
import { WebhookWorker, type WorkerParts } from './worker.js';

const claim = { webhook: 'w', createRevision: 1 };
const subscriber: Subscriber = {
  id: 'w',
  scope: 'server',
  url: 'https://receiver.example/',
  events: [],
  secret: 's'.repeat(16),
  by: 'a',
  createdAtMs: 0,
};
const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};
const firstRetryMs = 10_000;
const dayMs = 86_400_000;

/** A queue with one delivery. `put`: called when it is put off. */
function queueOf(nowMs: number, put: () => void): WorkerParts['queue'] {
  let waiting: Delivery | undefined = {
    id: 'd',
    event: 'push',
    scope: 'server',
    repository: 'app',
    status: 'pending',
    createdAtMs: nowMs,
    attempts: 0,
    dueAtMs: nowMs,
    retryUntilMs: nowMs + dayMs,
  };
  return {
    waiting: async () => (waiting === undefined ? [] : [waiting]),
    read: async () => waiting && { delivery: waiting, modRevision: 1, body: new Uint8Array() },
    change: async (_webhook, { delivery: { id } }, next) => {
      waiting = next.status === 'pending' ? { ...next, id } : undefined;
      if (waiting !== undefined) put();
      return true;
    },
    unqueue: async () => undefined,
    forget: async () => undefined,
    prune: async () => undefined,
    release: async () => 'released',
  };
}

for (const stepMs of [0, -dayMs, dayMs]) {
  test(`a receiver that failed once is tried again soon, though the clock was put by ${stepMs} ms`, async () => {
    let monotonicMs = 5_000;
    let aheadMs = 1_700_000_000_000;
    const clock: Clock = {
      nowMs: () => aheadMs + monotonicMs,
      monotonicMs: () => monotonicMs,
      sleep: async (ms) => void (monotonicMs += ms),
    };
    const triedMs: number[] = [];
    const worker = new WebhookWorker(
      {
        store: { subscriber: async () => subscriber, removeRetired: async () => undefined },
        queue: queueOf(clock.nowMs(), () => (aheadMs += stepMs)),
        send: async () => {
          triedMs.push(monotonicMs);
          const outcome = triedMs.length === 1 ? 'connection' : 'delivered';
          return { atMs: 0, durationMs: 1, outcome };
        },
        slots: new Slots(1),
        options: { concurrency: 1, firstRetryMs },
        userAgent: 'test',
        clock,
        random: { bytes: (length) => Buffer.alloc(length, 255) },
        logger: silent,
        meter: { count: () => undefined, gauge: () => undefined, observe: () => undefined },
      },
      claim,
      { stop: new AbortController().signal, cut: new AbortController().signal },
    );
    await worker.run();
    const [first = 0, second = Infinity] = triedMs;
    assert.equal(triedMs.length, 2);
    assert.ok(second - first <= 2 * firstRetryMs, `after ${second - first} ms`);
  });
}
