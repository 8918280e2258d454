import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { treeCpuSeconds, treeMemoryBytes, treePids } from './process-tree.js';

/** Burns CPU time in a child of its own, waits for it, says so, and stays until its input ends. */
const parentProgram = `
  const { spawnSync } = require('node:child_process');
  spawnSync(process.execPath, ['-e', 'while (process.cpuUsage().user < 300_000);']);
  process.stdout.write('done');
  process.stdin.resume();
`;

test('a tree has the CPU time of children that have ended, and the memory of those that live', async () => {
  const child = spawn(process.execPath, ['-e', parentProgram], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  assert.ok(child.pid !== undefined);
  try {
    await once(child.stdout, 'data');
    assert.ok(treeCpuSeconds([child.pid]) >= 0.3);
    assert.ok(treeMemoryBytes([child.pid]) > 10 * 1024 ** 2);
    assert.deepEqual(treePids([child.pid]), [child.pid]);
    assert.ok(treePids([process.pid]).includes(child.pid));
  } finally {
    child.stdin.end();
    await once(child, 'exit');
  }
  assert.equal(treeCpuSeconds([child.pid]), 0);
});
