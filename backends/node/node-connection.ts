import type { Clock, Logger, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { NodeConnection } from '../replicated/node-directory.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { NodeClient } from './node-client.js';
import type { NodeAddress } from './node-requests.js';
import { RemoteReplica } from './remote-replica.js';
import type { SnapshotMemory } from './snapshot-memory.js';

export interface ConnectionDependencies {
  readonly credentials: ClusterCredentials;
  readonly memory: SnapshotMemory;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A connection to the node that a record names, for the directory of the nodes. */
export function connectTo(
  { storeId, address }: { readonly storeId: string; readonly address: string },
  dependencies: ConnectionDependencies,
): NodeConnection {
  const client = new NodeClient({ ...dependencies, storeId, address: parseAddress(address) });
  const replica = new RemoteReplica(client, dependencies.memory);
  return {
    replica,
    get reachable() {
      return client.reachable;
    },
    get refused() {
      return client.refused;
    },
    get misfit() {
      return client.misfit;
    },
    get problem() {
      return client.problem;
    },
    get clockApartMs() {
      return client.clockApartMs;
    },
    get running() {
      return client.running;
    },
    asked: client.asked,
    close: () => client.close(),
  };
}

/** `host:port`, an IPv6 address in brackets. */
export function parseAddress(address: string): NodeAddress {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port > 0 && port < 65_536)) {
    throw new QuorateError('data-corrupt', `${address} is not the address of a node`);
  }
  return { host, port };
}
