import type { Coordinator } from '../../contract/coordinator.js';
import { createObjectReader } from '../../git/object-reader.js';
import { createRefTransactions } from '../../git/ref-transaction.js';
import { LocalReplica } from '../../local/local-replica.js';
import { coordinatorLog } from '../../replicated/coordinator-log.js';
import { peerSourceOf } from '../../replicated/peers.js';
import { settleQuarantines } from '../../replicated/settle-quarantines.js';
import type { ReplicaDirectory } from '../../replicated/voters.js';
import { SimulatedGit } from './simulated-git.js';
import { SimulatedIndexer } from './simulated-indexer.js';
import type { SimulatedProcess } from './simulated-process.js';

/** What a storage node's process is made of, as `server/composition.ts` makes it. */
export async function startStorage(options: {
  readonly process: SimulatedProcess;
  readonly coordinator: Coordinator;
  /** The other storage nodes, as this one reaches them. */
  readonly replicas: ReplicaDirectory;
  /** Path of its disk. */
  readonly root: string;
}): Promise<LocalReplica> {
  const { process, coordinator, replicas } = options;
  const { clock, random, logger, meter } = process;
  const git = new SimulatedGit(process);
  const replica: LocalReplica = await LocalReplica.open({
    root: `${options.root}/store`,
    git,
    refs: createRefTransactions({ git, clock }),
    objects: createObjectReader({ git, clock }),
    indexer: new SimulatedIndexer(process),
    log: coordinatorLog(coordinator),
    clock,
    random,
    logger,
    meter,
    // Short, so that what is pruned too early is missed soon.
    pruneGraceMs: 60_000,
    applied: () => undefined,
    peers: (id) => peerSourceOf({ coordinator, replicas }, { id, storeId: replica.storeId }),
  });
  await settleQuarantines({ coordinator, replica, quarantines: replica.quarantines, logger });
  void settleLater(process, coordinator, replica);
  return replica;
}

/** As `server/composition.ts` does it. */
const settleEveryMs = 60_000;

async function settleLater(
  { clock, logger }: SimulatedProcess,
  coordinator: Coordinator,
  replica: LocalReplica,
): Promise<void> {
  for (;;) {
    await clock.sleep(settleEveryMs);
    const quarantines = replica.idleQuarantines(settleEveryMs);
    await settleQuarantines({ coordinator, replica, quarantines, logger });
  }
}
