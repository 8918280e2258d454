import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keys } from '../contract/keys.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { countLagging } from './lagging.js';

const id = (digit: string): string => digit.repeat(32);

const entries = (digit: string, from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, n) => keys.logEntry(id(digit), from + n));

test('repositories lag whose oldest entry stays in the log, however many there are', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-lag-'));
  const coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  const write = (type: 'put' | 'delete', ...written: readonly string[]): Promise<unknown> =>
    coordinator.transaction({
      compares: [],
      success: written.map((key) =>
        type === 'put' ? { type, key, value: new Uint8Array() } : { type, key },
      ),
      failure: [],
    });
  assert.equal(await countLagging({ coordinator, clock: systemClock }), 0);
  // More than a page of one repository, between two others.
  for (let at = 1; at < 1_000; at += 100) await write('put', ...entries('b', at, at + 100));
  await write('put', ...entries('a', 1, 3), ...entries('c', 7, 8), ...entries('d', 3, 4));
  // Whose entries only pass through meanwhile does not.
  const clock = {
    ...systemClock,
    sleep: async () => {
      await write('delete', ...entries('c', 7, 8), ...entries('d', 3, 4));
      await write('put', ...entries('d', 4, 5), ...entries('e', 1, 2));
    },
  };
  assert.equal(await countLagging({ coordinator, clock }), 2);
  await coordinator.close();
  await rm(directory, { recursive: true });
});
