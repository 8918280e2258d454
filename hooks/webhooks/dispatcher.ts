import { setMaxListeners } from 'node:events';
import type { Coordinator, Lease } from '../../backends/contract/coordinator.js';
import { WebhookWorker, type WorkerParts } from './worker.js';

export interface DispatcherParts extends WorkerParts {
  readonly coordinator: Coordinator;
}

/** For so long nobody delivers when a process dies, with a coordinator of several. */
const leaseTtlMs = 10_000;
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

/**
 * Sees to it that one process delivers for each webhook for which something waits: a claim under this process's lease
 * says which. Claims of a process that dies end with its lease, and are taken by another.
 */
export class Dispatcher {
  readonly #parts: DispatcherParts;
  readonly #running = new Map<string, Running>();
  /** Being claimed just now. */
  readonly #starting = new Map<string, Promise<void>>();
  readonly #stop = sharedByAll();
  #lease: Promise<Lease> | undefined;
  /** Ends what works under the lease, when that is lost or the server stops. */
  #cut = sharedByAll();
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
    this.#cut.abort();
    await ended;
    done.abort();
    await Promise.all([...this.#running.values()].map((running) => running.ended));
    const lease = await this.#lease?.catch(() => undefined);
    await lease?.revoke().catch(() => undefined);
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
    const lease = await this.#lease?.catch(() => undefined);
    const taken = await queue.claimedByOthers(lease?.id);
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
    const lease = await this.#granted();
    const cut = this.#cut.signal;
    const claim = await this.#parts.queue.claim(webhook, lease.id);
    if (claim === undefined) return;
    const worker = new WebhookWorker(this.#parts, claim, { stop: this.#stop.signal, cut });
    const ended = worker
      .run()
      .catch((error: unknown) => {
        this.#parts.logger.warn({ component: 'webhooks', webhook, err: error }, 'a webhook waits');
      })
      .finally(() => this.#running.delete(webhook));
    this.#running.set(webhook, { worker, ended });
  }

  /** One lease for all claims of this process. A lost one ends their work, and the next is granted when it is needed. */
  #granted(): Promise<Lease> {
    this.#lease ??= this.#grant().catch((error: unknown) => {
      this.#lease = undefined;
      throw error;
    });
    return this.#lease;
  }

  async #grant(): Promise<Lease> {
    const lease = await this.#parts.coordinator.grantLease(leaseTtlMs);
    const lost = (): void => {
      if (this.#stop.signal.aborted) return;
      this.#lease = undefined;
      this.#cut.abort();
      this.#cut = sharedByAll();
    };
    lease.lost.addEventListener('abort', lost, { once: true });
    if (lease.lost.aborted) lost();
    return lease;
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
