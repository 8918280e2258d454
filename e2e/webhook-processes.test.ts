import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { QuorateError } from '../backends/contract/errors.js';
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

// Several processes that deliver to webhooks, on one coordinator of either kind.

let at: WebhookGround;

for (const kind of ['embedded', 'etcd'] as const) {
  describe(`webhooks with the ${kind} coordinator`, () => {
    beforeEach(async () => {
      at = await WebhookGround[kind]();
    });
    afterEach(() => at.close());

    test('what is queued again is delivered once', async () => {
      const ci = await at.receiver();
      const webhooks = at.process();
      const id = await addWebhook(webhooks, ci.url());
      await commit(webhooks, 1);
      await commit(webhooks, 1);
      webhooks.start();
      await ended(webhooks, id);
      await commit(webhooks, 1);
      await commit(webhooks, 2);
      await ended(webhooks, id, 2);
      assert.deepEqual(generations(ci), [1, 2]);
      assert.deepEqual(await at.stored(keys.webhookQueues), []);
    });

    test('several processes on one coordinator deliver everything once', async () => {
      const [ci, chat] = [await at.receiver(), await at.receiver()];
      const processes = [at.process(), at.process(), at.process()];
      const [first, second, third] = processes;
      assert.ok(first !== undefined && second !== undefined && third !== undefined);
      const id = await addWebhook(first, ci.url());
      await addWebhook(first, chat.url(), 'server');
      for (const one of processes) one.start();
      const last = 60;
      await Promise.all(
        processes.map(async (one, index) => {
          for (let n = 1 + index; n <= last; n += 3) await commit(one, n);
        }),
      );
      await ended(second, id, last);
      await waitFor('the other receiver', () => generations(chat).length >= last);
      await waitFor(
        'the claims to go',
        async () => (await at.stored(keys.webhookClaims)).length === 0,
      );
      assert.deepEqual(generations(ci), upTo(last));
      assert.deepEqual(generations(chat), upTo(last));
    });

    test('what a process leaves when it dies is delivered by another', async () => {
      const ci = await at.receiver();
      const { on, kill } = at.mortal();
      const dying = at.process({ on });
      const living = at.process();
      const id = await addWebhook(living, ci.url());
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

    test('what is asked for is sent at once, though its receiver is left alone', async () => {
      const ci = await at.receiver();
      ci.behaviour = (_request, response) => void response.writeHead(500).end();
      const webhooks = at.process({ firstRetryMs: 3_000_000 });
      const other = at.process();
      const id = await addWebhook(webhooks, ci.url());
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

    test('answers of the coordinator that are lost lose nothing', async () => {
      for (const happened of [false, true]) {
        let count = 0;
        const troubled = intercepting(at.coordinator, () => {
          count += 1;
          if (count % 3 !== 0) return undefined;
          return async (run) => {
            if (happened) await run();
            throw new QuorateError(happened ? 'outcome-unknown' : 'unavailable', 'a lost answer');
          };
        });
        const ci = await at.receiver();
        const calm = at.process();
        const id = await addWebhook(calm, ci.url(), { repositoryId: 'r1' });
        const webhooks = at.process({ on: troubled, firstRetryMs: 1 });
        webhooks.start();
        await commit(calm, 1, 8);
        await waitFor('all to be delivered', async () => {
          const found = await calm.deliveries(app, id);
          return found.length === 8 && found.every(({ status }) => status === 'delivered');
        });
        assert.deepEqual([...new Set(generations(ci))], upTo(8));
        await waitFor(
          'the claim to go',
          async () => (await at.stored(keys.webhookClaims)).length === 0,
        );
        await webhooks.close();
        await calm.remove(app, id);
      }
    });

    test('who loses its lease lets go, and begins anew under another', async () => {
      const ci = await at.receiver();
      const lost = new AbortController();
      const on = {
        ...intercepting(at.coordinator, () => undefined),
        grantLease: async (ttlMs: number) => {
          const lease = await at.coordinator.grantLease(ttlMs);
          if (lost.signal.aborted) return lease;
          lost.signal.addEventListener('abort', () => void lease.revoke());
          return { id: lease.id, ttlMs, lost: lost.signal, revoke: () => lease.revoke() };
        },
      };
      ci.behaviour = () => undefined;
      const webhooks = at.process({ on });
      const id = await addWebhook(webhooks, ci.url());
      webhooks.start();
      await commit(webhooks, 1);
      await waitFor('an attempt', () => ci.received.length === 1);
      ci.behaviour = (_request, response) => void response.end();
      lost.abort();
      const [delivery] = await ended(webhooks, id);
      assert.equal(delivery?.attempts, 1, 'the one that was cut off says nothing');
      assert.equal(ci.received.length, 2);
    });

    test('a claim whose taking or giving back was not heard of is found again', async () => {
      for (const type of ['put', 'delete'] as const) {
        let lost = 0;
        const troubled = intercepting(at.coordinator, ({ success }) => {
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
        const ci = await at.receiver();
        const webhooks = at.process({ on: troubled });
        const id = await addWebhook(webhooks, ci.url());
        webhooks.start();
        await commit(webhooks, 1);
        await ended(webhooks, id);
        await waitFor('a lost answer', () => lost === 1);
        await commit(webhooks, 2);
        await ended(webhooks, id, 2);
        await waitFor(
          'the claim to go',
          async () => (await at.stored(keys.webhookClaims)).length === 0,
        );
        assert.deepEqual(generations(ci), [1, 2]);
        await webhooks.remove(app, id);
        await webhooks.close();
      }
    });

    test('a claim is given up with an empty queue only, and only by whom it is of', async () => {
      const queue = new DeliveryQueue(at.coordinator);
      const webhooks = at.process();
      const id = await addWebhook(webhooks, 'http://127.0.0.1:1/');
      const [mine, theirs] = [
        await at.coordinator.grantLease(600_000),
        await at.coordinator.grantLease(600_000),
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
      assert.deepEqual(await at.stored(keys.webhookClaims), []);
    });

    test('a webhook that goes while it is being told leaves nothing', async () => {
      const calm = at.process();
      const id = await addWebhook(calm, 'http://127.0.0.1:1/');
      const racing = intercepting(at.coordinator, ({ success }) =>
        success.some(({ key }) => key.startsWith(keys.webhookQueues))
          ? async (run) => {
              await calm.remove(app, id);
              return run();
            }
          : undefined,
      );
      await commit(at.process({ on: racing }), 1);
      assert.deepEqual(await at.stored('webhooks/'), []);
    });

    test('closing leaves in the queue what is under way, and starts nothing more', async () => {
      const ci = await at.receiver();
      ci.behaviour = () => undefined;
      const first = at.process();
      const id = await addWebhook(first, ci.url());
      first.start();
      await commit(first, 1, 10);
      await waitFor('attempts', () => ci.received.length === 4);
      await first.close();
      await commit(first, 11);
      assert.equal(ci.received.length, 4, 'four of one webhook at once');
      assert.equal((await at.stored(keys.webhookQueues)).length, 11);
      assert.deepEqual(await at.stored(keys.webhookClaims), []);
      const all = await first.deliveries(app, id);
      assert.ok(all.every(({ attempts }) => attempts === 0));
    });
  });
}
