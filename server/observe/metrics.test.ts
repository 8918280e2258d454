import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../../backends/contract/environment.js';
import { createMetrics } from './metrics.js';

const warnings: string[] = [];
const logger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: (_fields, message) => warnings.push(message),
  error: () => undefined,
  child: () => logger,
};

test('counts, observations and gauges are exposed under conventional names', async () => {
  const metrics = createMetrics({ logger, version: '1.2.3' });
  metrics.count('pushes', { outcome: 'ok' });
  metrics.count('pushes', { outcome: 'ok' }, 2);
  metrics.observe('commit_batch_size', 3);
  let depth = 5;
  metrics.gauge('queue_depth', { queue: 'audit' }, () => depth);
  assert.match(await metrics.expose(), /^quorate_queue_depth\{queue="audit"\} 5$/m);
  depth = 6;
  const text = await metrics.expose();
  assert.match(text, /^quorate_queue_depth\{queue="audit"\} 6$/m);
  assert.match(text, /^quorate_pushes_total\{outcome="ok"\} 3$/m);
  assert.match(text, /^quorate_commit_batch_entries_bucket\{le="4"\} 1$/m);
  assert.match(text, /^quorate_build_info\{version="1.2.3",node="v/m);
  assert.match(text, /^process_resident_memory_bytes /m);
});

test('registering a gauge again replaces its reader', async () => {
  const metrics = createMetrics({ logger, version: '0' });
  metrics.gauge('quarantines', {}, () => 1);
  metrics.gauge('quarantines', {}, () => 2);
  assert.match(await metrics.expose(), /^quorate_quarantines 2$/m);
});

test('a gauge whose reader throws does not spoil the scrape', async () => {
  const metrics = createMetrics({ logger, version: '0' });
  metrics.gauge('quarantines', {}, () => {
    throw new Error('closed');
  });
  metrics.gauge('queue_depth', { queue: 'audit' }, () => 1);
  assert.match(await metrics.expose(), /quorate_queue_depth\{queue="audit"\} 1/);
  assert.deepEqual(warnings, ['gauge failed']);
});

const wrongLabels = [
  { desc: 'a label that was not declared', labels: { outcome: 'ok', repository: 'a' } },
  { desc: 'a missing label', labels: {} },
  { desc: 'another label', labels: { transport: 'http' } },
  { desc: 'a value that is a name with a slash', labels: { outcome: 'team/app' } },
];
for (const { desc, labels } of wrongLabels) {
  test(`labels are closed: ${desc}`, () => {
    const metrics = createMetrics({ logger, version: '0' });
    assert.throws(() => metrics.count('pushes', labels), { name: 'AssertionError' });
  });
}

test('labels are closed: a value per user or repository is found out', () => {
  const metrics = createMetrics({ logger, version: '0' });
  assert.throws(() => {
    for (let i = 0; i < 1000; i += 1) metrics.count('pushes', { outcome: `user${i}` });
  }, /too many different values/);
});
