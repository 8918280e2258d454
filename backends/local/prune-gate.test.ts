import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { LiveQuarantines } from './live-quarantines.js';
import { PruneGate } from './prune-gate.js';
import { SpareQuarantines } from './spare-quarantines.js';

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

test('a push that is asked for twice at once stays once, and not beyond its end', async () => {
  const gate = new PruneGate();
  const spares = new SpareQuarantines('/absent');
  const store = { quarantineDirectory: unused, spares };
  const live = new LiveQuarantines({ monotonicMs: () => 0 }, store);
  const key = { repositoryId: 'ab'.repeat(16), pushId: 'a-push-id', attempt: 1 };
  const push = live.remember(key);
  await Promise.all([live.enterGate(push, gate), live.enterGate(push, gate)]);
  assert.equal(gate.judging, 1);
  live.forget(key);
  assert.equal(gate.judging, 0);
  const late = live.enterGate(live.remember(key), gate);
  live.forget(key);
  await late;
  assert.equal(gate.judging, 0);
});

function unused(): never {
  throw new Error('no quarantine is looked for here');
}
