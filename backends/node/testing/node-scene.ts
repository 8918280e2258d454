import { randomBytes } from 'node:crypto';
import type { Logger } from '../../contract/environment.js';
import type { PeerSource, Replica } from '../../contract/replica.js';
import { pickPort } from '../../contract/testing/ports.js';
import { silentLogger } from '../../coordination/test-environment.js';
import { silentMeter, systemClock } from '../../local/testing/local-fixture.js';
import type { ClusterCredentials } from '../cluster-credentials.js';
import { NodeClient, type NodeClientLimits } from '../node-client.js';
import type { NodeAddress } from '../node-requests.js';
import { createNodeServer, type NodeServer, type NodeServerLimits } from '../node-server.js';
import { RemoteReplica } from '../remote-replica.js';
import { SnapshotMemory } from '../snapshot-memory.js';

export const random = { bytes: (length: number) => randomBytes(length) };
export const secret = { secret: Buffer.from('0123456789abcdef0123456789abcdef') };

export interface ServedReplica {
  readonly server: NodeServer;
  readonly address: NodeAddress;
}

/** Serves a replica, on a port that stays free for it when it stops. */
export async function serveReplica(
  replica: Replica,
  options: {
    readonly credentials?: ClusterCredentials;
    readonly limits?: Partial<NodeServerLimits>;
    readonly peers?: (repositoryId: string) => PeerSource;
    readonly port?: number;
    readonly logger?: Logger;
  } = {},
): Promise<ServedReplica> {
  const server = createNodeServer({
    replica,
    credentials: options.credentials ?? secret,
    clock: systemClock,
    random,
    logger: options.logger ?? silentLogger,
    meter: silentMeter,
    peers:
      options.peers ??
      (() => () => {
        throw new Error('nobody should be asked');
      }),
    limits: { ...patient, ...options.limits },
  });
  return { server, address: await server.listen('127.0.0.1', options.port ?? (await pickPort())) };
}

export interface Connected {
  readonly client: NodeClient;
  readonly replica: RemoteReplica;
  readonly memory: SnapshotMemory;
}

/** Nobody is taken for silent because the machine is busy. */
const patient = { silenceMs: 60_000 };

/** A client of a node, once it has asked it for the first time: a patient one, unless told otherwise. */
export async function connect(
  address: NodeAddress,
  storeId: string,
  options: {
    readonly credentials?: ClusterCredentials;
    readonly limits?: Partial<NodeClientLimits>;
    readonly logger?: Logger;
  } = {},
): Promise<Connected> {
  const client = new NodeClient({
    address,
    storeId,
    credentials: options.credentials ?? secret,
    clock: systemClock,
    random,
    logger: options.logger ?? silentLogger,
    limits: { ...patient, ...options.limits },
  });
  await client.asked;
  const memory = new SnapshotMemory();
  return { client, memory, replica: new RemoteReplica(client, memory) };
}
