import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';

/** Waits, within bounds, until something is as expected: what an apply leaves behind goes after its answer. */
export async function comeTo<T>(expected: T, look: () => T | Promise<T>): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    try {
      assert.deepEqual(await look(), expected);
      return;
    } catch {
      await delay(20);
    }
  }
  assert.deepEqual(await look(), expected);
}
