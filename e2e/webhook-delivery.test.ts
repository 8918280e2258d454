import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { keys } from '../backends/contract/keys.js';
import { intercepting } from '../backends/replicated/testing/fault-coordinator.js';
import { DeliveryQueue } from '../hooks/webhooks/delivery-queue.js';
import { waitFor } from './wait.js';
import {
  addWebhook,
  app,
  commit,
  ended,
  generations,
  upTo,
  WebhookGround,
} from './webhook-ground.js';

// What becomes of a delivery: when it is tried, how long, what is kept, and who else waits for it.

let at: WebhookGround;
beforeEach(async () => {
  at = await WebhookGround.embedded();
});
afterEach(() => at.close());

test('a receiver that never answers costs the others nothing', async () => {
  at.stopClock();
  const [silent, ci] = [await at.receiver(), await at.receiver()];
  silent.behaviour = () => undefined;
  const webhooks = at.process({ concurrency: 6, timeoutMs: 900 });
  const left = await addWebhook(webhooks, silent.url());
  const id = await addWebhook(webhooks, ci.url());
  /** Resolves when nothing is under way to the silent one any more. */
  const given = () =>
    waitFor('what was tried to be given up', async () => {
      const tried = await webhooks.deliveries(app, left);
      const attempts = tried.reduce((sum, delivery) => sum + delivery.attempts, 0);
      return attempts > 0 && attempts === silent.received.length;
    });
  webhooks.start();
  await commit(webhooks, 1, 30);
  await ended(webhooks, id, 30);
  assert.deepEqual(generations(ci), upTo(30));
  await waitFor('the silent one to be left alone', async () => {
    await delay(100);
    const waiting = await at.stored(keys.webhookQueues);
    return waiting.length === 30;
  });
  await given();
  await delay(300);
  const attempts = silent.received.length;
  assert.ok(attempts <= 4, `${attempts} attempts`);
  // After the pause one is sent to see whether it is back, and no more.
  at.offsetMs += 10_500;
  await waitFor('a probe', () => silent.received.length > attempts);
  await given();
  await delay(300);
  assert.equal(silent.received.length, attempts + 1);
  const held = new Set<() => void>();
  let back = 0;
  silent.behaviour = (_request, response) => {
    back += 1;
    const answer = (): void => void response.end();
    if (back === 1) return answer();
    held.add(answer);
    response.once('close', () => held.delete(answer));
  };
  at.startClock();
  at.offsetMs += 1_000_000;
  await waitFor('several at once again', () => held.size > 1);
  silent.behaviour = (_request, response) => void response.end();
  for (const answer of held) answer();
  await waitFor('all of it', () => new Set(generations(silent)).size === 30);
});

test('a retry is due at its time, also after a restart', async () => {
  const ci = await at.receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const before = at.process({ firstRetryMs: 60_000 });
  const id = await addWebhook(before, ci.url());
  await commit(before, 1);
  before.start();
  const [failed] = await waitFor('an attempt to be recorded', async () => {
    const found = await before.deliveries(app, id);
    return found[0]?.attempts === 1 ? found : undefined;
  });
  assert.ok(failed !== undefined);
  const pauseMs = failed.dueAtMs - (failed.last?.atMs ?? 0);
  assert.ok(pauseMs >= 30_000 && pauseMs <= 120_000, `${pauseMs} ms`);
  await before.close();
  assert.deepEqual(await at.stored(keys.webhookClaims), []);
  const after = at.process({ firstRetryMs: 60_000 });
  after.start();
  await delay(200);
  assert.equal(ci.received.length, 1, 'not before its time');
  ci.behaviour = (_request, response) => void response.end();
  at.offsetMs += 61_000;
  const [delivery] = await ended(after, id);
  assert.equal(delivery?.status, 'delivered');
  assert.equal(delivery.attempts, 2);
});

test('pauses double, and in the end it is given up; then it can still be asked for', async () => {
  const ci = await at.receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end('no');
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1);
  /** What is left of each pause, and all of it with the attempt before it. */
  const pauses: { readonly leftMs: number; readonly wholeMs: number }[] = [];
  for (let attempts = 1; ; attempts += 1) {
    const [delivery] = await waitFor('an attempt to be recorded', async () => {
      const found = await webhooks.deliveries(app, id);
      return found[0]?.attempts === attempts ? found : undefined;
    });
    if (delivery?.status !== 'pending') break;
    const leftMs = delivery.dueAtMs - at.clock.nowMs();
    pauses.push({ leftMs, wholeMs: delivery.dueAtMs - (delivery.last?.atMs ?? 0) });
    at.offsetMs += leftMs + 1;
  }
  for (const [index, { leftMs, wholeMs }] of pauses.entries()) {
    const longest = Math.min(3_600_000, 10_000 * 2 ** index);
    assert.ok(leftMs <= longest && wholeMs >= longest / 2, `${index}: ${leftMs}, ${wholeMs} ms`);
  }
  assert.ok(pauses.length > 20 && pauses.length < 60, `${pauses.length} retries in a day`);
  const [given] = await webhooks.deliveries(app, id);
  assert.equal(given?.status, 'failed');
  assert.equal(given.last?.response, 'no');
  assert.deepEqual(await at.stored(keys.webhookQueues), []);
  ci.behaviour = (_request, response) => void response.end();
  await webhooks.redeliver(app, id, given.id);
  await waitFor('it to be delivered', async () => {
    const [again] = await webhooks.deliveries(app, id);
    return again?.status === 'delivered';
  });
  assert.equal(ci.received[0]?.text, ci.received.at(-1)?.text);
});

test('what is asked for while it is under way is sent once more', async () => {
  const ci = await at.receiver();
  const answers: (() => void)[] = [];
  ci.behaviour = (_request, response) => void answers.push(() => response.end());
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
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

test('so many are under way at once, and no more', async (t) => {
  const warned: string[] = [];
  const note = (warning: Error): void => void warned.push(warning.message);
  process.on('warning', note);
  t.after(() => process.off('warning', note));
  const webhooks = at.process({ concurrency: 5 });
  const underWay: (() => void)[] = [];
  let most = 0;
  for (let n = 0; n < 6; n += 1) {
    const ci = await at.receiver();
    ci.behaviour = (_request, response) => {
      underWay.push(() => void response.end());
      most = Math.max(most, underWay.length);
    };
    await addWebhook(webhooks, ci.url());
  }
  await commit(webhooks, 1, 6);
  webhooks.start();
  await waitFor('as many as there may be', () => underWay.length === 5);
  // None comes beyond them.
  await delay(100);
  await waitFor('all to be delivered', () => {
    for (const answer of underWay.splice(0)) answer();
    return at.receivers.every((one) => generations(one).length === 6);
  });
  assert.equal(most, 5);
  assert.deepEqual(warned, [], 'many listeners are no leak');
});

test('a ping is tried once', async () => {
  const ci = await at.receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const webhooks = at.process();
  webhooks.start();
  const id = await addWebhook(webhooks, ci.url());
  await webhooks.test(app, id, null);
  const [ping] = await ended(webhooks, id);
  assert.equal(ping?.status, 'failed');
  assert.equal(ping.attempts, 1);
});

test('a webhook that is removed takes what waits along', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  await commit(webhooks, 1, 5);
  await webhooks.remove(app, id);
  webhooks.start();
  await delay(200);
  assert.equal(ci.received.length, 0);
  assert.deepEqual(await at.stored('webhooks/'), []);
  await assert.rejects(webhooks.remove(app, id), { code: 'not-found' });
});

test('a repository that goes is heard to the end, and leaves nothing', async () => {
  const ci = await at.receiver();
  ci.behaviour = (_request, response) => void response.writeHead(500).end();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1);
  await waitFor('an attempt', () => ci.received.length > 0);
  const gone = {
    repositoryId: 'r1',
    name: 'team/app',
    epoch: 9,
    actor: 'ann',
    atMs: at.clock.nowMs(),
    change: { action: 'deleted' as const },
  };
  await webhooks.repositoryChanged(gone);
  await webhooks.repositoryChanged(gone);
  assert.deepEqual(await webhooks.list(app), []);
  await assert.rejects(webhooks.redeliver(app, id, '0'), { code: 'not-found' });
  await commit(webhooks, 2);
  ci.received.length = 0;
  ci.behaviour = (_request, response) => void response.end();
  at.offsetMs += 1_000_000;
  await waitFor('nothing to be left', async () => (await at.stored('webhooks/')).length === 0);
  assert.deepEqual(ci.received.map(({ event }) => event).sort(), ['push', 'repository']);
});

test('what a crash left of such a repository goes at the next start', async () => {
  const webhooks = at.process();
  await addWebhook(webhooks, 'http://127.0.0.1:1/');
  const other = await addWebhook(webhooks, 'http://127.0.0.1:1/', { repositoryId: 'r2' });
  const [key = ''] = await at.stored(keys.webhooksOf('repositories/r1'));
  const record = await at.coordinator.get(key);
  const fields: object = JSON.parse(Buffer.from(record?.value ?? []).toString());
  const value = Buffer.from(JSON.stringify({ ...fields, retired: true }));
  await at.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value }],
    failure: [],
  });
  webhooks.start();
  await waitFor('it to go', async () => (await at.coordinator.get(key)) === undefined);
  assert.equal((await webhooks.list({ repositoryId: 'r2' }))[0]?.id, other);
});

test('of what has ended the last hundred are kept, with their bodies', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1, 140);
  await waitFor('all of it', () => generations(ci).length === 140);
  // The oldest may just be going.
  const found = await waitFor('an end, and a body of each', async () => {
    const all = await webhooks.deliveries(app, id);
    const bodies = await at.stored(keys.webhookBodies(id));
    const over = all.every(({ status }) => status === 'delivered');
    return over && bodies.length === all.length ? all : undefined;
  });
  assert.ok(found.length >= 100 && found.length <= 125, `${found.length} are kept`);
  const newest = await webhooks.delivery(app, id, found[0]?.id ?? '');
  assert.equal(JSON.parse(Buffer.from(newest.body).toString()).generation, 140);
});

test('so many may wait, and the oldest are given up beyond', async () => {
  const webhooks = at.process();
  const id = await addWebhook(webhooks, 'http://127.0.0.1:1/');
  await commit(webhooks, 1, 1_030);
  webhooks.start();
  await waitFor(
    'it to be cut',
    async () => (await at.stored(keys.webhookQueue(id))).length <= 1_000,
  );
  const all = await webhooks.deliveries(app, id);
  const dropped = all.filter(({ status }) => status === 'dropped');
  assert.ok(dropped.length > 0);
  const oldestWaiting = all.filter(({ status }) => status === 'pending').at(-1);
  for (const one of dropped) assert.ok(one.id < (oldestWaiting?.id ?? ''));
});

test('a damaged webhook is in the way of no other, and can be removed', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const damaged = await addWebhook(webhooks, ci.url());
  const id = await addWebhook(webhooks, ci.url());
  const value = Buffer.from('{"url":');
  await at.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.webhook('repositories/r1', damaged), value }],
    failure: [],
  });
  webhooks.start();
  await commit(webhooks, 1);
  await ended(webhooks, id);
  assert.deepEqual(
    (await webhooks.list(app)).map((webhook) => webhook.id),
    [id],
  );
  await webhooks.remove(app, damaged);
});

test('trouble of the server itself is no reason to hurry, whoever asked for it', async () => {
  const webhooks = at.process();
  const id = await addWebhook(webhooks, 'http://127.0.0.1:1/');
  await webhooks.test(app, id, null);
  const key = keys.webhook('repositories/r1', id);
  await at.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: Buffer.from('{') }],
    failure: [],
  });
  let looks = 0;
  const counted = at.process({
    on: {
      ...intercepting(at.coordinator, () => undefined),
      get: (wanted, options) => {
        if (wanted === key) looks += 1;
        return at.coordinator.get(wanted, options);
      },
    },
  });
  counted.start();
  await waitFor('a look', () => looks > 0);
  await delay(200);
  assert.equal(looks, 1);
  at.offsetMs += 10_000;
  await waitFor('another look', () => looks > 1);
});

test('what is asked for again is not cleared away as too old', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  webhooks.start();
  await commit(webhooks, 1, 120);
  await ended(webhooks, id, 120);
  await webhooks.close();
  // As it is when so many have ended just now.
  const calm = at.process();
  await commit(calm, 121, 130);
  const queue = new DeliveryQueue(at.coordinator);
  for (const { id: delivery } of await queue.waiting(id, 10)) {
    const read = await queue.read(id, delivery);
    assert.ok(read !== undefined);
    await queue.change(id, read, { ...read.delivery, status: 'delivered' });
  }
  const oldest = (await calm.deliveries(app, id)).at(-1)?.id ?? '';
  const racing = intercepting(at.coordinator, () => async (run) => {
    await calm.redeliver(app, id, oldest);
    return run();
  });
  await new DeliveryQueue(racing).prune(id);
  assert.equal((await calm.delivery(app, id, oldest)).delivery.status, 'pending');
  await queue.prune(id);
  assert.equal((await calm.deliveries(app, id)).length, 101);
});

test('a damaged record is in the way of no other', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  await commit(webhooks, 1, 3);
  const [second = ''] = await at.stored(keys.webhookDeliveries(id));
  await at.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: second, value: Buffer.from('{"x":') }],
    failure: [],
  });
  webhooks.start();
  await ended(webhooks, id, 2);
  await waitFor('the queue to end', async () => (await at.stored(keys.webhookQueues)).length === 0);
  assert.deepEqual(generations(ci), [2, 3]);
});

test('a time that only a wrong clock can have set is not waited for', async () => {
  const ci = await at.receiver();
  const webhooks = at.process();
  const id = await addWebhook(webhooks, ci.url());
  at.offsetMs = 10 * 86_400_000;
  await commit(webhooks, 1);
  at.offsetMs = 0;
  webhooks.start();
  await ended(webhooks, id);
});

test('switched off, nothing is queued, taken or sent', async () => {
  const ci = await at.receiver();
  const on = at.process();
  const id = await addWebhook(on, ci.url());
  await commit(on, 1);
  const off = at.process({ enabled: false });
  off.start();
  await commit(off, 2);
  await delay(100);
  assert.equal((await on.deliveries(app, id)).length, 1);
  assert.equal(ci.received.length, 0);
  await assert.rejects(addWebhook(off, ci.url()), { code: 'failed-precondition' });
  await assert.rejects(off.test(app, id, null), { code: 'failed-precondition' });
});

test('there are bounds to webhooks', async () => {
  const webhooks = at.process();
  for (let n = 0; n < 20; n += 1) await addWebhook(webhooks, `https://ci.example.org/${n}`);
  await assert.rejects(addWebhook(webhooks, 'https://ci.example.org/'), {
    code: 'resource-exhausted',
  });
  await addWebhook(webhooks, 'https://ci.example.org/', 'server');
  for (const webhook of await webhooks.list(app)) {
    assert.ok(!JSON.stringify(webhook).includes('aaaaaaaa'), 'no secret');
  }
});
