import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Coordinator } from '../../contract/coordinator.js';
import {
  type CoordinatorHarness,
  defineCoordinatorSuite,
} from '../../conformance/coordinator-suite.js';
import { createManualClock, silentLogger } from '../test-environment.js';
import { shareReads } from '../shared-reads.js';
import { openEmbeddedCoordinator } from './embedded-coordinator.js';

const history = { maxRevisions: 1_000, maxSizeBytes: 2 ** 26 };

async function make(
  around: (coordinator: Coordinator) => Coordinator = (coordinator) => coordinator,
): Promise<CoordinatorHarness> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-coordinator-'));
  const clock = createManualClock();
  const open = async (): Promise<Coordinator> =>
    around(await openEmbeddedCoordinator({ directory, clock, logger: silentLogger, history }));
  let coordinator = await open();
  return {
    coordinator,
    expireLease: async (lease) => {
      // As if the event loop had stood still for so long: no timer ran, so the lease was not renewed.
      clock.advance(lease.ttlMs);
    },
    compact: async () => {
      for (let i = 0; i < history.maxRevisions; i += 1) {
        await coordinator.transaction({
          compares: [],
          success: [{ type: 'put', key: 'filler', value: new Uint8Array() }],
          failure: [],
        });
      }
    },
    reopen: async () => {
      await coordinator.close();
      coordinator = await open();
      return coordinator;
    },
    dispose: async () => {
      await coordinator.close();
      await rm(directory, { recursive: true });
    },
  };
}

defineCoordinatorSuite('embedded', () => make());
defineCoordinatorSuite('embedded, with shared reads', () => make(shareReads));
