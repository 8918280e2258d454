import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { isFree, pickPort } from '../../backends/contract/testing/ports.js';

export interface MemberCounts {
  readonly etcd: number;
  readonly storage: number;
  readonly frontEnds: number;
}

export interface ClusterPorts {
  readonly http: readonly number[];
  readonly ssh: readonly number[];
  readonly ops: readonly number[];
  readonly nodes: readonly number[];
  readonly nodeOps: readonly number[];
  readonly etcdClients: readonly number[];
  readonly etcdPeers: readonly number[];
  readonly etcdHealth: readonly number[];
}

/** Ports of one kind lie beside each other, so that one can guess them. */
const perKind = 10;

/**
 * The ports of a cluster: from `basePort` on, at most 80; else those that the directory was used with before, since
 * members keep their addresses; else free ones. Throws, naming them, when other programs have some of them: were these
 * the ports of another cluster's etcd, its members would be taken for this one's.
 */
export async function claimPorts(
  directory: string,
  counts: MemberCounts,
  basePort: number | undefined,
): Promise<ClusterPorts> {
  for (const [name, count] of Object.entries(counts)) {
    if (count < 1 || count > perKind) throw new RangeError(`${name}: from 1 to ${perKind}`);
  }
  const file = path.join(directory, 'ports.json');
  const kept = await readFile(file, 'utf8').catch(() => '{}');
  const known = new Map<string, number>(Object.entries(JSON.parse(kept)));
  const taken: number[] = [];
  const kind = async (place: number, count: number): Promise<readonly number[]> => {
    const ports: number[] = [];
    for (let index = place * perKind; index < place * perKind + count; index += 1) {
      const given = basePort === undefined ? known.get(String(index)) : basePort + index;
      if (given !== undefined && !(await isFree(given))) taken.push(given);
      const port = given ?? (await pickPort());
      known.set(String(index), port);
      ports.push(port);
    }
    return ports;
  };
  const ports = {
    http: await kind(0, counts.frontEnds),
    ssh: await kind(1, counts.frontEnds),
    ops: await kind(2, counts.frontEnds),
    nodes: await kind(3, counts.storage),
    nodeOps: await kind(4, counts.storage),
    etcdClients: await kind(5, counts.etcd),
    etcdPeers: await kind(6, counts.etcd),
    etcdHealth: await kind(7, counts.etcd),
  };
  if (taken.length > 0) {
    const which = taken.length === 1 ? 'port' : 'ports';
    throw new Error(
      `other programs use the ${which} ${taken.join(', ')} (another cluster, perhaps): stop them, or choose other ports with --base-port P`,
    );
  }
  await writeFile(file, JSON.stringify(Object.fromEntries(known)));
  return ports;
}
