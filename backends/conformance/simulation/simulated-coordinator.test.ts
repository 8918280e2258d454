import { type CoordinatorHarness, defineCoordinatorSuite } from '../coordinator-suite.js';
import { Network } from './network.js';
import { Scheduler } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import { SimulatedCoordinator } from './simulated-coordinator.js';
import { SimulatedProcess } from './simulated-process.js';

/** Time passes only while something waits for it; the suite itself lives in real time. */
async function openHarness(): Promise<CoordinatorHarness> {
  const random = new SeededRandom('suite');
  const scheduler = new Scheduler();
  const network = new Network(scheduler, random);
  const server = new SimulatedCoordinator({ scheduler, network, random });
  const boot = (number: number): SimulatedProcess =>
    new SimulatedProcess({
      name: 'client',
      boot: number,
      scheduler,
      random,
      skewMs: 0,
      rate: 1,
      log: undefined,
      happened: () => undefined,
    });
  let process = boot(1);
  let coordinator = server.client(process);
  let disposed = false;
  // A little at a time, so that leases do not run out while a test is thinking.
  const turn = (): void => {
    if (disposed) return;
    const untilMs = scheduler.nowMs + 1;
    scheduler.after(1, () => undefined);
    void scheduler.run(() => scheduler.nowMs >= untilMs).then(() => setTimeout(turn, 0));
  };
  turn();
  return {
    coordinator,
    expireLease: async (lease) => {
      server.state.endLease(lease.id);
    },
    compact: async () => server.compact(),
    reopen: async () => {
      await coordinator.close();
      process.die();
      process = boot(2);
      coordinator = server.client(process);
      return coordinator;
    },
    dispose: async () => {
      disposed = true;
      process.die();
    },
  };
}

defineCoordinatorSuite('simulated', openHarness);
