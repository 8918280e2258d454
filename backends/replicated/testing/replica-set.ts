import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocks, type Locks } from '../../coordination/locks.js';
import { openEmbeddedCoordinator } from '../../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../../coordination/process-lease.js';
import { silentLogger } from '../../coordination/test-environment.js';
import type { Coordinator, ProcessLease } from '../../contract/coordinator.js';
import type { Clock, Logger, Meter } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import type { PushPipeline } from '../../contract/pipeline.js';
import type { Replica } from '../../contract/replica.js';
import { createPackIndexer } from '../../git/indexer.js';
import type { GitRunner } from '../../git/git-runner.js';
import { createObjectReader } from '../../git/object-reader.js';
import { createRefTransactions } from '../../git/ref-transaction.js';
import { createGitRunner } from '../../git/runner.js';
import { LocalReplica } from '../../local/local-replica.js';
import {
  patientAtStart,
  permissivePipeline,
  runGit,
  silentMeter,
  systemClock,
} from '../../local/testing/local-fixture.js';
import { coordinatorLog } from '../coordinator-log.js';
import type { KnownDamages } from '../known-damages.js';
import type { Consistency } from '../quorum.js';
import { ReplicatedBackend } from '../replicated-backend.js';
import { peerSourceOf } from '../peers.js';
import type { ReplicaDirectory, StorageNode } from '../voters.js';
import { StoreWork } from './store-work.js';

/** What a test makes of a store's call: fail, wait, or go through. */
export type Interference = (
  call: string | symbol,
  go: () => unknown,
  repositoryId?: unknown,
) => unknown;

export interface TestStore {
  readonly storeId: string;
  readonly replica: LocalReplica;
  /** As when its process is started again: `replica` is another one then. */
  readonly reopen: () => Promise<void>;
  readonly root: string;
  /** Not alive: the directory does not find it. */
  down: boolean;
  /** It says of itself that its disk hangs. */
  hangs: boolean;
  interfere: Interference | undefined;
  readonly gitDir: (repositoryId: string) => string;
}

export interface ReplicaSet {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly stores: readonly TestStore[];
  /** Of calls that come through `replicas`. */
  readonly work: StoreWork;
  readonly source: string;
  /** Another front-end over the same stores. */
  frontEnd(options?: {
    readonly consistency?: Consistency;
    readonly replicationFactor?: number;
    readonly pipeline?: PushPipeline;
    readonly wrap?: (coordinator: Coordinator) => Coordinator;
    /** Default: the system's, and patience while it starts. */
    readonly clock?: Clock;
    readonly damages?: KnownDamages;
    readonly meter?: Meter;
    readonly maxInlineUpdatesBytes?: number;
    readonly logger?: Logger;
  }): Promise<{
    readonly backend: ReplicatedBackend;
    readonly locks: Locks;
    readonly lease: ProcessLease;
  }>;
  commit(content: string, ...parents: string[]): Promise<string>;
  close(): Promise<void>;
}

const random = { bytes: (length: number) => randomBytes(length) };

/** For pushes of which a test wants to know what every store did: none is left out because the machine is busy. */
export const unhurried: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms < 200 ? ms : 60_000, signal),
};
const environment = { clock: systemClock, random, logger: silentLogger, meter: silentMeter };

/** Several real stores on this disk, an embedded coordinator, and front-ends that share them. */
export async function openReplicaSet(count = 3): Promise<ReplicaSet> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-set-'));
  const source = join(directory, 'source');
  await mkdir(source);
  await runGit(source, ['init', '-q', '-b', 'main']);
  const git = await createGitRunner({ logger: silentLogger, meter: silentMeter });
  const indexer = await createPackIndexer({ git, logger: silentLogger, meter: silentMeter });
  const coordinator = await openEmbeddedCoordinator({
    directory: join(directory, 'coordinator'),
    clock: systemClock,
    logger: silentLogger,
  });
  const stores: TestStore[] = [];
  const work = new StoreWork();
  const replicas = directoryOf(stores, work);
  const closers: (() => Promise<unknown>)[] = [];
  for (let index = 0; index < count; index++) {
    const root = join(directory, `store-${index}`);
    const open = async (): Promise<LocalReplica> => {
      const refs = createRefTransactions({ git, clock: systemClock });
      const objects = createObjectReader({ git, clock: systemClock });
      closers.push(
        () => refs.close(),
        () => objects.close(),
      );
      const opened: LocalReplica = await LocalReplica.open({
        ...environment,
        root,
        git,
        refs,
        objects,
        indexer,
        log: coordinatorLog(coordinator),
        pruneGraceMs: 3_600_000,
        applied: () => undefined,
        peers: (id) =>
          peerSourceOf(
            { coordinator, replicas, clock: systemClock },
            { id, storeId: opened.storeId },
          ),
      });
      return opened;
    };
    let replica = await open();
    stores.push({
      storeId: replica.storeId,
      get replica() {
        return replica;
      },
      reopen: async () => {
        await replica.close();
        replica = await open();
      },
      root,
      down: false,
      hangs: false,
      interfere: undefined,
      gitDir: (id) => join(root, 'repos', id.slice(0, 2), id, 'git'),
    });
  }
  return {
    coordinator,
    replicas,
    stores,
    work,
    source,
    frontEnd: async ({
      consistency = 'quorum',
      replicationFactor = 3,
      pipeline = permissivePipeline,
      wrap,
      clock,
      damages,
      meter = silentMeter,
      maxInlineUpdatesBytes,
      logger = silentLogger,
    } = {}) => {
      const seen = wrap?.(coordinator) ?? coordinator;
      const patient = patientAtStart();
      const scratchDirectory = await mkdtemp(join(directory, 'scratch-'));
      const lease = createProcessLease({ ...environment, coordinator: seen });
      const locks = createLocks({ ...environment, coordinator: seen, lease, holder: 'front-end' });
      const backend = newBackend({
        coordinator: seen,
        lease,
        locks,
        git,
        replicas,
        pipeline,
        consistency,
        replicationFactor,
        scratchDirectory,
        clock: clock ?? patient.clock,
        meter,
        maxInlineUpdatesBytes,
        logger,
        ...(damages === undefined ? {} : { damages, companions: [damages] }),
      });
      await backend.start();
      patient.started();
      closers.unshift(
        () => backend.close(1000),
        () => locks.close(),
        () => lease.close(),
      );
      return { backend, locks, lease };
    },
    commit: async (content, ...parents) => {
      const blob = (await runGit(source, ['hash-object', '-w', '--stdin'], content)).trim();
      const tree = (await runGit(source, ['mktree'], `100644 blob ${blob}\tfile\n`)).trim();
      const args = ['commit-tree', tree, '-m', content, ...parents.flatMap((oid) => ['-p', oid])];
      return (await runGit(source, args)).trim();
    },
    close: async () => {
      for (const store of stores) store.interfere = undefined;
      for (const close of closers) await close();
      await coordinator.close();
      await indexer.close();
      await git.close();
      await rm(directory, { recursive: true });
    },
  };
}

function newBackend(parts: {
  readonly coordinator: Coordinator;
  readonly lease: ProcessLease;
  readonly locks: Locks;
  readonly git: GitRunner;
  readonly replicas: ReplicaDirectory;
  readonly pipeline: PushPipeline;
  readonly consistency: Consistency;
  readonly replicationFactor: number;
  readonly scratchDirectory: string;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly maxInlineUpdatesBytes: number | undefined;
  readonly logger: Logger;
  readonly damages?: KnownDamages;
  readonly companions?: readonly KnownDamages[];
}): ReplicatedBackend {
  return new ReplicatedBackend({
    ...environment,
    ...parts,
    log: coordinatorLog(parts.coordinator),
    lockTimeoutMs: 10_000,
    readConsistency: 'strong',
    name: 'replicated',
    local: {
      objectEngine: 'none',
      quarantines: () => 0,
      maintenanceQueued: () => 0,
      resolveQuarantines: () => Promise.resolve(),
      close: () => Promise.resolve(),
    },
  });
}

function directoryOf(stores: readonly TestStore[], work: StoreWork): ReplicaDirectory {
  const alive = (): StorageNode[] =>
    stores
      .flatMap(({ storeId, down, hangs }, index) => (down ? [] : [{ storeId, hangs, index }]))
      .map(({ storeId, hangs, index }) => ({
        nodeId: `node-${index}`,
        storeId,
        address: '',
        zone: '',
        weight: 1,
        capacityBytes: 0,
        usedBytes: 0,
        draining: false,
        hangs,
        local: false,
      }));
  return {
    nodes: alive,
    find: (storeId) => {
      const store = stores.find((one) => one.storeId === storeId);
      return store === undefined || store.down ? undefined : interfered(store, work);
    },
    load: () => 0,
    place: (_id, count) =>
      alive()
        .slice(0, count)
        .map(({ nodeId, storeId }) => ({ nodeId, storeId })),
  };
}

/** The store's replica, whose calls pass through the test's hands. */
function interfered(store: TestStore, work: StoreWork): Replica {
  return new Proxy<Replica>(store.replica, {
    get: (replica, name) => {
      const member: unknown = Reflect.get(replica, name, replica);
      if (typeof member !== 'function') return member;
      return (...args: unknown[]): unknown => {
        // The store may have been started again meanwhile.
        const go = (): unknown => {
          const now: unknown = Reflect.get(store.replica, name, store.replica);
          return Reflect.apply(typeof now === 'function' ? now : member, store.replica, args);
        };
        return work.follow(
          store.interfere === undefined ? go() : store.interfere(name, go, args[0]),
        );
      };
    },
  });
}

export const away = (): Promise<never> =>
  Promise.reject(new QuorateError('unavailable', 'the connection was lost'));
