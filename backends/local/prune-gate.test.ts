import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { PruneGate } from './prune-gate.js';

test('no prune starts while a push is between its judgement and its refs', async () => {
  const gate = new PruneGate();
  const leave = await gate.enter();
  let pruned = false;
  const prune = async (): Promise<void> => {
    pruned = true;
  };
  assert.equal(await gate.tryPrune(prune), false);
  assert.equal(pruned, false);
  leave();
  leave();
  assert.equal(await gate.tryPrune(prune), true);
  assert.equal(pruned, true);
});

test('a push is judged only once a running prune is over, also when that fails', async () => {
  const gate = new PruneGate();
  const order: string[] = [];
  const failing = gate.tryPrune(async () => {
    await Promise.resolve();
    order.push('pruned');
    throw new Error('disk');
  });
  const entered = gate.enter().then((leave) => {
    order.push('judged');
    return leave;
  });
  await assert.rejects(failing, /disk/);
  (await entered)();
  assert.deepEqual(order, ['pruned', 'judged']);
  assert.equal(await gate.tryPrune(async () => undefined), true);
});

test('a push ends a prune that runs, and is judged when it is over', async () => {
  const gate = new PruneGate();
  let over = false;
  const pruning = gate.tryPrune(async (signal) => {
    await once(signal, 'abort');
    await new Promise(setImmediate);
    over = true;
    throw new QuorateError('cancelled', 'ended');
  });
  assert.equal(gate.occupied, true);
  const leave = await gate.enter();
  assert.equal(over, true);
  assert.equal(await pruning, false);
  assert.equal(gate.occupied, true);
  leave();
  assert.equal(gate.occupied, false);
});
