import assert from 'node:assert/strict';
import { DiskWatch } from '../backends/local/disk-watch.js';
import { openCredentials, openStorageNode } from './cluster.js';
import type { CompositionParts } from './composition.js';
import { openCoordinator } from './coordinator.js';
import { tellEndOf } from './membership.js';
import { formatAddress, listenOn, reachableAddress } from './listen.js';
import { createOpsServer } from './observe/ops-server.js';
import { checkMembership, checkStorage, createGitCheck } from './readiness.js';

/** What a storage node writes into its data directory, and says when it serves. */
export interface NodeFile {
  readonly nodeId: string;
  readonly storeId: string;
  /** Where the other members reach it. */
  readonly address: string;
  readonly opsUrl: string;
  readonly pid: number;
  readonly version: string;
}

export interface ComposedStorageNode {
  /** Announces the node to the cluster, and serves. */
  start(): Promise<NodeFile>;
  /** Takes no new work; what runs may finish until the deadline on the monotonic clock. */
  drain(deadlineMs: number): Promise<void>;
}

/** The composition root of a storage node: a store, its API for the cluster, health and metrics, and no doors. */
export async function composeStorageNode(
  parts: Omit<CompositionParts, 'newHostKeys'>,
): Promise<ComposedStorageNode> {
  const { config, data, clock, logger, teardown, version, metrics } = parts;
  const { git, store } = await parts.engine;
  assert(store !== undefined, 'a storage node has a store');
  const opened = await openCoordinator({ ...parts, meter: metrics, dataDirectory: data.path });
  const { coordinator } = opened;
  if (opened.coordinatorTls !== undefined) tellEndOf(opened.coordinatorTls, 'etcd', metrics);
  const disk = new DiskWatch({
    directory: data.path,
    writes: true,
    clock,
    logger,
    meter: metrics,
  });
  void disk.keepLooking(parts.stopping);
  const credentials = await openCredentials({ ...parts, meter: metrics });
  const node = await openStorageNode({
    ...parts,
    ...opened,
    credentials,
    disk,
    git,
    ...store,
    meter: metrics,
  });
  teardown.add('storage node', () => node.close());
  const ops = createOpsServer({
    ...parts,
    phase: () => parts.lifecycle.state.phase,
    checks: {
      coordinator: () => coordinator.ping(),
      storage: () => checkStorage(disk),
      git: createGitCheck({ git, clock }),
      members: () => checkMembership(() => node.stranger),
    },
    warnings: {
      cluster: () => credentials.tls?.problem() ?? opened.coordinatorTls?.problem(),
      coordinator: () => opened.identity.frozen?.message,
      node: () => node.problem,
    },
    locks: () => Promise.resolve([]),
  });
  const opsAddress = await listenOn('ops', ops, config.ops);
  teardown.add('operations server', () => ops.close());
  return {
    async start() {
      await node.start();
      return {
        nodeId: node.nodeId,
        storeId: node.replica.storeId,
        address: node.address,
        opsUrl: `http://${formatAddress(reachableAddress(opsAddress))}`,
        pid: process.pid,
        version,
      };
    },
    drain: (deadlineMs) => node.drain(Math.max(0, deadlineMs - clock.monotonicMs())),
  };
}
