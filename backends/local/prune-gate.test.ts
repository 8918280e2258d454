import assert from 'node:assert/strict';
import { test } from 'node:test';
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
