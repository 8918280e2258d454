import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Coordinator, Lease } from '../backends/contract/coordinator.js';
import type { Clock } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import { prefixEnd } from '../backends/contract/keys.js';
import { sleepInSteps } from '../backends/contract/testing/step-sleep.js';
import { openEmbeddedCoordinator } from '../backends/coordination/embedded/embedded-coordinator.js';
import { openEtcdCoordinator } from '../backends/coordination/etcd/etcd-coordinator.js';
import { EtcdCluster } from '../backends/coordination/etcd/testing/etcd-cluster.js';
import { realRandom, settingsFor } from '../backends/coordination/etcd/testing/etcd-fixture.js';
import { createProcessLease } from '../backends/coordination/process-lease.js';
import { silentLogger } from '../backends/coordination/test-environment.js';
import { silentMeter } from '../backends/local/testing/local-fixture.js';
import { intercepting } from '../backends/replicated/testing/fault-coordinator.js';
import type { Delivery } from '../hooks/webhooks/delivery.js';
import type { WebhookScope } from '../hooks/webhooks/webhook.js';
import { createWebhooks, type Webhooks } from '../hooks/webhooks/webhooks.js';
import { waitFor } from './wait.js';
import { Receiver } from './webhook-receiver.js';

export const app: WebhookScope = { repositoryId: 'r1' };

/** No receiver here takes so long to answer, however busy the machine is, unless it never does. Nobody else sleeps so long. */
const patienceMs = 29_999;

const leaseMs = 600_000;

interface ProcessOptions {
  readonly on?: Coordinator;
  readonly concurrency?: number;
  readonly firstRetryMs?: number;
  /** Default `patienceMs`. */
  readonly timeoutMs?: number;
  readonly enabled?: boolean;
}

/** A real coordinator, real receivers, and what several processes have that deliver to them. */
export class WebhookGround {
  readonly coordinator: Coordinator;
  readonly receivers: Receiver[] = [];
  /** How far the clock is ahead of the real one. */
  offsetMs = 0;
  /** When it was stopped; then only `offsetMs` moves it. */
  #stoppedAtMs: number | undefined;
  readonly #open: Webhooks[] = [];
  readonly #dispose: () => Promise<void>;

  private constructor(coordinator: Coordinator, dispose: () => Promise<void>) {
    this.coordinator = coordinator;
    this.#dispose = dispose;
  }

  static async embedded(): Promise<WebhookGround> {
    const directory = await mkdtemp(join(tmpdir(), 'quorate-webhooks-'));
    const ground: WebhookGround = new WebhookGround(
      await openEmbeddedCoordinator({ directory, clock: realClock, logger: silentLogger }),
      async () => {
        await ground.coordinator.close();
        await rm(directory, { recursive: true });
      },
    );
    return ground;
  }

  static async etcd(): Promise<WebhookGround> {
    const cluster = await EtcdCluster.start();
    const ground: WebhookGround = new WebhookGround(
      await openEtcdCoordinator({
        settings: settingsFor(cluster),
        random: realRandom,
        logger: silentLogger,
      }),
      async () => {
        await ground.coordinator.close();
        await cluster.stop();
      },
    );
    return ground;
  }

  async close(): Promise<void> {
    for (const webhooks of this.#open) await webhooks.close();
    for (const receiver of this.receivers) await receiver.close();
    await this.#dispose();
  }

  /**
   * Time passes as it does, but who sleeps for seconds soon looks whether it was turned; all but those that wait for a
   * receiver's answer. What is put forward passes for both clocks.
   */
  readonly clock: Clock = {
    nowMs: () => (this.#stoppedAtMs ?? Date.now()) + this.offsetMs,
    monotonicMs: () => this.clock.nowMs() - performance.timeOrigin,
    sleep: (ms, signal) => realClock.sleep(ms >= 1000 && ms !== patienceMs ? 20 : ms, signal),
  };

  /** Pauses that are as long as the machine is slow do not end by themselves meanwhile. */
  stopClock(): void {
    this.#stoppedAtMs = Date.now();
  }

  startClock(): void {
    this.#stoppedAtMs = undefined;
  }

  /** What one process has. It sends nothing before `start`. */
  process(options: ProcessOptions = {}): Webhooks {
    const coordinator = options.on ?? this.coordinator;
    const { clock } = this;
    const webhooks = createWebhooks({
      coordinator,
      // No machine is so busy that a process loses it: what is under way would be told twice.
      lease: createProcessLease({ coordinator, clock, logger: silentLogger, ttlMs: leaseMs }),
      clock,
      random: { bytes: (length) => randomBytes(length) },
      logger: silentLogger,
      meter: silentMeter,
      repositoryName: async () => 'team/app',
      version: '0.0.0',
      publicUrl: undefined,
      options: {
        enabled: options.enabled ?? true,
        concurrency: options.concurrency ?? 32,
        firstRetryMs: options.firstRetryMs ?? 10_000,
        retryForMs: 86_400_000,
        timeoutMs: options.timeoutMs ?? patienceMs,
        allowedNetworks: '127.0.0.1',
      },
    });
    this.#open.push(webhooks);
    return webhooks;
  }

  /** For a process that can be killed: then its coordinator does nothing more, and its leases end. */
  mortal(): { readonly on: Coordinator; readonly kill: () => Promise<void> } {
    const { coordinator } = this;
    const leases: Lease[] = [];
    let dead = false;
    const alive = <T>(run: () => Promise<T>): Promise<T> =>
      dead ? Promise.reject(new QuorateError('unavailable', 'dead')) : run();
    return {
      on: {
        ...intercepting(coordinator, () => alive),
        get: (key, options) => alive(() => coordinator.get(key, options)),
        range: (key, options) => alive(() => coordinator.range(key, options)),
        grantLease: async (ttlMs) => {
          const { id } = await alive(async () => {
            const lease = await coordinator.grantLease(ttlMs);
            leases.push(lease);
            return lease;
          });
          // The dead hear nothing of its end.
          return { id, ttlMs, lost: new AbortController().signal, revoke: async () => undefined };
        },
      },
      kill: async () => {
        dead = true;
        for (const lease of leases) await lease.revoke();
      },
    };
  }

  async receiver(): Promise<Receiver> {
    const opened = await Receiver.open();
    this.receivers.push(opened);
    return opened;
  }

  async stored(prefix: string): Promise<readonly string[]> {
    const { entries } = await this.coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
    return entries.map(({ key }) => key);
  }
}

const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: sleepInSteps,
};

export async function addWebhook(
  to: Webhooks,
  url: string,
  scope: WebhookScope = app,
): Promise<string> {
  const events = ['push', 'repository'] as const;
  return (await to.add(scope, { url, events, secret: 'a'.repeat(32), by: 'ann' })).id;
}

/** Commits that are told of: generations from `first` to `last`. */
export async function commit(by: Webhooks, first: number, last = first): Promise<void> {
  for (let generation = first; generation <= last; generation += 1) {
    const updates = [
      { ref: 'refs/heads/main', oldOid: 'a'.repeat(40), newOid: 'b'.repeat(40) },
    ] as const;
    await by.committed({
      repositoryId: 'r1',
      entry: {
        generation,
        pushId: `p${generation}`,
        updates,
        prepared: [],
        digest: '',
        actor: 'ann',
        atMs: 1_700_000_000_000 + generation,
      },
    });
  }
}

/** Of the pushes that a receiver was told of, in order. */
export function generations({ received }: Receiver): readonly number[] {
  const found = received.filter(({ event }) => event === 'push');
  return found.map(({ body }) => Number(body['generation'])).sort((a, b) => a - b);
}

export function upTo(last: number): readonly number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

/** Deliveries that have ended, newest first, once there are so many. */
export async function ended(of: Webhooks, id: string, count = 1): Promise<readonly Delivery[]> {
  return waitFor(`${count} to end`, async () => {
    const found = await of.deliveries(app, id);
    const done = found.filter(({ status }) => status !== 'pending');
    return done.length >= count ? done : undefined;
  });
}
