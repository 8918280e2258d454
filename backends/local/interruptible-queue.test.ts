import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { InterruptibleQueue } from './interruptible-queue.js';

/** Runs until it is ended, and says so as maintenance does. */
function untilEnded(ended: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    ended.addEventListener('abort', () => reject(new QuorateError('cancelled', 'ended')));
  });
}

test('a short task ends a long one, which runs again behind it', async () => {
  const queue = new InterruptibleQueue();
  const order: string[] = [];
  let runs = 0;
  const long = queue.runLong(async (ended) => {
    order.push(`long ${++runs}`);
    if (runs === 1) await untilEnded(ended);
    return runs;
  });
  await new Promise((resolve) => setImmediate(resolve));
  const short = [1, 2].map((count) =>
    queue.runShort(async () => {
      order.push(`short ${count}`);
    }),
  );
  await Promise.all(short);
  assert.equal(await long, 2);
  assert.deepEqual(order, ['long 1', 'short 1', 'short 2', 'long 2']);
});

test('tasks never overlap, and a failure of one is its own', async () => {
  const queue = new InterruptibleQueue();
  let running = 0;
  const task = async (): Promise<void> => {
    assert.equal(++running, 1);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
  };
  await Promise.all([
    queue.runLong(task),
    queue.runShort(task),
    assert.rejects(queue.runLong(() => Promise.reject(new QuorateError('cancelled', 'by caller')))),
    queue.runLong(task),
    assert.rejects(queue.runShort(() => Promise.reject(new Error('no')))),
    queue.runShort(task),
  ]);
});

test('a long task that is ended again and again is given up', async () => {
  const queue = new InterruptibleQueue();
  const given = assert.rejects(queue.runLong(untilEnded), { code: 'aborted' });
  for (let count = 0; count < 50; count++) {
    await queue.runShort(() => Promise.resolve());
    await new Promise((resolve) => setImmediate(resolve));
  }
  await given;
});

const never = (): never => assert.fail('it was given up');

test('a long task that is given up waits for its turn no more, and never begins', async () => {
  const queue = new InterruptibleQueue();
  const givingUp = new AbortController();
  const events = new EventEmitter();
  const before = queue.runLong(() => once(events, 'finish'));
  await new Promise((resolve) => setImmediate(resolve));
  const given = queue.runLong(never, givingUp.signal);
  givingUp.abort();
  await assert.rejects(given, { code: 'cancelled' });
  await assert.rejects(queue.runLong(never, givingUp.signal), { code: 'cancelled' });
  events.emit('finish');
  await before;
  assert.equal(await queue.runLong(() => Promise.resolve(1), new AbortController().signal), 1);
});

test('a long task that is given up when it runs keeps its turn to its end', async () => {
  const queue = new InterruptibleQueue();
  const givingUp = new AbortController();
  const order: string[] = [];
  const long = queue.runLong(async () => {
    givingUp.abort();
    await new Promise((resolve) => setImmediate(resolve));
    order.push('long');
  }, givingUp.signal);
  const next = queue.runLong(async () => void order.push('next'));
  await Promise.all([long, next]);
  assert.deepEqual(order, ['long', 'next']);
});
