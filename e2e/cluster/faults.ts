import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Seeded } from '../checker/seeded.js';
import type { ClusterScene } from './cluster-scene.js';
import type { MemberProcess } from './member-process.js';

/** Something that goes wrong for a while. Resolves when all is well again, as far as the fault is concerned. */
export interface Fault {
  readonly name: string;
  readonly happen: (ground: ClusterScene, random: Seeded) => Promise<void>;
}

const pause = (random: Seeded, low: number, high: number): Promise<void> =>
  sleep(random.between(low, high));

function anyOf(members: readonly MemberProcess[], random: Seeded): MemberProcess {
  return random.pick(members);
}

async function killAndRestart(member: MemberProcess, random: Seeded): Promise<void> {
  await member.kill();
  await pause(random, 0, 2_000);
  member.start();
  await member.ready();
}

/** It keeps its connections and answers nothing: what a hanging disk or a lost host looks like. */
async function stall(member: MemberProcess, random: Seeded): Promise<void> {
  await member.pause();
  await pause(random, 1_000, 6_000);
  member.resume();
}

/** Changes a byte in the middle of every pack that a store has. */
export async function flipBits(node: MemberProcess, repositoryId: string): Promise<number> {
  const packs = path.join(
    node.dataDirectory,
    'store/repos',
    repositoryId.slice(0, 2),
    repositoryId,
    'git/objects/pack',
  );
  let flipped = 0;
  for (const name of await readdir(packs)) {
    if (!name.endsWith('.pack')) continue;
    const file = path.join(packs, name);
    // Maintenance may just put another in its place.
    const bytes = await taken(file);
    if (bytes === undefined) continue;
    const at = Math.floor(bytes.length / 2);
    bytes[at] = (bytes[at] ?? 0) ^ 0x55;
    await writeFile(file, bytes);
    flipped++;
  }
  return flipped;
}

/** What was in a file, which is gone then; undefined when it has gone before. */
async function taken(file: string): Promise<Buffer | undefined> {
  try {
    const bytes = await readFile(file);
    await rm(file);
    return bytes;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The disk is another one: nothing of the store is left, under the same node id. */
export async function wipe(node: MemberProcess): Promise<void> {
  await node.kill();
  await rm(path.join(node.dataDirectory, 'store'), { recursive: true });
  node.start();
  await node.ready();
}

export const faults: readonly Fault[] = [
  {
    name: 'a storage node is killed',
    happen: ({ cluster }, random) => killAndRestart(anyOf(cluster.storage, random), random),
  },
  {
    name: 'a storage node answers nothing',
    happen: ({ cluster }, random) => stall(anyOf(cluster.storage, random), random),
  },
  {
    name: 'a front-end is killed',
    happen: ({ cluster }, random) => killAndRestart(anyOf(cluster.frontEnds, random), random),
  },
  {
    name: 'a front-end answers nothing',
    happen: ({ cluster }, random) => stall(anyOf(cluster.frontEnds, random), random),
  },
  {
    name: "etcd's leader is killed",
    happen: async ({ cluster }, random) => {
      const leader = await cluster.etcd.killLeader();
      await pause(random, 0, 3_000);
      leader.start();
      await cluster.etcd.ready();
    },
  },
  {
    name: 'a member of etcd answers nothing',
    happen: async ({ cluster }, random) => {
      const member = random.pick(cluster.etcd.members);
      await member.pause();
      await pause(random, 1_000, 5_000);
      member.resume();
    },
  },
  {
    name: 'a storage node and a front-end are killed together',
    happen: async ({ cluster }, random) => {
      await Promise.all([
        killAndRestart(anyOf(cluster.storage, random), random),
        killAndRestart(anyOf(cluster.frontEnds, random), random),
      ]);
    },
  },
  {
    name: 'all storage nodes are killed',
    happen: async ({ cluster }, random) => {
      await Promise.all(cluster.storage.map((member) => killAndRestart(member, random)));
    },
  },
];
