import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEmbeddedCoordinator } from './embedded/embedded-coordinator.js';
import { processLeaseMs } from './process-lease.js';
import { defineLocksSuite } from './locks-suite.js';
import { silentLogger } from './test-environment.js';

defineLocksSuite(
  'the embedded coordinator',
  {
    open: async (clock) => {
      const directory = await mkdtemp(join(tmpdir(), 'quorate-locks-'));
      const coordinator = await openEmbeddedCoordinator({ directory, clock, logger: silentLogger });
      return {
        coordinator,
        leaseMs: processLeaseMs,
        expireLeases: async () => clock.advance(processLeaseMs),
        close: async () => {
          await coordinator.close();
          await rm(directory, { recursive: true });
        },
      };
    },
  },
  40,
);
