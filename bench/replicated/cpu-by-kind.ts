import type { ClusterScene } from '../../e2e/cluster/cluster-scene.js';
import { treeCpuSeconds } from '../process-tree.js';

/** CPU seconds so far by kind of process, each with what it started; the client is this process alone. */
export function cpuByKind({ cluster }: ClusterScene): ReadonlyMap<string, number> {
  const { user, system } = process.cpuUsage();
  return new Map([
    ['front-ends', treeCpuSeconds(cluster.frontEnds.map(({ pid }) => pid))],
    ['storage nodes', treeCpuSeconds(cluster.storage.map(({ pid }) => pid))],
    ['etcd', treeCpuSeconds(cluster.etcd.members.flatMap(({ pid }) => pid ?? []))],
    ['client', (user + system) / 1e6],
  ]);
}

/** What each of so many pushes took between two looks, all processes of a kind together. */
export function cpuForEach(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  pushes: number,
): string {
  const each = [...after].map(([kind, seconds]) => {
    return { kind, ms: ((seconds - (before.get(kind) ?? 0)) * 1000) / pushes };
  });
  const sum = each.reduce((all, { ms }) => all + ms, 0);
  return `${each.map(({ kind, ms }) => `${kind} ${ms.toFixed(1)} ms`).join(', ')}; ${sum.toFixed(1)} ms in all`;
}
