import { openClusterIdentity } from '../../coordination/cluster-identity.js';
import { createProcessLease } from '../../coordination/process-lease.js';
import { guardCoordinator } from '../../coordination/guarded-coordinator.js';
import { shareReads } from '../../coordination/shared-reads.js';
import type { Coordinator } from '../../contract/coordinator.js';
import type { PeerSource } from '../../contract/replica.js';
import { createObjectReader } from '../../git/object-reader.js';
import { createRefTransactions } from '../../git/ref-transaction.js';
import { LocalReplica } from '../../local/local-replica.js';
import { coordinatorLog } from '../../replicated/coordinator-log.js';
import { obeyEvictions } from '../../replicated/evictions.js';
import { NodeDirectory, type NodeDirectoryDependencies } from '../../replicated/node-directory.js';
import { NodeMembership } from '../../replicated/node-membership.js';
import type { NodeRecord } from '../../replicated/node-record.js';
import { peerSourceOf } from '../../replicated/peers.js';
import { reportDamage } from '../../replicated/damage.js';
import { Scrub } from '../../replicated/scrub.js';
import { settleQuarantines } from '../../replicated/settle-quarantines.js';
import type { SimulatedDisk } from './simulated-disk.js';
import { SimulatedGit } from './simulated-git.js';
import { SimulatedIndexer } from './simulated-indexer.js';
import type { SimulatedProcess } from './simulated-process.js';

export interface StorageParts {
  readonly process: SimulatedProcess;
  /** Not guarded against going back. */
  readonly coordinator: Coordinator;
  readonly connect: NodeDirectoryDependencies['connect'];
  /** Path of its disk. */
  readonly root: string;
  readonly zone: string;
  readonly disk: SimulatedDisk;
  /** Told when the store can be called. */
  readonly opened: (replica: LocalReplica, source: (id: string) => PeerSource) => void;
}

/** As `backends/node/storage-node.ts`, with a simulated network in place of HTTP. */
export async function startStorage(parts: StorageParts): Promise<void> {
  const { process, root, connect } = parts;
  const { clock, random, logger } = process;
  const unguarded = shareReads(parts.coordinator);
  const file = `${root}/cluster-seen`;
  const identity = await openClusterIdentity({
    coordinator: unguarded,
    file,
    clock,
    random,
    logger,
  });
  const coordinator = guardCoordinator(unguarded, identity);
  const suspect = (id: string): void => scrub.suspect(id);
  const around = { coordinator, directory: () => directory, suspect };
  const replica = await openReplica(process, root, around);
  const scrub = new Scrub({
    coordinator,
    replica,
    clock,
    random,
    logger,
    intervalMs: scrubMs,
    reportDamage: (id, storeId) => reportDamage(coordinator, id, storeId),
  });
  const membership = new NodeMembership({
    coordinator: unguarded,
    lease: createProcessLease({ coordinator: unguarded, clock, logger }),
    clock,
    logger,
    describe: async () => describe(process, replica, parts),
  });
  parts.disk.found = () => {
    if (!process.alive) return;
    membership.update().catch((error: unknown) => {
      logger.debug({ err: error }, 'what became of the disk is told later');
    });
  };
  const directory = new NodeDirectory({
    coordinator,
    connect,
    clock,
    logger,
    meter: process.meter,
    own: () => {
      const node = membership.record;
      return node === undefined ? undefined : { node, replica };
    },
  });
  const { storeId } = replica;
  parts.opened(replica, (id) =>
    peerSourceOf({ coordinator, replicas: directory, clock }, { id, storeId }),
  );
  await directory.start();
  await membership.join();
  const quarantines = replica.leftQuarantines;
  await settleQuarantines({ coordinator, replica, quarantines, logger });
  void settleLater({ clock, logger }, coordinator, replica);
  void evictLater({ clock, logger }, coordinator, replica);
  scrub.start();
}

function openReplica(
  process: SimulatedProcess,
  root: string,
  around: {
    readonly coordinator: Coordinator;
    readonly directory: () => NodeDirectory;
    readonly suspect: (repositoryId: string) => void;
  },
): Promise<LocalReplica> {
  const { clock, random, logger, meter } = process;
  const { coordinator, directory, suspect } = around;
  const git = new SimulatedGit(process);
  const opening: Promise<LocalReplica> = LocalReplica.open({
    root: `${root}/store`,
    git,
    refs: createRefTransactions({ git, clock }),
    objects: createObjectReader({ git, clock }),
    indexer: new SimulatedIndexer(process),
    log: coordinatorLog(coordinator),
    clock,
    random,
    logger,
    meter,
    pruneGraceMs,
    applied: () => undefined,
    suspect,
    peers: (id) => async (have, atLeast, signal) => {
      const { storeId } = await opening;
      const source = peerSourceOf({ coordinator, replicas: directory(), clock }, { id, storeId });
      return source(have, atLeast, signal);
    },
  });
  return opening;
}

/** Short, so that what is pruned too early is missed soon. */
const pruneGraceMs = 2_000;

async function describe(
  { name }: SimulatedProcess,
  { storeId }: LocalReplica,
  { zone, disk }: StorageParts,
): Promise<NodeRecord> {
  const room = { capacityBytes: 1e12, usedBytes: 1e9 };
  const node = { nodeId: name, storeId, address: name, zone, weight: 1, version: '1' };
  const finding = disk.foundHanging ? { problem: 'the disk hangs', hangs: true } : {};
  return { ...node, ...room, ...finding, draining: false };
}

const settleEveryMs = 60_000;
const evictEveryMs = 5_000;
const scrubMs = 30_000;
/** Beyond the wait for a lock. */
const idleMs = 180_000;

async function settleLater(
  { clock, logger }: Pick<SimulatedProcess, 'clock' | 'logger'>,
  coordinator: Coordinator,
  replica: LocalReplica,
): Promise<void> {
  for (;;) {
    await clock.sleep(settleEveryMs);
    const quarantines = replica.idleQuarantines(idleMs);
    await settleQuarantines({ coordinator, replica, quarantines, idle: true, logger });
  }
}

async function evictLater(
  { clock, logger }: Pick<SimulatedProcess, 'clock' | 'logger'>,
  coordinator: Coordinator,
  replica: LocalReplica,
): Promise<void> {
  for (;;) {
    await obeyEvictions({ coordinator, replica, logger }).catch((error: unknown) => {
      logger.debug({ err: error }, 'evictions could not be read');
    });
    await clock.sleep(evictEveryMs);
  }
}
