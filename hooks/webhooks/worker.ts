import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import { asQuorateError } from '../../backends/contract/errors.js';
import { longestRetryMs, pauseMs, retryDelayMs } from './backoff.js';
import type { Attempt, Delivery } from './delivery.js';
import type { Claim, DeliveryQueue, ReadDelivery, Waiting } from './delivery-queue.js';
import type { Sender } from './send.js';
import { signatureOf } from './signature.js';
import type { Slots } from './slots.js';
import { shownOrigin, type Subscriber } from './webhook.js';
import type { WebhookStore } from './webhook-store.js';

export interface DeliveryOptions {
  /** Deliveries of all webhooks under way at once. */
  readonly concurrency: number;
  /** Pause after the first failure. */
  readonly firstRetryMs: number;
}

export interface WorkerParts {
  readonly store: Pick<WebhookStore, 'subscriber' | 'removeRetired'>;
  readonly queue: Pick<
    DeliveryQueue,
    'waiting' | 'read' | 'change' | 'unqueue' | 'forget' | 'prune' | 'release'
  >;
  readonly send: Sender;
  readonly slots: Slots;
  readonly options: DeliveryOptions;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
}

/** Of one webhook under way at once; one while its receiver is in trouble. */
const perWebhook = 4;
/** What may wait for one webhook: a day of pushes every minute and a half. The oldest is given up beyond it. */
export const maxWaiting = 1_000;
/** What is read of a queue at a time; more than can be under way. */
const windowSize = 64;
/** Turns of a full window; counting what waits is more work than looking at its beginning. */
const shedEvery = 16;
/** Another process may put something into the queue, or ask for a delivery now. */
const longestSleepMs = 5_000;

/** Delivers what waits for one webhook, on which this process has a claim. */
export class WebhookWorker {
  readonly #parts: WorkerParts;
  readonly #claim: Claim;
  readonly #stop: AbortSignal;
  readonly #cut: AbortSignal;
  readonly #underWay = new Map<string, Promise<void>>();
  #wake = new AbortController();
  #woken = false;
  /** Attempts in a row that failed, those that ran together counted once. */
  #failures = 0;
  #round = 0;
  /** On the monotonic clock, as what follows: one that is put back keeps nobody waiting. */
  #pausedUntilMs = 0;
  /** Not the receiver's trouble but this server's: then nothing is tried, whoever asks for it. */
  #troubledUntilMs = 0;
  #turns = 0;
  /** As of the last turn, and no more than a window shows. */
  #waiting = 0;
  /** As it was when it was last looked at. */
  #subscriber: Subscriber | undefined;

  /** `stop`: no more attempts. `cut`: neither, and those under way are given up; they stay in the queue. */
  constructor(
    parts: WorkerParts,
    claim: Claim,
    signals: { readonly stop: AbortSignal; readonly cut: AbortSignal },
  ) {
    this.#parts = parts;
    this.#claim = claim;
    this.#stop = signals.stop;
    this.#cut = signals.cut;
  }

  get #ending(): boolean {
    return this.#stop.aborted || this.#cut.aborted;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** There may be something new. */
  nudge(): void {
    this.#woken = true;
    this.#wake.abort();
  }

  /** Resolves when nothing waits any more, or after `stop`. The claim is given back. */
  async run(): Promise<void> {
    const { queue } = this.#parts;
    const stopped = (): void => this.#wake.abort();
    let left = false;
    this.#stop.addEventListener('abort', stopped);
    this.#cut.addEventListener('abort', stopped);
    try {
      while (!this.#ending) {
        this.#wake = new AbortController();
        this.#woken = false;
        const sleepMs = await this.#turn();
        if (sleepMs === 'empty') {
          left = await this.#leave();
          if (left) return;
        } else if (!this.#woken && !this.#ending) {
          await this.#parts.clock.sleep(sleepMs, this.#wake.signal);
        }
      }
    } finally {
      this.#stop.removeEventListener('abort', stopped);
      this.#cut.removeEventListener('abort', stopped);
      await Promise.all(this.#underWay.values());
      if (!left) await queue.release(this.#claim, { whenEmpty: false });
    }
  }

  /** Starts what may be started. Returns how long nothing more can be, unless somebody nudges. */
  async #turn(): Promise<number | 'empty'> {
    const { queue } = this.#parts;
    const waiting = await queue.waiting(this.#claim.webhook, windowSize);
    this.#waiting = waiting.length;
    if (waiting.length === 0 && this.#underWay.size === 0) return 'empty';
    this.#turns += 1;
    if (waiting.length === windowSize && this.#turns % shedEvery === 1) await this.#shed();
    const limit = this.#failures > 0 ? 1 : perWebhook;
    for (const one of waiting) {
      if (this.#underWay.has(one.id)) continue;
      const waitMs = this.#waitMs(one);
      if (waitMs > 0) return Math.min(waitMs, longestSleepMs);
      if (this.#underWay.size >= limit) break;
      this.#start(one);
    }
    return longestSleepMs;
  }

  /** Until it may be tried. A time that lies further ahead than any pause is another clock's, and not waited for. */
  #waitMs({ dueAtMs }: Waiting): number {
    const { clock, options } = this.#parts;
    const monotonicMs = clock.monotonicMs();
    const troubledMs = this.#troubledUntilMs - monotonicMs;
    if (dueAtMs === 0) return troubledMs;
    const dueMs = dueAtMs - clock.nowMs();
    const ahead = dueMs > longestRetryMs + options.firstRetryMs;
    return Math.max(ahead ? 0 : dueMs, this.#pausedUntilMs - monotonicMs, troubledMs);
  }

  #start(waiting: Waiting): void {
    const run = this.#deliver(waiting)
      .catch((error: unknown) => {
        const { logger } = this.#parts;
        logger.error({ ...this.#fields(waiting.id), err: error }, 'a delivery could not be made');
        this.#fail(this.#round);
        this.#troubledUntilMs = this.#pausedUntilMs;
      })
      .finally(() => {
        this.#underWay.delete(waiting.id);
        this.nudge();
      });
    this.#underWay.set(waiting.id, run);
  }

  async #deliver(waiting: Waiting): Promise<void> {
    const { store, queue, slots } = this.#parts;
    const { webhook } = this.#claim;
    const read = await this.#read(waiting);
    if (read === undefined) return;
    const subscriber = await store.subscriber(read.delivery.scope, webhook);
    // Removed with all that waits, between two reads.
    if (subscriber === undefined) return queue.forget(webhook, waiting);
    this.#subscriber = subscriber;
    const release = await slots.take();
    let round: number;
    let attempt: Attempt | undefined;
    try {
      if (this.#ending) return;
      round = this.#round;
      attempt = await this.#attempt(subscriber, read);
    } finally {
      release();
    }
    if (attempt !== undefined) await this.#record(subscriber, read, { attempt, round });
  }

  async #read(waiting: Waiting): Promise<ReadDelivery | undefined> {
    const { queue, logger } = this.#parts;
    const { webhook } = this.#claim;
    try {
      const read = await queue.read(webhook, waiting.id);
      if (read?.delivery.dueAtMs === waiting.dueAtMs && read.delivery.status === 'pending') {
        return read;
      }
      if (read !== undefined) {
        // Changed meanwhile: its queue entry is another one, or gone.
        await queue.unqueue(webhook, waiting, read.modRevision);
        return undefined;
      }
    } catch (error) {
      if (asQuorateError(error).code !== 'data-corrupt') throw error;
      logger.error({ ...this.#fields(waiting.id), err: error }, 'a delivery is lost');
    }
    await queue.forget(webhook, waiting);
    return undefined;
  }

  #attempt(subscriber: Subscriber, { delivery, body }: ReadDelivery): Promise<Attempt | undefined> {
    return this.#parts.send({
      url: subscriber.url,
      headers: {
        'Content-Type': 'application/json',
        'User-Agent': this.#parts.userAgent,
        'X-Quorate-Event': delivery.event,
        'X-Quorate-Delivery': delivery.id,
        'X-Quorate-Webhook': subscriber.id,
        'X-Quorate-Attempt': String(delivery.attempts + 1),
        'X-Quorate-Signature-256': signatureOf(subscriber.secret, body),
      },
      body,
      signal: this.#cut,
    });
  }

  async #record(
    subscriber: Subscriber,
    read: ReadDelivery,
    { attempt, round }: { readonly attempt: Attempt; readonly round: number },
  ): Promise<void> {
    const { queue, meter, logger } = this.#parts;
    const { delivery } = read;
    const next = this.#next(delivery, attempt);
    const labels = { outcome: attempt.outcome };
    meter.count('webhook_attempts', labels);
    meter.observe('webhook_seconds', attempt.durationMs / 1000, labels);
    if (attempt.outcome === 'delivered') {
      this.#failures = 0;
      this.#pausedUntilMs = 0;
    } else this.#fail(round);
    const changed = await queue.change(this.#claim.webhook, read, next);
    if (changed && next.status !== 'pending') {
      meter.count('webhook_deliveries', { outcome: next.status });
    }
    const fields = {
      ...this.#fields(delivery.id),
      event: delivery.event,
      repository: delivery.repository,
      receiver: shownOrigin(subscriber.url),
      attempt: next.attempts,
      outcome: attempt.outcome,
      status: attempt.status,
      duration_ms: attempt.durationMs,
    };
    if (next.status === 'failed') logger.warn(fields, 'a webhook delivery is given up');
    else logger.info(fields, 'webhook delivery');
    if (next.status !== 'pending') await queue.prune(this.#claim.webhook);
  }

  #next(delivery: Delivery, attempt: Attempt): Omit<Delivery, 'id'> {
    const { clock, random, options } = this.#parts;
    const attempts = delivery.attempts + 1;
    const nowMs = clock.nowMs();
    const tried = { ...delivery, attempts, last: attempt };
    if (attempt.outcome === 'delivered') return { ...tried, status: 'delivered' };
    if (nowMs >= delivery.retryUntilMs) return { ...tried, status: 'failed' };
    return { ...tried, dueAtMs: nowMs + retryDelayMs(random, attempts, options.firstRetryMs) };
  }

  /** The receiver is left alone for a while; those that were under way together are one failure. */
  #fail(round: number): void {
    if (round !== this.#round) return;
    const { clock, random, options } = this.#parts;
    this.#round += 1;
    this.#failures += 1;
    const pausedMs = pauseMs(random, this.#failures, options.firstRetryMs);
    this.#pausedUntilMs = clock.monotonicMs() + pausedMs;
  }

  /** Gives up the oldest of those that are too many. */
  async #shed(): Promise<void> {
    const { queue, meter, logger } = this.#parts;
    const { webhook } = this.#claim;
    const all = await queue.waiting(webhook, maxWaiting + windowSize);
    const free = all.filter(({ id }) => !this.#underWay.has(id));
    if (all.length <= maxWaiting) return;
    const old = free.sort((a, b) => (a.id < b.id ? -1 : 1)).slice(0, all.length - maxWaiting);
    for (const waiting of old) {
      const read = await this.#read(waiting);
      if (read === undefined) continue;
      const dropped = { ...read.delivery, status: 'dropped' as const };
      if (await queue.change(webhook, read, dropped)) {
        meter.count('webhook_deliveries', { outcome: 'dropped' });
      }
    }
    logger.warn(
      { component: 'webhooks', webhook, dropped: old.length },
      'too many deliveries wait for a webhook: the oldest are given up',
    );
    await queue.prune(webhook);
  }

  /** True when the claim was given back, nothing having come meanwhile, or is another's. */
  async #leave(): Promise<boolean> {
    const { queue, store } = this.#parts;
    if (this.#subscriber !== undefined && this.#subscriber.scope !== 'server') {
      const now = await store.subscriber(this.#subscriber.scope, this.#subscriber.id);
      // Its repository is gone, and nothing waits any more.
      if (now?.retired === true) await store.removeRetired(now);
    }
    return (await queue.release(this.#claim, { whenEmpty: true })) !== 'not-empty';
  }

  #fields(delivery: string): object {
    return { component: 'webhooks', webhook: this.#claim.webhook, delivery };
  }
}
