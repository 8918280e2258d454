import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Coordinator, ProcessLease } from '../backends/contract/coordinator.js';
import type {
  AskCoordinatorMembers,
  CoordinatorMember,
} from '../backends/contract/coordinator-members.js';
import type { Clock, Logger, Meter, Random } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import type { PastReads } from '../backends/contract/past-reads.js';
import {
  type ClusterIdentity,
  openClusterIdentity,
} from '../backends/coordination/cluster-identity.js';
import {
  guardCoordinator,
  observeCoordinator,
} from '../backends/coordination/guarded-coordinator.js';
import type { EtcdSettings } from '../backends/coordination/etcd/etcd-settings.js';
import { createProcessLease, processLeaseMs } from '../backends/coordination/process-lease.js';
import { PastMemory } from '../backends/coordination/past-reads.js';
import { shareReads } from '../backends/coordination/shared-reads.js';
import { ownerOf, storeRoot } from '../backends/local/store-owner.js';
import { TlsFiles, type TlsMaterial } from '../backends/node/tls-files.js';
import type { Config } from './config.js';
import type { Teardown } from './teardown.js';

export interface CoordinatorParts {
  readonly config: Config;
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Aborted when the process stops and nothing that it serves runs any more. */
  readonly stopping: AbortSignal;
  /** Whether the disk of the data directory answers nothing. Absent: nobody looks. */
  readonly diskHangs?: () => boolean;
}

export interface OpenedCoordinator {
  /** Refuses transactions while the identity is frozen. */
  readonly coordinator: Coordinator;
  readonly identity: ClusterIdentity;
  /** Refuses nothing: for records that only say that a process lives, which reads need while commits are frozen. */
  readonly unguarded: Coordinator;
  /** Revoked when everything else that was opened afterwards is closed. */
  readonly lease: ProcessLease;
  /** What was read before, for eventual reads while the coordinator cannot be reached; absent where it is embedded. */
  readonly past?: PastReads;
  /** Asks each member of etcd by itself; of an embedded coordinator there are none. */
  readonly askMembers: AskCoordinatorMembers;
  /** Of the connections to etcd, when those speak TLS. */
  readonly coordinatorTls: TlsFiles | undefined;
}

/** Nobody waits for it to end, since it ends with its process; so a main loop that is busy need not lose it. */
const embeddedLeaseMs = 30_000;

/** Opens the coordinator that the configuration names, and makes sure that it is the one that the data is of. */
export async function openCoordinator(
  parts: CoordinatorParts & { readonly teardown: Teardown; readonly meter: Meter },
): Promise<OpenedCoordinator> {
  const { teardown } = parts;
  const tls = await openTlsFiles(parts);
  if (tls !== undefined) teardown.add('certificates of etcd', () => Promise.resolve(tls.close()));
  const configured = await openConfigured(parts, tls);
  teardown.add('coordinator', () => configured.close());
  const past = rememberReads(parts, configured);
  const opened = past?.coordinator ?? configured;
  const file = path.join(parts.dataDirectory, 'cluster.json');
  const owner = await ownerOf(storeRoot(parts.dataDirectory));
  const identity = await openClusterIdentity({ ...parts, coordinator: opened, file, owner });
  parts.teardown.add('cluster identity', () => identity.close());
  const unguarded = observeCoordinator(opened, identity);
  const isEmbedded = parts.config.coordinator.type === 'embedded';
  const ttlMs = isEmbedded ? embeddedLeaseMs : processLeaseMs;
  const lease = createProcessLease({ ...parts, coordinator: unguarded, ttlMs });
  teardown.add('lease', () => lease.close());
  return {
    coordinator: guardCoordinator(opened, identity),
    identity,
    unguarded,
    lease,
    askMembers: () => askMembersOf(parts.config, tls),
    coordinatorTls: tls,
    ...(past === undefined ? {} : { past }),
  };
}

function rememberReads(
  parts: CoordinatorParts & { readonly teardown: Teardown; readonly meter: Meter },
  coordinator: Coordinator,
): PastMemory | undefined {
  const { config, teardown } = parts;
  const maxAgeMs = config['replication.readsWithoutCoordinator'];
  // A storage node serves no clients.
  const hasDoors = config.role !== 'storage';
  if (config.coordinator.type === 'embedded' || maxAgeMs === 0 || !hasDoors) return undefined;
  const past = new PastMemory({ ...parts, coordinator, maxAgeMs });
  teardown.add('past reads', () => past.close());
  past.start();
  return past;
}

async function openTlsFiles(parts: CoordinatorParts): Promise<TlsFiles | undefined> {
  const { config } = parts;
  const ca = config['etcd.ca'];
  if (ca === undefined || config.coordinator.type === 'embedded') return undefined;
  return TlsFiles.open({
    ...parts,
    name: 'etcd',
    paths: { ca, cert: config['etcd.cert'], key: config['etcd.key'] },
    checkMs: config['tls.checkInterval'],
  });
}

async function openConfigured(
  parts: CoordinatorParts,
  tls: TlsFiles | undefined,
): Promise<Coordinator> {
  const { config, dataDirectory, clock, random, logger, stopping, diskHangs } = parts;
  const { coordinator } = config;
  if (coordinator.type === 'embedded') {
    const directory = path.join(dataDirectory, 'coordinator');
    const { openEmbeddedCoordinator } =
      await import('../backends/coordination/embedded/embedded-coordinator.js');
    const looked = diskHangs === undefined ? {} : { hangs: diskHangs };
    return openEmbeddedCoordinator({ directory, clock, logger, ...looked });
  }
  const settings = await etcdSettings(config, coordinator.endpoints, tls?.current);
  if (settings.auth !== undefined && settings.tls === undefined) {
    logger.warn({ component: 'coordinator' }, 'the password for etcd is sent without TLS');
  }
  const onTlsChange = tls?.onChange.bind(tls);
  // A client of etcd takes a tenth of all that a start takes.
  const { openEtcdCoordinator } = await import('../backends/coordination/etcd/etcd-coordinator.js');
  return shareReads(
    await openEtcdCoordinator({
      settings,
      random,
      logger,
      stopping: { signal: stopping, clock },
      ...(onTlsChange === undefined ? {} : { onTlsChange }),
    }),
  );
}

async function askMembersOf(
  config: Config,
  tls: TlsFiles | undefined,
): Promise<readonly CoordinatorMember[]> {
  const { coordinator } = config;
  if (coordinator.type === 'embedded') return [];
  const { askMembers } = await import('../backends/coordination/etcd/ask-members.js');
  const { endpoints } = coordinator;
  const trust = tls === undefined ? {} : { tls: tls.current };
  return askMembers({ endpoints, prefix: config['etcd.prefix'], ...trust });
}

async function etcdSettings(
  config: Config,
  endpoints: readonly string[],
  tls: TlsMaterial | undefined,
): Promise<EtcdSettings> {
  const password = await readPassword(config['etcd.passwordFile']);
  const user = config['etcd.user'];
  return {
    endpoints,
    prefix: config['etcd.prefix'],
    ...(tls === undefined ? {} : { tls }),
    ...(user === undefined || password === undefined ? {} : { auth: { user, password } }),
  };
}

async function readPassword(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new QuorateError(
      'invalid-argument',
      `etcd.passwordFile: the file ${file} cannot be read (${code})`,
      { cause: error },
    );
  }
}
