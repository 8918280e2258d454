import { hostname } from 'node:os';
import type { Backend } from '../backends/contract/backend.js';
import type { PushPipeline } from '../backends/contract/pipeline.js';
import { createClusterBackend } from '../backends/node/cluster-backend.js';
import { FrontEndName } from '../backends/replicated/front-end-name.js';
import { joinInsteadOfAlone } from '../backends/replicated/lone-store.js';
import { openCredentials, openStorageNode } from './cluster.js';
import type { Foundation } from './composition.js';
import type { Config } from './config.js';
import { configTable } from './config-table.js';
import { nodeIdOf } from './membership.js';

type ClusterParts = Omit<Foundation, 'backend'> & { readonly pipeline: PushPipeline };

/** The store of this process, if it has one, and the way to all others. */
export async function openClusterBackend(parts: ClusterParts): Promise<Backend> {
  const { config, data, teardown, store } = parts;
  if (store === undefined) await joinWithoutStore(parts);
  const credentials = await openCredentials(parts);
  parts.certificateProblems.push(() => credentials.tls?.problem());
  const node =
    store === undefined ? undefined : await openStorageNode({ ...parts, ...store, credentials });
  if (node !== undefined) {
    teardown.add('storage node', () => node.close());
    await node.start();
    parts.draining.push((graceMs) => node.drain(graceMs));
    parts.nodeProblems.push(() => node.problem);
  }
  return createClusterBackend({
    ...parts,
    node,
    dataDirectory: data.path,
    credentials,
    frozen: () => parts.identity.frozen !== undefined,
    objectEngine: store?.indexer.description ?? 'on the storage nodes',
    options: {
      nodeId: await nodeIdOf(config, data),
      shared: sharedSettings(config),
      lockTimeoutMs: config['locks.timeout'],
      replicationFactor: config['replication.factor'],
      consistency: config['replication.consistency'],
      readConsistency: config['replication.readConsistency'],
      repair: repairSettings(config),
    },
  });
}

/** A front-end among others, each with a name of its own. */
async function joinWithoutStore(parts: ClusterParts): Promise<void> {
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
function repairSettings(
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
function sharedSettings(config: Config): Readonly<Record<string, string>> {
  return Object.fromEntries(
    shared.map((name) => {
      const isDuration = configTable[name].kind === 'duration';
      return [name, `${config[name]}${isDuration ? ' ms' : ''}`];
    }),
  );
}
