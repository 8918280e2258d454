import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterControl, NodeInfo, StoreView } from '../../backends/contract/cluster.js';
import { clusterState } from './cluster-state.js';

const never = (): Promise<never> => Promise.reject(new Error('nobody asks for that'));
const cluster: ClusterControl = {
  replicationFactor: 3,
  mark: never,
  remove: never,
  move: never,
  recover: never,
  repairing: () => Promise.resolve(1),
  stranger: undefined,
  differingSettings: () => Promise.resolve([]),
  fillsGivenUp: () => Promise.resolve([]),
  copiesBehind: () => Promise.resolve({ b: 4 }),
  lagging: () => Promise.resolve(2),
  withoutMajority: () => Promise.resolve({ repositories: 3, nodes: ['c', 'd'] }),
};

function node(nodeId: string, facts: Partial<NodeInfo> = {}): NodeInfo {
  return {
    nodeId,
    storeId: undefined,
    alive: false,
    silent: false,
    mark: undefined,
    markedAtMs: undefined,
    address: undefined,
    zone: undefined,
    weight: undefined,
    capacityBytes: undefined,
    usedBytes: undefined,
    problem: undefined,
    clockApartMs: undefined,
    copies: 0,
    ...facts,
  };
}

async function stateOf(...nodes: readonly NodeInfo[]): Promise<object | null> {
  const stores: StoreView = {
    nodes: () => Promise.resolve(nodes),
    known: () => [],
    replicas: never,
    verify: never,
    explain: never,
  };
  return clusterState({ cluster, stores });
}

test('nodes are told by what is known of them, with zones, repairs and lag', async () => {
  const state = await stateOf(
    node('a', { alive: true, zone: 'z1', mark: 'draining' }),
    node('b', { alive: true, zone: 'z1' }),
    node('c', { silent: true, clockApartMs: -3_600_000 }),
    node('d', { copies: 1 }),
    node('e', { alive: true, zone: 'z1', problem: 'the disk is full' }),
  );
  assert.deepEqual(state, {
    nodes: 5,
    nodesAlive: 3,
    nodesAway: ['d'],
    nodesTaking: 1,
    nodesDraining: ['a'],
    nodesRemoved: [],
    nodesSilent: ['c'],
    nodeProblems: { e: 'the disk is full' },
    clocksApart: { c: -3_600_000 },
    zones: 1,
    replicationFactor: 3,
    repairing: 1,
    fillsGivenUp: [],
    settingsDiffer: [],
    lagging: 2,
    copiesBehind: { b: 4 },
    repositoriesWithoutMajority: 3,
    nodesMissedForMajority: ['c', 'd'],
  });
});

test('a node that was removed is away only while it has copies, and counts when it is there', async () => {
  const state = await stateOf(
    node('gone', { mark: 'removed' }),
    node('left', { mark: 'removed', copies: 2 }),
    node('back', { mark: 'removed', alive: true }),
    node('drained', { mark: 'draining' }),
  );
  assert.ok(state !== null && 'nodes' in state && 'nodesAway' in state);
  assert.deepEqual([state.nodes, state.nodesAway], [3, ['left', 'drained']]);
});

test('one store only is no cluster', async () => {
  assert.equal(await clusterState({ cluster: undefined, stores: undefined }), null);
});
