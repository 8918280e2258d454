import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { zeroOid } from '../checker/push-journal.js';
import { emptyCommit, emptyTree, pushBody, rawPush } from '../checker/raw-git.js';
import type { Seeded } from '../checker/seeded.js';
import type { ClusterScene } from './cluster-scene.js';
import type { Hosts } from './hosts.js';
import type { PushLoad } from './push-load.js';

export interface NetworkGround {
  readonly scene: ClusterScene;
  readonly hosts: Hosts;
  readonly load: PushLoad;
  readonly random: Seeded;
}

/** Lines that are cut or slow for a while. Whoever runs it heals them. */
export interface NetworkFault {
  readonly name: string;
  readonly happen: (ground: NetworkGround) => Promise<void>;
}

const etcd = (index: number): string => `etcd-${index + 1}`;
const storage = (index: number): string => `storage-${index + 1}`;
const frontEnd = (index: number): string => `front-end-${index + 1}`;

/** Shorter and longer than those involved take to notice. */
const pause = (random: Seeded): Promise<void> => sleep(random.between(200, 3_000));

/** Somebody who waits so long for an answer gives up. */
const attemptTimeoutMs = 8_000;

/** A repository for pushes that must not be accepted, so that those without an answer confuse nobody. */
const apart = 'team/minority';

/** Pushes to a front-end that must not accept anything now. */
async function assertAcceptsNothing(ground: ClusterScene, index: number): Promise<void> {
  const agent = new Agent();
  const timer = setTimeout(() => agent.destroy(), attemptTimeoutMs);
  const verdict = await pushOnce(ground, index, agent);
  clearTimeout(timer);
  agent.destroy();
  assert.notEqual(verdict, 'acknowledged', `the minority's front-end ${index + 1} accepted`);
}

async function pushOnce(ground: ClusterScene, index: number, agent: Agent): Promise<string> {
  const commit = emptyCommit(`${Math.random()}`, []);
  const ref = `refs/heads/${commit.oid}`;
  const body = pushBody([{ ref, old: zeroOid, new: commit.oid }], [emptyTree, commit]);
  const verdicts = await rawPush(ground.httpUrl(index, apart), body, { agent, refs: [ref] });
  return verdicts.get(ref)?.verdict ?? 'unknown';
}

/** That a push like those of `assertAcceptsNothing` is accepted when all is well. */
export async function prepareAttempts(ground: ClusterScene): Promise<void> {
  const agent = new Agent();
  assert.equal(await pushOnce(ground, 0, agent), 'acknowledged');
  agent.destroy();
}

export const networkFaults: readonly NetworkFault[] = [
  {
    name: 'a storage node is cut off from all others',
    happen: async ({ hosts, load, random }) => {
      await hosts.part([storage(random.between(0, 2))]);
      await load.acknowledged(5, 'without a storage node');
      await pause(random);
    },
  },
  {
    name: 'a minority: a front-end, a storage node and a member of etcd among themselves',
    happen: async ({ scene, hosts, load, random }) => {
      const index = random.between(0, 1);
      const member = random.between(0, 2);
      await hosts.part([frontEnd(index), storage(member), etcd(member)]);
      await load.through([1 - index], async () => {
        await assertAcceptsNothing(scene, index);
        await load.acknowledged(5, 'by the majority');
      });
    },
  },
  {
    name: 'storage nodes are apart: each front-end reaches only one',
    happen: async ({ scene, hosts, load, random }) => {
      await hosts.part([frontEnd(0)], [storage(1), storage(2)]);
      await hosts.part([frontEnd(1)], [storage(0), storage(1)]);
      await load.through([], async () => {
        await Promise.all([assertAcceptsNothing(scene, 0), assertAcceptsNothing(scene, 1)]);
      });
      await pause(random);
    },
  },
  {
    name: "etcd's leader is cut off from all others",
    happen: async ({ scene, hosts, load, random }) => {
      const leader = await scene.cluster.etcd.leader();
      await hosts.part([leader.name]);
      await load.acknowledged(5, 'with another leader');
      await pause(random);
    },
  },
  {
    name: 'a front-end is cut off from etcd, and reaches the storage nodes',
    happen: async ({ scene, hosts, load, random }) => {
      const index = random.between(0, 1);
      await hosts.part([frontEnd(index)], [etcd(0), etcd(1), etcd(2)]);
      await load.through([1 - index], async () => {
        await assertAcceptsNothing(scene, index);
        await load.acknowledged(5, 'by the other front-end');
      });
    },
  },
  {
    name: 'one way: a storage node hears all, and nobody hears it',
    happen: async ({ hosts, load, random }) => {
      await hosts.mute([storage(random.between(0, 2))]);
      await load.acknowledged(5, 'without a storage node');
      await pause(random);
    },
  },
  {
    name: 'one way: a storage node hears nobody, and all hear it',
    happen: async ({ hosts, load, random }) => {
      await hosts.deafen([storage(random.between(0, 2))]);
      await load.acknowledged(5, 'without a storage node');
      await pause(random);
    },
  },
  {
    name: "one way: what etcd's leader sends reaches nobody",
    happen: async ({ scene, hosts, load, random }) => {
      const leader = await scene.cluster.etcd.leader();
      await hosts.mute([leader.name]);
      await load.acknowledged(5, 'with another leader');
      await pause(random);
    },
  },
  {
    name: 'slow and lossy lines of a storage node, a front-end and a member of etcd',
    happen: async ({ hosts, load, random }) => {
      await hosts.slow(storage(random.between(0, 2)));
      await hosts.slow(frontEnd(random.between(0, 1)));
      await hosts.slow(etcd(random.between(0, 2)));
      await load.acknowledged(5, 'over slow lines');
      await pause(random);
    },
  },
];
