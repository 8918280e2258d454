import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { defineUnlockedSuite } from './testing/unlocked-suite.js';

defineUnlockedSuite('the embedded coordinator', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-unlocked-'));
  const coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  return {
    coordinator,
    close: async () => {
      await coordinator.close();
      await rm(directory, { recursive: true });
    },
  };
});
