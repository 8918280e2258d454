import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { until } from '../../contract/testing/until.js';

/** Waits until something is as expected: what an apply leaves behind goes after its answer. */
export async function comeTo<T>(expected: T, look: () => T | Promise<T>): Promise<void> {
  await until('it to come to this', async () => isDeepStrictEqual(await look(), expected)).catch(
    () => undefined,
  );
  assert.deepEqual(await look(), expected);
}
