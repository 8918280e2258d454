import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { silentLogger } from '../coordination/test-environment.js';
import type { GitRunner } from '../git/git-runner.js';
import { borrowFrom } from '../git/object-pool.js';
import { InterruptibleQueue } from './interruptible-queue.js';
import { ObjectPools } from './object-pools.js';
import { Store } from './store.js';
import { systemClock } from './testing/local-fixture.js';

const unused = (): never => assert.fail('no git is run');
const git: GitRunner = {
  version: '',
  running: 0,
  conversations: 0,
  run: unused,
  stream: unused,
  converse: unused,
  program: unused,
  close: unused,
};
const poolId = 'ab'.repeat(16);

test('who reads a fork while nothing repacks it holds up no fork of another one that waits for the same', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-still-'));
  try {
    const store = await Store.open(directory, { bytes: (length) => new Uint8Array(length) });
    const pools = new ObjectPools({
      store,
      git,
      objects: { release: unused },
      clock: systemClock,
      logger: silentLogger,
    });
    const borrower = async (name: string) => {
      const objectsDirectory = join(directory, name, 'objects');
      await mkdir(objectsDirectory, { recursive: true });
      await borrowFrom(objectsDirectory, join(store.poolGitDirectory(poolId), 'objects'));
      return { objectsDirectory, maintenanceQueue: new InterruptibleQueue() };
    };
    const [first, second] = [await borrower('first'), await borrower('second')];
    const { signal } = new AbortController();
    const events = new EventEmitter();
    const read = async (): Promise<string> => {
      events.emit('begun');
      await once(events, 'finish');
      return 'first';
    };
    const beginning = once(events, 'begun');
    const reading = pools.still(first, read, signal);
    await beginning;
    const waiting = pools.still(second, () => Promise.resolve('second'), signal);
    // It has the queue of its repository then.
    await turn();
    await second.maintenanceQueue.runShort(() => Promise.resolve());
    events.emit('finish');
    assert.deepEqual(await Promise.all([reading, waiting]), ['first', 'second']);
  } finally {
    await rm(directory, { recursive: true });
  }
});
