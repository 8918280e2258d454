import type { Coordinator, ProcessLease } from '../backends/contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../backends/contract/environment.js';
import type { ClusterIdentity } from '../backends/coordination/cluster-identity.js';
import type { TakeFileSteps } from '../backends/git/file-steps.js';
import type { GitRunner } from '../backends/git/git-runner.js';
import type { PackIndexer } from '../backends/git/pack-indexer.js';
import type { DiskWatch } from '../backends/local/disk-watch.js';
import {
  type ClusterCredentials,
  type LoadedCredentials,
  loadClusterCredentials,
} from '../backends/node/cluster-credentials.js';
import type { StorageNode } from '../backends/node/storage-node.js';
import { joinInsteadOfAlone } from '../backends/replicated/lone-store.js';
import type { Config } from './config.js';
import type { DataDirectory } from './data-directory.js';
import { addressTowards, nodeIdOf, tellEndOf } from './membership.js';
import type { Teardown } from './teardown.js';

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
  const { StorageNode } = await import('../backends/node/storage-node.js');
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
