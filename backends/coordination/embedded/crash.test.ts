import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createManualClock, silentLogger } from '../test-environment.js';
import { openEmbeddedCoordinator } from './embedded-coordinator.js';

const writer = fileURLToPath(new URL('crash-writer.js', import.meta.url));

interface Acknowledged {
  /** The last number of each chain that was acknowledged, or seen after a kill. */
  readonly numbers: Map<number, number>;
  revision: number;
}

test('kill -9 at random moments loses nothing acknowledged and halves nothing', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-crash-'));
  const acknowledged: Acknowledged = { numbers: new Map(), revision: 0 };
  try {
    for (let round = 0; round < 20; round += 1) {
      await writeUntilKilled(directory, acknowledged);
      await check(directory, acknowledged);
    }
    assert.equal(acknowledged.numbers.size, 4);
  } finally {
    await rm(directory, { recursive: true });
  }
});

async function writeUntilKilled(directory: string, acknowledged: Acknowledged): Promise<void> {
  const child = spawn(process.execPath, [writer, directory], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stderr.setEncoding('utf8').on('data', (said) => console.error(`the writer says: ${said}`));
  const exited = once(child, 'exit');
  let left = 1 + Math.floor(Math.random() * 300);
  let output = '';
  for await (const chunk of child.stdout.setEncoding('utf8')) {
    output += String(chunk);
    left -= String(chunk).split('\n').length - 1;
    if (left <= 0) child.kill('SIGKILL');
  }
  const [, signal] = await exited;
  assert.equal(signal, 'SIGKILL', 'the writer ended by itself');
  // What follows the last line feed was torn by the kill.
  for (const line of output.split('\n').slice(0, -1)) {
    const [chain, number, revision] = line.split(' ').map(Number);
    assert.ok(chain !== undefined && number !== undefined && revision !== undefined, line);
    acknowledged.numbers.set(chain, number);
    acknowledged.revision = Math.max(acknowledged.revision, revision);
  }
}

async function check(directory: string, acknowledged: Acknowledged): Promise<void> {
  const coordinator = await openEmbeddedCoordinator({
    directory,
    clock: createManualClock(),
    logger: silentLogger,
  });
  try {
    for (const [chain, number] of acknowledged.numbers) {
      const a = await coordinator.get(`chain/${chain}/a`);
      const b = await coordinator.get(`chain/${chain}/b`);
      assert.ok(a && b);
      assert.deepEqual(a.value, b.value, 'half a transaction');
      assert.equal(a.modRevision, b.modRevision, 'half a transaction');
      const stored = Number(Buffer.from(a.value));
      assert.ok(stored === number || stored === number + 1, `${stored} stored, ${number} promised`);
      // The next writer goes on from here, and may be killed before it has printed anything of this chain.
      acknowledged.numbers.set(chain, stored);
    }
    const leased = await coordinator.range('leased/', { rangeEnd: 'leased0' });
    assert.deepEqual(leased.entries, [], 'leases die with their process');
    assert.ok(
      leased.revision > acknowledged.revision,
      'their keys fell in a revision of their own',
    );
  } finally {
    await coordinator.close();
  }
}
