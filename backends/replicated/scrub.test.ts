import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { comeTo } from '../local/testing/come-to.js';
import { startLocal } from '../local/testing/local-fixture.js';
import { Scrub } from './scrub.js';

const hourMs = 60 * 60_000;

test('all is read once in the interval, and damage is told where others can heal it', async () => {
  const local = await startLocal();
  try {
    const ids = new Set<string>();
    for (const name of ['a', 'b', 'c']) ids.add((await local.create(name)).id);
    const [node] = (await local.backend.stores?.nodes()) ?? [];
    assert.ok(node?.storeId !== undefined);
    for (const heals of [true, false]) {
      const clock = createManualClock();
      const read: string[] = [];
      const reported: string[] = [];
      const errors: object[] = [];
      const scrub = new Scrub({
        coordinator: local.coordinator,
        replica: {
          storeId: node.storeId,
          verify: async (id) => {
            read.push(id);
            return Promise.resolve({ generation: 0, digest: '', problems: ['a bit is wrong'] });
          },
        },
        clock,
        random: { bytes: (length) => randomBytes(length) },
        logger: { ...silentLogger, error: (fields) => errors.push(fields) },
        intervalMs: 3 * hourMs,
        ...(heals ? { reportDamage: async (id) => void reported.push(id) } : {}),
      });
      scrub.start();
      assert.deepEqual(read, [], 'not all servers that start together read at once');
      for (let count = 1; count <= 6; count++) {
        // The first comes somewhere in the first hour, each other an hour after the one before.
        await comeTo(count, () => {
          if (read.length < count) clock.advance(hourMs);
          return Promise.resolve(read.length);
        });
      }
      await scrub.close();
      assert.deepEqual(new Set(read.slice(0, 3)), ids);
      assert.deepEqual(new Set(read.slice(3, 6)), ids);
      assert.equal(errors.length, read.length);
      assert.equal(reported.length, heals ? read.length : 0);
    }
  } finally {
    await local.remove();
  }
});
