import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import type { Logger } from '../../contract/environment.js';
import { silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { realRandom } from './testing/etcd-fixture.js';

test('a start that waits for etcd says so before it gives up', async () => {
  const other = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end('SSH-2.0-other\r\n');
  });
  other.listen(0, '127.0.0.1');
  await once(other, 'listening');
  const address = other.address();
  assert.ok(address !== null && typeof address === 'object');
  const endpoint = `127.0.0.1:${address.port}`;
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
  await assert.rejects(opening, { code: 'unavailable', message: /is no etcd that we may use/ });
  other.close();
  const fields = { coordinator: endpoint, seconds: 3 };
  assert.deepEqual(told, [[fields, 'the start waits: no etcd answers yet']]);
});
