import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { hostname } from 'node:os';
import path from 'node:path';
import type { Coordinator } from '../backends/contract/coordinator.js';
import type { Meter } from '../backends/contract/environment.js';
import { QuorateError } from '../backends/contract/errors.js';
import { keys, prefixEnd } from '../backends/contract/keys.js';
import type { TlsFiles } from '../backends/node/tls-files.js';
import { claimForOneStore } from '../backends/replicated/lone-store.js';
import { decodeNode, isNodeId } from '../backends/replicated/node-record.js';
import type { Config } from './config.js';
import type { DataDirectory } from './data-directory.js';

/* What a process is to the others that share its coordinator, whether it is a member of a cluster or stands alone. */

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
  {
    config,
    unguarded,
    data,
  }: {
    readonly config: Config;
    readonly unguarded: Coordinator;
    readonly data: DataDirectory;
  },
  storeId: string,
): Promise<void> {
  if (config.coordinator.type === 'embedded') return;
  const own = { storeId, host: hostname(), directory: data.path };
  const options = { prefix: config['etcd.prefix'], alone: config['cluster.alone'] };
  await claimForOneStore(unguarded, own, options);
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
export async function addressTowards(endpoints: readonly string[]): Promise<string> {
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
