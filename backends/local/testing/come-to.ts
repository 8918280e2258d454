import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';

/** As patient as `until` of backends/contract/testing. */
const patienceMs = 60_000;

/** Waits, within bounds, until something is as expected: what an apply leaves behind goes after its answer. */
export async function comeTo<T>(expected: T, look: () => T | Promise<T>): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (performance.now() < deadlineMs) {
    try {
      assert.deepEqual(await look(), expected);
      return;
    } catch {
      await delay(20);
    }
  }
  assert.deepEqual(await look(), expected);
}
