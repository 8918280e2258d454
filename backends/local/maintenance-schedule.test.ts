import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { noMeter, quietLogger } from '../git/testing/repository.js';
import { MaintenanceSchedule } from './maintenance-schedule.js';

/** A schedule whose time passes when it sleeps, up to where the test lets it. */
function scheduleFor(context: TestContext): {
  readonly looks: string[];
  readonly push: (...repositories: readonly string[]) => void;
  readonly pass: (ms: number) => Promise<void>;
} {
  const looks: string[] = [];
  let nowMs = 0;
  let sleeping: { readonly untilMs: number; readonly wake: () => void } | undefined;
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const wake = (): void => {
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        sleeping = { untilMs: nowMs + ms, wake };
        signal?.addEventListener('abort', wake);
      }),
  };
  const schedule = new MaintenanceSchedule({
    enabled: true,
    replica: () => ({
      needsMaintenance: async (id) => {
        looks.push(`${id} at ${nowMs}`);
        if (id === 'unlucky') throw new QuorateError('unavailable', 'the coordinator is lost');
        return Promise.resolve('none');
      },
      maintain: () => assert.fail('nobody needs it'),
    }),
    clock,
    logger: quietLogger,
    meter: noMeter,
  });
  context.after(() => schedule.close());
  const pass = async (ms: number): Promise<void> => {
    const endMs = nowMs + ms;
    while (sleeping !== undefined && sleeping.untilMs <= endMs) {
      nowMs = sleeping.untilMs;
      const { wake } = sleeping;
      sleeping = undefined;
      wake();
      await setImmediate();
    }
    nowMs = endMs;
  };
  const push = (...repositories: readonly string[]): void => {
    for (const id of repositories) schedule.consider(id);
  };
  return { looks, push, pass };
}

test('a burst of pushes is looked at once, soon after it', async (context) => {
  const { looks, push, pass } = scheduleFor(context);
  push('a', 'a', 'b', 'a');
  await pass(3000);
  assert.deepEqual(looks, ['a at 1000', 'b at 1000']);
});

test('pushes that come one by one are looked at together, and the last one, too', async (context) => {
  const { looks, push, pass } = scheduleFor(context);
  for (let turn = 0; turn < 8; turn++) {
    push('a');
    await pass(5000);
  }
  await pass(60_000);
  assert.deepEqual(looks, ['a at 1000', 'a at 31000', 'a at 61000']);
});

test('many pushes are not left waiting', async (context) => {
  const { looks, push, pass } = scheduleFor(context);
  push('a');
  await pass(1000);
  for (let n = 0; n < 20; n++) push('a');
  await pass(1000);
  assert.deepEqual(looks, ['a at 1000', 'a at 2000']);
});

test('maintenance that the loss of the coordinator puts off is no error', async (context) => {
  const errors = context.mock.method(quietLogger, 'error');
  const warnings = context.mock.method(quietLogger, 'warn');
  const { push, pass } = scheduleFor(context);
  push('unlucky');
  await pass(60_000);
  assert.equal(errors.mock.callCount(), 0);
  assert.equal(warnings.mock.calls[0]?.arguments[1], 'maintenance is put off');
});
