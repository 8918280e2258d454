import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefsQueue } from './refs-queue.js';

test('judging goes before what waits, but for every second turn', async () => {
  const queue = new RefsQueue();
  const order: string[] = [];
  const task = (name: string) => () => {
    order.push(name);
    return Promise.resolve();
  };
  const all = [
    queue.run(task('apply 1')),
    queue.run(task('apply 2')),
    queue.run(task('apply 3')),
    queue.judge(task('judge 1')),
    queue.judge(task('judge 2')),
    queue.judge(task('judge 3')),
  ];
  assert.equal(queue.length, 6);
  await Promise.all(all);
  assert.deepEqual(order, ['apply 1', 'judge 1', 'apply 2', 'judge 2', 'apply 3', 'judge 3']);
  assert.equal(queue.length, 0);
});

test('one task runs at a time, and one that fails does not hold up the others', async () => {
  const queue = new RefsQueue();
  let running = 0;
  const step = async (): Promise<number> => {
    running += 1;
    assert.equal(running, 1);
    await new Promise(setImmediate);
    running -= 1;
    return running;
  };
  const failing = queue.run(() => Promise.reject(new Error('this one')));
  const others = Promise.all([queue.run(step), queue.judge(step), queue.run(step)]);
  await assert.rejects(failing, /this one/);
  assert.deepEqual(await others, [0, 0, 0]);
});
