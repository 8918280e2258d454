import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../../contract/environment.js';
import { silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { realRandom } from './testing/etcd-fixture.js';
import { startNoEtcd } from './testing/no-etcd.js';

test('a start that waits for etcd says so before it gives up', async () => {
  const { endpoint, stop } = await startNoEtcd();
  const told: unknown[] = [];
  const logger: Logger = {
    ...silentLogger,
    info: (...line) => told.push(line),
    child: () => logger,
  };
  const opening = openEtcdCoordinator({
    settings: { endpoints: [endpoint], prefix: 'p/' },
    random: realRandom,
    logger,
    startPatienceMs: 3_000,
  });
  await assert.rejects(opening, {
    code: 'unavailable',
    message: /is no etcd that we may use, or is too busy to answer/,
  });
  stop();
  const fields = { coordinator: endpoint, seconds: 3 };
  assert.deepEqual(told, [[fields, 'the start waits: no etcd answers yet']]);
});
