import { setMaxListeners } from 'node:events';
import type { Lease, ProcessLease } from '../../backends/contract/coordinator.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import type { DeliveryQueue } from './delivery-queue.js';
import type { WebhookStore } from './webhook-store.js';
import { WebhookWorker, type WorkerParts } from './worker.js';

export interface DispatcherParts extends WorkerParts {
  readonly store: WebhookStore;
  readonly queue: DeliveryQueue;
  readonly lease: ProcessLease;
}

/** How often is looked for what others left, or put into the queue just as its worker went. */
const pollMs = 5_000;
/** Webhooks that this process delivers for, most of them waiting; the others are taken when one has ended. */
const maxWorkers = 1_000;
/** What is under way when the server stops may take so long to end. */
const closeGraceMs = 3_000;

interface Running {
  readonly worker: WebhookWorker;
  readonly ended: Promise<void>;
}

/** What works under a lease ends with it. */
interface Term {
  readonly lease: Lease;
  readonly cut: AbortController;
}

/**
 * Sees to it that one process delivers for each webhook for which something waits: a claim under the process's lease
 * says which. Claims of a process that dies end with its lease, and are taken by another.
 */
export class Dispatcher {
  readonly #parts: DispatcherParts;
  readonly #running = new Map<string, Running>();
  /** Being claimed just now. */
  readonly #starting = new Map<string, Promise<void>>();
  readonly #stop = sharedByAll();
  #term: Term | undefined;
  #polling: Promise<void> | undefined;

  constructor(parts: DispatcherParts) {
    this.#parts = parts;
    parts.meter.gauge('queue_depth', { queue: 'webhooks' }, () =>
      [...this.#running.values()].reduce((sum, { worker }) => sum + worker.waiting, 0),
    );
  }

  start(): void {
    this.#polling ??= this.#poll();
  }

  /** Something was put into this webhook's queue. Nothing before `start`: what waits is found then. */
  nudge(webhook: string): void {
    const running = this.#running.get(webhook);
    if (running !== undefined) running.worker.nudge();
    else if (this.#polling !== undefined) this.#begin(webhook);
  }

  /** What does not end by itself within some seconds is cut off, and stays in the queue. */
  async close(): Promise<void> {
    this.#stop.abort();
    const ended = Promise.all([
      this.#polling,
      ...this.#starting.values(),
      ...[...this.#running.values()].map((running) => running.ended),
    ]);
    const done = new AbortController();
    const late = this.#parts.clock.sleep(closeGraceMs, done.signal);
    await Promise.race([ended, late]);
    this.#term?.cut.abort();
    await ended;
    done.abort();
    await Promise.all([...this.#running.values()].map((running) => running.ended));
    // Those that could not be given back one by one.
    await this.#parts.lease.leave(keys.webhookClaims, prefixEnd(keys.webhookClaims));
  }

  async #poll(): Promise<void> {
    const { clock, logger } = this.#parts;
    const { signal } = this.#stop;
    let tidied = false;
    while (!signal.aborted) {
      try {
        if (!tidied) await this.#removeRetired();
        tidied = true;
        await this.#discover();
      } catch (error) {
        logger.warn({ component: 'webhooks', err: error }, 'webhooks wait');
      }
      await clock.sleep(pollMs, signal);
    }
  }

  async #discover(): Promise<void> {
    const { queue } = this.#parts;
    const { lease } = await this.#currentTerm();
    const taken = await queue.claimedByOthers(lease.id);
    for await (const webhook of queue.busy()) {
      if (this.#stop.signal.aborted) return;
      if (!taken.has(webhook) && !this.#running.has(webhook)) this.#begin(webhook);
    }
  }

  #begin(webhook: string): void {
    if (this.#stop.signal.aborted || this.#starting.has(webhook)) return;
    if (this.#running.size + this.#starting.size >= maxWorkers) return;
    const starting = this.#claimAndRun(webhook)
      .catch((error: unknown) => {
        this.#parts.logger.warn({ component: 'webhooks', webhook, err: error }, 'a webhook waits');
      })
      .finally(() => this.#starting.delete(webhook));
    this.#starting.set(webhook, starting);
  }

  async #claimAndRun(webhook: string): Promise<void> {
    const { lease, cut } = await this.#currentTerm();
    const claim = await this.#parts.queue.claim(webhook, lease.id);
    if (claim === undefined) return;
    const signals = { stop: this.#stop.signal, cut: cut.signal };
    const worker = new WebhookWorker(this.#parts, claim, signals);
    const ended = worker
      .run()
      .catch((error: unknown) => {
        this.#parts.logger.warn({ component: 'webhooks', webhook, err: error }, 'a webhook waits');
      })
      .finally(() => this.#running.delete(webhook));
    this.#running.set(webhook, { worker, ended });
  }

  /** A lost lease ends the work under it; the next is granted when it is needed. */
  async #currentTerm(): Promise<Term> {
    const lease = await this.#parts.lease.current();
    if (this.#term?.lease === lease) return this.#term;
    const cut = sharedByAll();
    const lost = (): void => cut.abort();
    lease.lost.addEventListener('abort', lost, { once: true });
    if (lease.lost.aborted) lost();
    this.#term = { lease, cut };
    return this.#term;
  }

  /** A crash came between the last delivery of a webhook whose repository is gone, and its end. */
  async #removeRetired(): Promise<void> {
    const { store, queue } = this.#parts;
    for await (const webhook of store.retired()) {
      const waiting = await queue.waiting(webhook.id, 1);
      if (waiting.length === 0) await store.removeRetired(webhook);
    }
  }
}

/** Every worker listens to it, and every attempt that is under way. */
function sharedByAll(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}
