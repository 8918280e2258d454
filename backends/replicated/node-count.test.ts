import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../contract/environment.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { NodeCount } from './node-count.js';

const about = (nodes: number): string =>
  JSON.stringify({ component: 'controller', nodes, replication_factor: 5 });

test('too few storage nodes for a replica set are told of once, and that they are enough again', () => {
  let nowMs = 0;
  const lines: string[] = [];
  const note =
    (level: string): Logger['warn'] =>
    (fields) =>
      lines.push(`${level} ${JSON.stringify(fields)}`);
  const count = new NodeCount({
    replicationFactor: 5,
    clock: { ...systemClock, monotonicMs: () => nowMs },
    logger: { ...silentLogger, warn: note('warn'), info: note('info') },
  });
  const show = (nodes: number, afterMs: number): void => {
    nowMs += afterMs;
    count.show(nodes);
  };
  // As they are found one by one, and when one of them restarts.
  for (const nodes of [0, 3, 5, 4, 5]) show(nodes, 9_000);
  assert.deepEqual(lines, []);
  for (const afterMs of [1_000, 9_999, 1, 60_000]) show(3, afterMs);
  assert.deepEqual(lines.splice(0), [`warn ${about(3)}`]);
  show(6, 1_000);
  show(6, 60_000);
  assert.deepEqual(lines.splice(0), [`info ${about(6)}`]);
  show(4, 1);
  show(4, 10_000);
  assert.deepEqual(lines, [`warn ${about(4)}`]);
});
