import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MaintenanceProgress } from '../contract/backend.js';
import { progressSteps } from './progress-steps.js';

test('each step of a fetch and of a pack that is made goes by its own name', () => {
  const seen: MaintenanceProgress[] = [];
  const read = progressSteps((progress) => seen.push(progress));
  const pieces = [
    'remote: Enumerating objects: 5700, done.\n',
    'remote: Counting objects:   1% (57/5700)\rremote: Counting objects: 100% (5700/5700), done.\n',
    'remote: Compressing objects:  48% (1077/2243)\r',
    'Receiving objects:  22% (1254/5700), 1.20 MiB | 2.40 MiB/s\r',
    'ng objects:  3',
    'Resolving deltas: 100% (4165/4165), done.\n',
    'Writing objects:  20% (1140/5700)\r',
  ];
  for (const piece of pieces) read(Buffer.from(piece));
  assert.deepEqual(seen, [
    { step: 'counting', done: 5700, total: 5700 },
    { step: 'compressing', done: 1077, total: 2243 },
    { step: 'fetching', done: 1254, total: 5700 },
    { step: 'resolving', done: 4165, total: 4165 },
    { step: 'storing', done: 1140, total: 5700 },
  ]);
});
