import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock, Logger } from '../backends/contract/environment.js';
import { Teardown } from './teardown.js';

const messages: string[] = [];
const logger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: (_fields, message) => messages.push(message),
  child: () => logger,
};

function clockThat(sleep: Clock['sleep']): Clock {
  return { nowMs: () => 0, monotonicMs: () => 0, sleep };
}
const never = (): Promise<void> => new Promise(() => undefined);

test('parts are closed in reverse order, each after the one before it, and once', async () => {
  const closed: string[] = [];
  const teardown = new Teardown({ clock: clockThat(never), logger });
  for (const name of ['store', 'service', 'listener']) {
    teardown.add(name, async () => {
      await Promise.resolve();
      closed.push(name);
    });
  }
  assert.equal(await teardown.run(), true);
  await teardown.run();
  assert.deepEqual(closed, ['listener', 'service', 'store']);
});

test('a part that fails or hangs does not keep the others open', async () => {
  const closed: string[] = [];
  const teardown = new Teardown({ clock: clockThat(() => Promise.resolve()), logger });
  teardown.add('store', () => {
    closed.push('store');
    return Promise.resolve();
  });
  teardown.add('failing', () => Promise.reject(new Error('broken')));
  teardown.add('hanging', never);
  assert.equal(await teardown.run(), false);
  assert.deepEqual(closed, ['store']);
  assert.deepEqual(messages, ['a part did not close in time', 'a part failed to close']);
});
