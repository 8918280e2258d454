import type { createClusterBackend } from '../backends/node/cluster-backend.js';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { hostname } from 'node:os';
import path from 'node:path';
import type { Coordinator, ProcessLease } from '../backends/contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import { keys, prefixEnd } from '../backends/contract/keys.js';
import type { ClusterIdentity } from '../backends/coordination/cluster-identity.js';
import type { TakeFileSteps } from '../backends/git/file-steps.js';
import type { GitRunner } from '../backends/git/git-runner.js';
import type { PackIndexer } from '../backends/git/pack-indexer.js';
import {
  type ClusterCredentials,
  type LoadedCredentials,
  loadClusterCredentials,
} from '../backends/node/cluster-credentials.js';
import type { DiskWatch } from '../backends/local/disk-watch.js';
import type { TlsFiles } from '../backends/node/tls-files.js';
import { StorageNode } from '../backends/node/storage-node.js';
import { FrontEndName } from '../backends/replicated/front-end-name.js';
import { claimForOneStore, joinInsteadOfAlone } from '../backends/replicated/lone-store.js';
import { decodeNode, isNodeId } from '../backends/replicated/node-record.js';
import type { Config } from './config.js';
import { configTable } from './config-table.js';
import type { Teardown } from './teardown.js';
import type { DataDirectory } from './data-directory.js';

/** True for a process that serves, or is served by, others; false for a server that stands alone. */
export function isClusterMember(config: Config): boolean {
  if (config.coordinator.type === 'embedded' || config.backend !== 'local') return false;
  return config['cluster.secretFile'] !== undefined || config['cluster.tls.ca'] !== undefined;
}

/**
 * Refuses a server that would stand alone among the storage nodes of a cluster: it would see their repositories and
 * serve none of them, and keep what is pushed to it where none of them does.
 */
export async function refuseAlone(config: Config, coordinator: Coordinator): Promise<void> {
  if (config.coordinator.type === 'embedded') return;
  const { entries } = await coordinator.range(keys.nodes, {
    rangeEnd: prefixEnd(keys.nodes),
    limit: 1,
  });
  const [found] = entries;
  if (found === undefined) return;
  const { nodeId, address } = decodeNode(found);
  throw new QuorateError(
    'failed-precondition',
    `this etcd is a cluster's, with the storage node ${nodeId} at ${address} among others, and this process has nothing by which they would know it: ` +
      'give it their secret with --cluster-secret-file (or certificates, cluster.tls.*), or an etcd.prefix of its own',
    { details: { nodeId, address } },
  );
}

/** The repositories in etcd are in the store of this server, which stands alone: no other's. */
export async function claimAlone(
  { config, unguarded, data }: Pick<NodeParts, 'config' | 'unguarded' | 'data'>,
  storeId: string,
): Promise<void> {
  if (config.coordinator.type === 'embedded') return;
  const own = { storeId, host: hostname(), directory: data.path };
  const options = { prefix: config['etcd.prefix'], alone: config['cluster.alone'] };
  await claimForOneStore(unguarded, own, options);
}

/** By what this member and the others know each other. Certificates are read again while it runs. */
export async function openCredentials({
  config,
  clock,
  logger,
  meter,
  teardown,
}: Pick<NodeParts, 'config' | 'clock' | 'logger' | 'meter'> & {
  readonly teardown: Teardown;
}): Promise<LoadedCredentials> {
  const credentials = await loadClusterCredentials(
    {
      secretFile: config['cluster.secretFile'],
      caFile: config['cluster.tls.ca'],
      certFile: config['cluster.tls.cert'],
      keyFile: config['cluster.tls.key'],
    },
    { checkMs: config['tls.checkInterval'], clock, logger },
  );
  const { tls } = credentials;
  if (tls !== undefined) {
    teardown.add('certificates of the cluster', () => Promise.resolve(tls.close()));
    tellEndOf(tls, 'cluster', meter);
  }
  return credentials;
}

/** When the certificate in use ends, as a metric. */
export function tellEndOf(
  tls: Pick<TlsFiles, 'notAfterMs'>,
  use: 'cluster' | 'etcd' | 'https',
  meter: Meter,
): void {
  if (tls.notAfterMs === undefined) return;
  meter.gauge('certificate_not_after', { use }, () => (tls.notAfterMs ?? 0) / 1000);
}

const nodeIdFile = 'node-id';

/** The configured node id, or the one that was made for this data directory at its first start. */
export async function nodeIdOf(config: Config, data: DataDirectory): Promise<string> {
  const given = config['node.id'];
  if (given !== undefined) return given;
  const kept = await readFile(path.join(data.path, nodeIdFile), 'utf8').catch(() => '');
  if (isNodeId(kept.trim())) return kept.trim();
  const host = hostname()
    .replaceAll(/[^A-Za-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '');
  const made = `${host.slice(0, 40) || 'node'}-${randomBytes(3).toString('hex')}`;
  await data.write(nodeIdFile, `${made}\n`);
  return made;
}

const probeTimeoutMs = 2_000;

/**
 * Where other machines reach this one, when it listens on all addresses: as it was told to say (`--advertise`), or the
 * address towards the coordinator, or else its host name.
 */
export async function ownHostOf(config: Config): Promise<string> {
  const { coordinator } = config;
  const endpoints = coordinator.type === 'etcd' ? coordinator.endpoints : [];
  return config['node.advertise']?.host ?? addressTowards(endpoints);
}

/** The address of this machine on the way to the coordinator: where the coordinator is, the other members are. */
async function addressTowards(endpoints: readonly string[]): Promise<string> {
  for (const endpoint of endpoints) {
    const found = await localAddressTo(endpoint);
    if (found !== undefined) return found;
  }
  return hostname();
}

function localAddressTo(endpoint: string): Promise<string | undefined> {
  const colon = endpoint.lastIndexOf(':');
  const host = endpoint.slice(0, colon).replaceAll(/[[\]]/g, '');
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(endpoint.slice(colon + 1)) });
    const settle = (address: string | undefined): void => {
      socket.destroy();
      resolve(address);
    };
    socket.setTimeout(probeTimeoutMs, () => settle(undefined));
    socket.once('error', () => settle(undefined));
    socket.once('connect', () => settle(socket.localAddress));
  });
}

export interface NodeParts {
  readonly config: Config;
  readonly data: DataDirectory;
  /** Of the data directory. */
  readonly disk: DiskWatch;
  readonly coordinator: Coordinator;
  readonly identity: ClusterIdentity;
  readonly unguarded: Coordinator;
  readonly lease: ProcessLease;
  readonly git: GitRunner;
  readonly indexer: PackIndexer;
  readonly files?: TakeFileSteps;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly version: string;
  readonly credentials: ClusterCredentials;
}

/** The storage side of this process. Not started: that announces it. */
export async function openStorageNode(parts: NodeParts): Promise<StorageNode> {
  const { config, data, version } = parts;
  const { coordinator: choice } = config;
  const ownHost = await addressTowards(choice.type === 'etcd' ? choice.endpoints : []);
  const node = await StorageNode.open({
    ...parts,
    dataDirectory: data.path,
    clusterId: parts.identity.id,
    incarnation: parts.identity.incarnation,
    options: {
      nodeId: await nodeIdOf(config, data),
      listen: config['node.listen'],
      advertise: config['node.advertise'],
      ownHost,
      zone: config['node.zone'],
      weight: config['node.weight'],
      version,
    },
    scrubIntervalMs: config['scrub.interval'],
    maintenance: {
      enabled: config['maintenance.enabled'],
      pruneGraceMs: config['maintenance.grace'],
    },
  });
  try {
    await joinInsteadOfAlone(parts.unguarded, node.replica.storeId, {
      prefix: config['etcd.prefix'],
    });
  } catch (error) {
    await node.close();
    throw error;
  }
  return node;
}

/** A front-end among others, each with a name of its own. */
export async function joinWithoutStore(
  parts: Pick<
    NodeParts,
    'config' | 'data' | 'identity' | 'unguarded' | 'lease' | 'clock' | 'logger'
  > & {
    readonly teardown: Teardown;
  },
): Promise<void> {
  const { config, data, unguarded: coordinator, teardown } = parts;
  const { incarnation } = parts.identity;
  await joinInsteadOfAlone(coordinator, undefined, { prefix: config['etcd.prefix'] });
  const nodeId = await nodeIdOf(config, data);
  const place = { host: hostname(), directory: data.path };
  const name = new FrontEndName({ ...parts, coordinator, nodeId, place, incarnation });
  await name.take();
  teardown.add('name of the front-end', () => name.leave());
}

/** How copies are made, mended and given up. */
export function repairSettings(
  config: Config,
): Parameters<typeof createClusterBackend>[0]['options']['repair'] {
  return {
    downAfterMs: config['repair.downAfter'],
    repairAfterMs: config['repair.after'],
    maxLog: config['repair.maxLog'],
    compareEveryMs: config['repair.compareInterval'],
    maxFills: config['repair.concurrency'],
    readReplicas: {
      max: config['replication.readReplicas.max'],
      ratePerCopy: config['replication.readReplicas.rate'],
      coolDownMs: config['replication.readReplicas.coolDown'],
    },
  };
}

/**
 * What front-ends have to agree on: what one of them makes another would undo, or a push is promised other things by
 * each.
 */
const shared = [
  'replication.factor',
  'replication.consistency',
  'replication.readConsistency',
  'replication.readReplicas.max',
  'replication.readReplicas.rate',
  'replication.readReplicas.coolDown',
  'repair.downAfter',
  'repair.after',
  'repair.concurrency',
  'repair.maxLog',
  'repair.compareInterval',
] as const satisfies readonly (keyof typeof configTable)[];

/** As this process has them, in words. */
export function sharedSettings(config: Config): Readonly<Record<string, string>> {
  return Object.fromEntries(
    shared.map((name) => {
      const isDuration = configTable[name].kind === 'duration';
      return [name, `${config[name]}${isDuration ? ' ms' : ''}`];
    }),
  );
}
