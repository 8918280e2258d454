import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Coordinator, Lease } from '../backends/contract/coordinator.js';
import type { Clock } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import { keys, prefixEnd } from '../backends/contract/keys.js';
import { openEmbeddedCoordinator } from '../backends/coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../backends/coordination/test-environment.js';
import { silentMeter } from '../backends/local/testing/local-fixture.js';
import { intercepting } from '../backends/replicated/testing/fault-coordinator.js';
import type { Delivery } from '../hooks/webhooks/delivery.js';
import { DeliveryQueue } from '../hooks/webhooks/delivery-queue.js';
import type { WebhookScope } from '../hooks/webhooks/webhook.js';
import { createWebhooks, type Webhooks } from '../hooks/webhooks/webhooks.js';
import { waitFor } from './wait.js';
import { Receiver } from './webhook-receiver.js';

// The queue of webhooks on a real coordinator with real receivers, and several processes' worth of senders on it.

let directory: string;
let coordinator: Coordinator;
let receivers: Receiver[];
let open: Webhooks[];
/** Ahead of the real time. */
let offsetMs: number;

const app: WebhookScope = { repositoryId: 'r1' };

/** Time passes as it does, but who sleeps for seconds soon looks whether it was turned. */
const clock: Clock = {
  nowMs: () => Date.now() + offsetMs,
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    const options = { ref: false, ...(signal === undefined ? {} : { signal }) };
    await delay(ms >= 1000 ? 20 : ms, undefined, options).catch(() => undefined);
  },
};

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-webhooks-'));
  coordinator = await openEmbeddedCoordinator({ directory, clock, logger: silentLogger });
  receivers = [];
  open = [];
  offsetMs = 0;
});
afterEach(async () => {
  for (const webhooks of open) await webhooks.close();
  for (const receiver of receivers) await receiver.close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

interface Options {
  readonly on?: Coordinator;
  readonly concurrency?: number;
  readonly firstRetryMs?: number;
  readonly enabled?: boolean;
}

/** What one process has. It sends nothing before `start`. */
function webhooksOf(options: Options = {}): Webhooks {
  const webhooks = createWebhooks({
    coordinator: options.on ?? coordinator,
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
      timeoutMs: 900,
      allowedNetworks: '127.0.0.1',
    },
  });
  open.push(webhooks);
  return webhooks;
}

async function receiver(): Promise<Receiver> {
  const opened = await Receiver.open();
  receivers.push(opened);
  return opened;
}

async function add(to: Webhooks, url: string, scope: WebhookScope = app): Promise<string> {
  const events = ['push', 'repository'] as const;
  return (await to.add(scope, { url, events, secret: 'a'.repeat(32), by: 'ann' })).id;
}

/** Commits that are told of: generations from `first` to `last`. */
async function commit(by: Webhooks, first: number, last = first): Promise<void> {
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

function generations({ received }: Receiver): readonly number[] {
  const found = received.filter(({ event }) => event === 'push');
  return found.map(({ body }) => Number(body['generation'])).sort((a, b) => a - b);
}

function upTo(last: number): readonly number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

async function ended(of: Webhooks, id: string, count = 1): Promise<readonly Delivery[]> {
  return waitFor(`${count} to end`, async () => {
    const found = await of.deliveries(app, id);
    const done = found.filter(({ status }) => status !== 'pending');
    return done.length >= count ? done : undefined;
  });
}

async function stored(prefix: string): Promise<readonly string[]> {
  const { entries } = await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
  return entries.map(({ key }) => key);
}

/** A process that can be killed: its coordinator does nothing more, and its leases end. */
function mortal(): { readonly on: Coordinator; readonly kill: () => Promise<void> } {
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
        const lease = await alive(() => coordinator.grantLease(ttlMs));
        leases.push(lease);
        // The dead hear nothing of it.
        return { ...lease, lost: new AbortController().signal, revoke: async () => undefined };
      },
    },
    kill: async () => {
      dead = true;
      for (const lease of leases) await lease.revoke();
    },
  };
}

test('what is queued again is delivered once', async () => {
  const ci = await receiver();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  await commit(webhooks, 1);
  await commit(webhooks, 1);
  webhooks.start();
  await ended(webhooks, id);
  await commit(webhooks, 1);
  await commit(webhooks, 2);
  await ended(webhooks, id, 2);
  assert.deepEqual(generations(ci), [1, 2]);
  assert.deepEqual(await stored(keys.webhookQueues), []);
});

test('several processes on one coordinator deliver everything once', async () => {
  const [ci, chat] = [await receiver(), await receiver()];
  const processes = [webhooksOf(), webhooksOf(), webhooksOf()];
  const [first, second, third] = processes;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  const id = await add(first, ci.url());
  await add(first, chat.url(), 'server');
  for (const one of processes) one.start();
  const last = 60;
  await Promise.all(
    processes.map(async (one, index) => {
      for (let n = 1 + index; n <= last; n += 3) await commit(one, n);
    }),
  );
  await ended(second, id, last);
  await waitFor('the other receiver', () => generations(chat).length >= last);
  await waitFor('the claims to go', async () => (await stored(keys.webhookClaims)).length === 0);
  assert.deepEqual(generations(ci), upTo(last));
  assert.deepEqual(generations(chat), upTo(last));
});

test('what a process leaves when it dies is delivered by another', async () => {
  const ci = await receiver();
  const { on, kill } = mortal();
  const dying = webhooksOf({ on });
  const living = webhooksOf();
  const id = await add(living, ci.url());
  ci.behaviour = () => undefined;
  dying.start();
  await commit(dying, 1, 3);
  await waitFor('an attempt', () => ci.received.length > 0);
  living.start();
  await waitFor('a look around', () => delay(100, true));
  assert.deepEqual(
    (await living.deliveries(app, id)).map(({ attempts }) => attempts),
    [0, 0, 0],
    'a claim is respected',
  );
  ci.behaviour = (_request, response) => void response.end();
  ci.received.length = 0;
  await kill();
  await ended(living, id, 3);
  assert.deepEqual([...new Set(generations(ci))], [1, 2, 3]);
});

test('a receiver that never answers costs the others nothing', async () => {
  const [silent, ci] = [await receiver(), await receiver()];
  silent.behaviour = () => undefined;
  const webhooks = webhooksOf({ concurrency: 6 });
  await add(webhooks, silent.url());
  const id = await add(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1, 30);
  await ended(webhooks, id, 30);
  assert.deepEqual(generations(ci), upTo(30));
  await waitFor('the silent one to be left alone', async () => {
    await delay(100);
    const waiting = await stored(keys.webhookQueues);
    return waiting.length === 30;
  });
  await delay(1200);
  assert.ok(silent.received.length <= 4, `${silent.received.length} attempts`);
  // After the pause one is sent to see whether it is back, and no more.
  offsetMs += 20_000;
  await waitFor('a probe', () => silent.received.length === 5);
  await delay(1200);
  assert.equal(silent.received.length, 5);
  silent.behaviour = (_request, response) => void response.end();
  offsetMs += 86_000_000;
  await waitFor('all of it', () => new Set(generations(silent)).size === 30);
});

test('a retry is due at its time, also after a restart', async () => {
  const ci = await receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const before = webhooksOf({ firstRetryMs: 60_000 });
  const id = await add(before, ci.url());
  await commit(before, 1);
  before.start();
  const [failed] = await waitFor('an attempt to be recorded', async () => {
    const found = await before.deliveries(app, id);
    return found[0]?.attempts === 1 ? found : undefined;
  });
  assert.ok(failed !== undefined);
  const pauseMs = failed.dueAtMs - (failed.last?.atMs ?? 0);
  assert.ok(pauseMs >= 30_000 && pauseMs <= 61_000, `${pauseMs} ms`);
  await before.close();
  assert.deepEqual(await stored(keys.webhookClaims), []);
  const after = webhooksOf({ firstRetryMs: 60_000 });
  after.start();
  await delay(200);
  assert.equal(ci.received.length, 1, 'not before its time');
  ci.behaviour = (_request, response) => void response.end();
  offsetMs += 61_000;
  const [delivery] = await ended(after, id);
  assert.equal(delivery?.status, 'delivered');
  assert.equal(delivery.attempts, 2);
});

test('pauses double, and in the end it is given up; then it can still be asked for', async () => {
  const ci = await receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end('no');
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1);
  const pausesMs: number[] = [];
  for (let attempts = 1; ; attempts += 1) {
    const [delivery] = await waitFor('an attempt to be recorded', async () => {
      const found = await webhooks.deliveries(app, id);
      return found[0]?.attempts === attempts ? found : undefined;
    });
    if (delivery?.status !== 'pending') break;
    const pauseMs = delivery.dueAtMs - clock.nowMs();
    pausesMs.push(pauseMs);
    offsetMs += pauseMs + 1;
  }
  for (const [index, pauseMs] of pausesMs.entries()) {
    const longest = Math.min(3_600_000, 10_000 * 2 ** index);
    assert.ok(pauseMs <= longest && pauseMs >= longest / 2 - 1000, `${index}: ${pauseMs} ms`);
  }
  assert.ok(pausesMs.length > 20 && pausesMs.length < 60, `${pausesMs.length} retries in a day`);
  const [given] = await webhooks.deliveries(app, id);
  assert.equal(given?.status, 'failed');
  assert.equal(given.last?.response, 'no');
  assert.deepEqual(await stored(keys.webhookQueues), []);
  ci.behaviour = (_request, response) => void response.end();
  await webhooks.redeliver(app, id, given.id);
  await waitFor('it to be delivered', async () => {
    const [again] = await webhooks.deliveries(app, id);
    return again?.status === 'delivered';
  });
  assert.equal(ci.received[0]?.text, ci.received.at(-1)?.text);
});

test('what is asked for is sent at once, though its receiver is left alone', async () => {
  const ci = await receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const webhooks = webhooksOf({ firstRetryMs: 3_000_000 });
  const other = webhooksOf();
  const id = await add(webhooks, ci.url());
  webhooks.start();
  other.start();
  await commit(webhooks, 1, 2);
  await waitFor('failures', async () => {
    const found = await webhooks.deliveries(app, id);
    const tried = found.reduce((sum, { attempts }) => sum + attempts, 0);
    return tried > 0 && tried === ci.received.length;
  });
  ci.behaviour = (_request, response) => void response.end();
  const [second, first] = await webhooks.deliveries(app, id);
  assert.ok(first !== undefined && second !== undefined);
  // By way of a process that does not deliver for this webhook.
  await other.redeliver(app, id, first.id);
  await waitFor('it to be delivered', async () => {
    return (await webhooks.delivery(app, id, first.id)).delivery.status === 'delivered';
  });
  const ping = await webhooks.test(app, id, null);
  await waitFor('the ping', async () => {
    return (await webhooks.delivery(app, id, ping.id)).delivery.status === 'delivered';
  });
});

test('what is asked for while it is under way is sent once more', async () => {
  const ci = await receiver();
  const answers: (() => void)[] = [];
  ci.behaviour = (_request, response) => void answers.push(() => response.end());
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1);
  await waitFor('an attempt', () => answers.length === 1);
  const [delivery] = await webhooks.deliveries(app, id);
  await webhooks.redeliver(app, id, delivery?.id ?? '');
  answers[0]?.();
  await waitFor('another attempt', () => answers.length === 2);
  answers[1]?.();
  await ended(webhooks, id);
  assert.equal(ci.received.length, 2);
});

test('so many are under way at once, and no more', async () => {
  const webhooks = webhooksOf({ concurrency: 5 });
  let underWay = 0;
  let most = 0;
  for (let n = 0; n < 6; n += 1) {
    const ci = await receiver();
    ci.behaviour = (_request, response) => {
      underWay += 1;
      most = Math.max(most, underWay);
      void delay(20).then(() => {
        underWay -= 1;
        return response.end();
      });
    };
    await add(webhooks, ci.url());
  }
  await commit(webhooks, 1, 6);
  webhooks.start();
  await waitFor('all to be delivered', async () => {
    return receivers.every((one) => generations(one).length === 6);
  });
  assert.equal(most, 5);
});

test('a webhook that goes while it is being told leaves nothing', async () => {
  const calm = webhooksOf();
  const id = await add(calm, 'http://127.0.0.1:1/');
  const racing = intercepting(coordinator, ({ success }) =>
    success.some(({ key }) => key.startsWith(keys.webhookQueues))
      ? async (run) => {
          await calm.remove(app, id);
          return run();
        }
      : undefined,
  );
  await commit(webhooksOf({ on: racing }), 1);
  assert.deepEqual(await stored('webhooks/'), []);
});

test('a ping is tried once', async () => {
  const ci = await receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const webhooks = webhooksOf();
  webhooks.start();
  const id = await add(webhooks, ci.url());
  await webhooks.test(app, id, null);
  const [ping] = await ended(webhooks, id);
  assert.equal(ping?.status, 'failed');
  assert.equal(ping.attempts, 1);
});

test('a webhook that is removed takes what waits along', async () => {
  const ci = await receiver();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  await commit(webhooks, 1, 5);
  await webhooks.remove(app, id);
  webhooks.start();
  await delay(200);
  assert.equal(ci.received.length, 0);
  assert.deepEqual(await stored('webhooks/'), []);
  await assert.rejects(webhooks.remove(app, id), { code: 'not-found' });
});

test('a repository that goes is heard to the end, and leaves nothing', async () => {
  const ci = await receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1);
  await waitFor('an attempt', () => ci.received.length > 0);
  const gone = {
    repositoryId: 'r1',
    name: 'team/app',
    epoch: 9,
    actor: 'ann',
    atMs: clock.nowMs(),
    change: { action: 'deleted' as const },
  };
  await webhooks.repositoryChanged(gone);
  await webhooks.repositoryChanged(gone);
  assert.deepEqual(await webhooks.list(app), []);
  await assert.rejects(webhooks.redeliver(app, id, '0'), { code: 'not-found' });
  await commit(webhooks, 2);
  ci.received.length = 0;
  ci.behaviour = (_request, response) => void response.end();
  offsetMs += 1_000_000;
  await waitFor('nothing to be left', async () => (await stored('webhooks/')).length === 0);
  assert.deepEqual(ci.received.map(({ event }) => event).sort(), ['push', 'repository']);
});

test('what a crash left of such a repository goes at the next start', async () => {
  const webhooks = webhooksOf();
  await add(webhooks, 'http://127.0.0.1:1/');
  const other = await add(webhooks, 'http://127.0.0.1:1/', { repositoryId: 'r2' });
  const [key = ''] = await stored(keys.webhooksOf('repositories/r1'));
  const record = await coordinator.get(key);
  const fields: object = JSON.parse(Buffer.from(record?.value ?? []).toString());
  const value = Buffer.from(JSON.stringify({ ...fields, retired: true }));
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value }],
    failure: [],
  });
  webhooks.start();
  await waitFor('it to go', async () => (await coordinator.get(key)) === undefined);
  assert.equal((await webhooks.list({ repositoryId: 'r2' }))[0]?.id, other);
});

test('of what has ended the last hundred are kept, with their bodies', async () => {
  const ci = await receiver();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1, 140);
  await waitFor('all of it', () => generations(ci).length === 140);
  const found = await waitFor('an end', async () => {
    const all = await webhooks.deliveries(app, id);
    return all.every(({ status }) => status === 'delivered') ? all : undefined;
  });
  assert.ok(found.length >= 100 && found.length <= 125, `${found.length} are kept`);
  assert.equal((await stored(keys.webhookBodies(id))).length, found.length);
  const newest = await webhooks.delivery(app, id, found[0]?.id ?? '');
  assert.equal(JSON.parse(Buffer.from(newest.body).toString()).generation, 140);
});

test('so many may wait, and the oldest are given up beyond', async () => {
  const webhooks = webhooksOf();
  const id = await add(webhooks, 'http://127.0.0.1:1/');
  await commit(webhooks, 1, 1_030);
  webhooks.start();
  await waitFor('it to be cut', async () => (await stored(keys.webhookQueue(id))).length <= 1_000);
  const all = await webhooks.deliveries(app, id);
  const dropped = all.filter(({ status }) => status === 'dropped');
  assert.ok(dropped.length > 0);
  const oldestWaiting = all.filter(({ status }) => status === 'pending').at(-1);
  for (const one of dropped) assert.ok(one.id < (oldestWaiting?.id ?? ''));
});

test('answers of the coordinator that are lost lose nothing', async () => {
  for (const happened of [false, true]) {
    let count = 0;
    const troubled = intercepting(coordinator, () => {
      count += 1;
      if (count % 3 !== 0) return undefined;
      return async (run) => {
        if (happened) await run();
        throw new QuorateError(happened ? 'outcome-unknown' : 'unavailable', 'a lost answer');
      };
    });
    const ci = await receiver();
    const calm = webhooksOf();
    const id = await add(calm, ci.url(), { repositoryId: 'r1' });
    const webhooks = webhooksOf({ on: troubled, firstRetryMs: 1 });
    webhooks.start();
    await commit(calm, 1, 8);
    await waitFor('all to be delivered', async () => {
      const found = await calm.deliveries(app, id);
      return found.length === 8 && found.every(({ status }) => status === 'delivered');
    });
    assert.deepEqual([...new Set(generations(ci))], upTo(8));
    await waitFor('the claim to go', async () => (await stored(keys.webhookClaims)).length === 0);
    await webhooks.close();
    await calm.remove(app, id);
  }
});

test('a claim whose taking or giving back was not heard of is found again', async () => {
  for (const type of ['put', 'delete'] as const) {
    let lost = 0;
    const troubled = intercepting(coordinator, ({ success }) => {
      const claims = success.some(
        (one) => one.type === type && one.key.startsWith(keys.webhookClaims),
      );
      if (!claims || lost > 0) return undefined;
      lost += 1;
      return async (run) => {
        await run();
        throw new QuorateError('outcome-unknown', 'a lost answer');
      };
    });
    const ci = await receiver();
    const webhooks = webhooksOf({ on: troubled });
    const id = await add(webhooks, ci.url());
    webhooks.start();
    await commit(webhooks, 1);
    await ended(webhooks, id);
    await waitFor('a lost answer', () => lost === 1);
    await commit(webhooks, 2);
    await ended(webhooks, id, 2);
    await waitFor('the claim to go', async () => (await stored(keys.webhookClaims)).length === 0);
    assert.deepEqual(generations(ci), [1, 2]);
    await webhooks.remove(app, id);
  }
});

test('a claim is given up with an empty queue only, and only by whom it is of', async () => {
  const queue = new DeliveryQueue(coordinator);
  const webhooks = webhooksOf();
  const id = await add(webhooks, 'http://127.0.0.1:1/');
  const [mine, theirs] = [
    await coordinator.grantLease(10_000),
    await coordinator.grantLease(10_000),
  ];
  const claim = await queue.claim(id, mine.id);
  assert.ok(claim !== undefined);
  assert.deepEqual(await queue.claim(id, mine.id), claim);
  assert.equal(await queue.claim(id, theirs.id), undefined);
  assert.deepEqual([...(await queue.claimedByOthers(theirs.id))], [id]);
  assert.deepEqual([...(await queue.claimedByOthers(mine.id))], []);
  await commit(webhooks, 1);
  assert.equal(await queue.release(claim, { whenEmpty: true }), 'not-empty');
  await mine.revoke();
  const next = await queue.claim(id, theirs.id);
  assert.ok(next !== undefined);
  assert.equal(await queue.release(claim, { whenEmpty: false }), 'lost');
  assert.equal(await queue.release(next, { whenEmpty: false }), 'released');
  assert.deepEqual(await stored(keys.webhookClaims), []);
});

test('a damaged record is in the way of no other', async () => {
  const ci = await receiver();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  await commit(webhooks, 1, 3);
  const [second = ''] = await stored(keys.webhookDeliveries(id));
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: second, value: Buffer.from('{"x":') }],
    failure: [],
  });
  webhooks.start();
  await ended(webhooks, id, 2);
  await waitFor('the queue to end', async () => (await stored(keys.webhookQueues)).length === 0);
  assert.deepEqual(generations(ci), [2, 3]);
});

test('a time that only a wrong clock can have set is not waited for', async () => {
  const ci = await receiver();
  const webhooks = webhooksOf();
  const id = await add(webhooks, ci.url());
  offsetMs = 10 * 86_400_000;
  await commit(webhooks, 1);
  offsetMs = 0;
  webhooks.start();
  await ended(webhooks, id);
});

test('closing leaves in the queue what is under way, and starts nothing more', async () => {
  const ci = await receiver();
  ci.behaviour = () => undefined;
  const first = webhooksOf();
  const id = await add(first, ci.url());
  first.start();
  await commit(first, 1, 10);
  await waitFor('attempts', () => ci.received.length === 4);
  await first.close();
  await commit(first, 11);
  assert.equal(ci.received.length, 4, 'four of one webhook at once');
  assert.equal((await stored(keys.webhookQueues)).length, 11);
  assert.deepEqual(await stored(keys.webhookClaims), []);
  const all = await first.deliveries(app, id);
  assert.ok(all.every(({ attempts }) => attempts === 0));
});

test('switched off, nothing is queued, taken or sent', async () => {
  const ci = await receiver();
  const on = webhooksOf();
  const id = await add(on, ci.url());
  await commit(on, 1);
  const off = webhooksOf({ enabled: false });
  off.start();
  await commit(off, 2);
  await delay(100);
  assert.equal((await on.deliveries(app, id)).length, 1);
  assert.equal(ci.received.length, 0);
  await assert.rejects(add(off, ci.url()), { code: 'failed-precondition' });
  await assert.rejects(off.test(app, id, null), { code: 'failed-precondition' });
});

test('there are bounds to webhooks', async () => {
  const webhooks = webhooksOf();
  for (let n = 0; n < 20; n += 1) await add(webhooks, `https://ci.example.org/${n}`);
  await assert.rejects(add(webhooks, 'https://ci.example.org/'), { code: 'resource-exhausted' });
  await add(webhooks, 'https://ci.example.org/', 'server');
  for (const webhook of await webhooks.list(app)) {
    assert.ok(!JSON.stringify(webhook).includes('aaaaaaaa'), 'no secret');
  }
});
