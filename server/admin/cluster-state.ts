import type { Backend } from '../../backends/contract/backend.js';
import type { NodeInfo } from '../../backends/contract/cluster.js';

/** Nodes and repairs, for `quorate status`; null where there is one store only. */
export async function clusterState({
  cluster,
  stores,
}: Pick<Backend, 'cluster' | 'stores'>): Promise<object | null> {
  if (cluster === undefined || stores === undefined) return null;
  const nodes = (await stores.nodes()).filter((node) => !isGone(node));
  const zones = new Set(nodes.flatMap(({ alive, zone }) => (alive && zone ? [zone] : [])));
  const [repairing, fillsGivenUp, settingsDiffer, lagging, copiesBehind, withoutMajority] =
    await Promise.all([
      cluster.repairing(),
      cluster.fillsGivenUp(),
      cluster.differingSettings(),
      cluster.lagging(),
      cluster.copiesBehind(),
      cluster.withoutMajority(),
    ]);
  return {
    nodes: nodes.length,
    nodesAlive: nodes.filter(({ alive }) => alive).length,
    nodesAway: nodes.flatMap(({ alive, silent, nodeId }) => (alive || silent ? [] : [nodeId])),
    nodesTaking: nodes.filter(takesCopies).length,
    nodesDraining: nodes.flatMap(({ mark, nodeId }) => (mark === 'draining' ? [nodeId] : [])),
    nodesRemoved: nodes.flatMap(({ alive, silent, mark, nodeId }) =>
      mark === 'removed' && (alive || silent) ? [nodeId] : [],
    ),
    nodesSilent: nodes.flatMap(({ silent, nodeId }) => (silent ? [nodeId] : [])),
    nodeProblems: Object.fromEntries(
      nodes.flatMap(({ nodeId, problem }) =>
        problem === undefined ? [] : [[nodeId, problem] as const],
      ),
    ),
    clocksApart: Object.fromEntries(
      nodes.flatMap(({ nodeId, clockApartMs }) =>
        clockApartMs === undefined ? [] : [[nodeId, clockApartMs] as const],
      ),
    ),
    zones: zones.size,
    replicationFactor: cluster.replicationFactor,
    repairing,
    fillsGivenUp,
    settingsDiffer,
    lagging,
    copiesBehind,
    repositoriesWithoutMajority: withoutMajority.repositories,
    nodesMissedForMajority: withoutMajority.nodes,
  };
}

function takesCopies({ alive, mark, problem }: NodeInfo): boolean {
  return alive && mark === undefined && problem === undefined;
}

/** Removed, without a copy, and not there: nobody waits for it. `node list --all` shows it: its mark is kept, so that it is known should it come back. */
function isGone({ mark, alive, silent, copies }: NodeInfo): boolean {
  return mark === 'removed' && !alive && !silent && copies === 0;
}
