import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { readMarker } from '../checker/store-on-disk.js';
import { createScene, type Scene, type SshServer, waitFor } from '../harness.js';
import { mainScript } from '../server-process.js';
import { Cluster, type ClusterOptions } from './cluster.js';
import type { MemberProcess } from './member-process.js';

/** A cluster of its own for a suite, and clients. */
export interface ClusterScene {
  readonly scene: Scene;
  readonly cluster: Cluster;
  /** URL of a repository at a front-end, as `admin`. */
  httpUrl(frontEnd: number, repository: string): string;
  sshUrl(frontEnd: number, repository: string): string;
  sshServer(frontEnd: number): SshServer;
  /** Runs a `quorate` command against a front-end, as `admin`, and returns its stdout. */
  admin(frontEnd: number, ...args: readonly string[]): Promise<string>;
  /** Resolves when every front-end sees every storage node alive: one that was away is noticed a little later. */
  allSeen(): Promise<void>;
  /** Resolves when all stores that have the repository have equal copies of it, as many as wanted. */
  converged(id: string, copies: number): Promise<StoredState>;
  close(): Promise<void>;
}

/** What a store's marker says. */
export interface StoredState {
  readonly generation: number;
  readonly digest: string;
}

export async function createClusterScene(
  options: Partial<ClusterOptions> = {},
): Promise<ClusterScene> {
  const scene = await createScene();
  const cluster = await Cluster.start({
    directory: scene.path('cluster'),
    env: scene.env,
    ...options,
    flags: ['--set=shutdown.grace=5s', ...(options.flags ?? [])],
  });
  const adminToken = await cluster.adminToken();
  const admin: ClusterScene['admin'] = async (frontEnd, ...args) => {
    const url = cluster.frontEnd(frontEnd).fact('httpUrl');
    const result = await scene.run(process.execPath, [mainScript, ...args], {
      env: { QUORATE_URL: url, QUORATE_TOKEN: adminToken },
    });
    if (result.exitCode !== 0) throw new Error(`quorate ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  };
  const sshServer = (frontEnd: number): SshServer => {
    const member = cluster.frontEnd(frontEnd);
    return { sshHost: member.fact('sshHost'), sshPort: Number(member.fact('sshPort')) };
  };
  const ground: ClusterScene = {
    scene,
    cluster,
    sshServer,
    httpUrl: (frontEnd, repository) => {
      const url = new URL(`${cluster.frontEnd(frontEnd).fact('httpUrl')}/${repository}`);
      url.username = 'admin';
      url.password = adminToken;
      return url.href;
    },
    sshUrl: (frontEnd, repository) => {
      const { sshHost, sshPort } = sshServer(frontEnd);
      return `ssh://git@${sshHost}:${sshPort}/${repository}`;
    },
    admin,
    allSeen: async () => {
      for (const [frontEnd, { name }] of cluster.frontEnds.entries()) {
        await waitFor(`${name} to see all nodes`, async () => {
          const nodes: readonly { readonly alive: boolean }[] = JSON.parse(
            await admin(frontEnd, '--json', 'node', 'list'),
          );
          return nodes.length === cluster.storage.length && nodes.every(({ alive }) => alive);
        });
      }
    },
    converged: (id, copies) =>
      waitFor('the copies to be equal', async () => {
        const states = await Promise.all(cluster.storage.map((node) => stateOf(node, id)));
        const found = states.filter((state) => state !== undefined);
        const [first] = found;
        const equal = found.every(({ digest, generation }) => {
          return digest === first?.digest && generation === first.generation;
        });
        return equal && found.length >= copies ? first : undefined;
      }),
    close: async () => {
      try {
        await cluster.stop();
      } finally {
        // Whoever did not stop by itself is ended all the same.
        await cluster.kill();
        await keepLogs(cluster);
      }
      await scene.close();
    },
  };
  try {
    // A repository that is made before has fewer copies for a while.
    await ground.allSeen();
  } catch (error) {
    await ground.close();
    throw error;
  }
  return ground;
}

/** For whoever looks for the reason of a failure: a directory in `CLUSTER_LOGS` gets what the members logged. */
async function keepLogs(cluster: Cluster): Promise<void> {
  const directory = process.env['CLUSTER_LOGS'];
  if (directory === undefined) return;
  await mkdir(directory, { recursive: true });
  for (const { name, log } of [...cluster.storage, ...cluster.frontEnds]) {
    await writeFile(path.join(directory, `${name}-${process.pid}.log`), log);
  }
}

/** Ids of the repositories in a store. */
export async function repositoriesOf(node: MemberProcess): Promise<readonly string[]> {
  const root = path.join(node.dataDirectory, 'store', 'repos');
  const shards = await readdir(root);
  return (await Promise.all(shards.map((shard) => readdir(path.join(root, shard))))).flat();
}

async function stateOf(node: MemberProcess, id: string): Promise<StoredState | undefined> {
  const directory = path.join(node.dataDirectory, 'store', 'repos', id.slice(0, 2), id);
  return readMarker(directory).catch(() => undefined);
}
