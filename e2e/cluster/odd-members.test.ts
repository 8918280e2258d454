import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Seeded, seedFrom } from '../checker/seeded.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import { mainScript } from '../server-process.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import type { Host } from './hosts.js';
import { MemberProcess } from './member-process.js';
import { PushLoad } from './push-load.js';

const skewSeconds: Readonly<Record<string, number>> = {
  'storage-1': 3_600,
  'storage-2': -3_600,
  'front-end-2': 3_600,
};

/** The clock on the wall, not the one that runs evenly: that is what differs between machines. */
function withItsOwnClock(member: string): Host | undefined {
  const seconds = skewSeconds[member];
  if (seconds === undefined) return undefined;
  const library = readdirSync('/usr/lib')
    .map((directory) => path.join('/usr/lib', directory, 'faketime/libfaketimeMT.so.1'))
    .find((file) => existsSync(file));
  assert.ok(library !== undefined, "libfaketime is missing: Debian's package faketime has it");
  return {
    name: member,
    address: '127.0.0.1',
    enter: [
      'env',
      `LD_PRELOAD=${library}`,
      `FAKETIME=${seconds < 0 ? '' : '+'}${seconds}`,
      'FAKETIME_DONT_FAKE_MONOTONIC=1',
    ],
  };
}

/** When a member says that it logged something last. */
function clockOf(member: MemberProcess): number {
  const time = [...member.log.matchAll(/"time":"([^"]+)"/g)].at(-1)?.[1] ?? '';
  return (Date.parse(time) - Date.now()) / 1_000;
}

describe('a cluster whose clocks are apart by hours', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  let ground: ClusterScene | undefined;
  let load: PushLoad | undefined;

  before(async () => {
    ground = await createClusterScene({ hostOf: withItsOwnClock });
    load = await PushLoad.start(ground, random);
  });
  after(async () => {
    await load?.close();
    await ground?.close();
  });

  function parts(): { readonly scene: ClusterScene; readonly pushing: PushLoad } {
    if (ground === undefined || load === undefined) throw new Error('the cluster is not there');
    return { scene: ground, pushing: load };
  }

  test('pushes lose nothing, also when members are killed and come back', async () => {
    const { scene, pushing } = parts();
    const { cluster } = scene;
    await pushing.survive('clocks that are apart', async () => {
      for (const member of [cluster.storageNode(0), cluster.frontEnd(1)]) {
        await member.kill();
        await pushing.acknowledged(5, 'without it');
        await member.start().ready();
      }
    });
    await pushing.converge();
    await pushing.checkDisks();
    // And people are told, by a front-end whose clock is right.
    const status = await waitFor('the status to tell', async () => {
      const { stdout } = await scene.scene.run(process.execPath, [mainScript, 'status'], {
        env: {
          QUORATE_URL: cluster.frontEnd(0).fact('httpUrl'),
          QUORATE_TOKEN: await cluster.adminToken(),
        },
      });
      return stdout.includes('clocks apart:') ? stdout : undefined;
    });
    assert.match(status, /^clocks apart: .*storage-1 3[56]\d\d s ahead/m);
    assert.match(status, /^clocks apart: .*storage-2 3[56]\d\d s behind/m);
    assert.match(cluster.frontEnd(0).log, /the clocks of a storage node and .* are apart/);
    for (const member of [...cluster.storage, ...cluster.frontEnds]) {
      const wanted = skewSeconds[member.name] ?? 0;
      assert.ok(Math.abs(clockOf(member) - wanted) < 900, `${member.name}: ${clockOf(member)} s`);
    }
  });

  test('a replica set that is larger than the cluster is refused, and says what to do', async () => {
    const { scene: cluster } = parts();
    const { scene } = cluster;
    const dataDirectory = scene.path('cluster', 'front-end-3');
    await mkdir(dataDirectory);
    const member = new MemberProcess({
      name: 'front-end-3',
      dataDirectory,
      readyFile: 'server.json',
      env: scene.env,
      detached: false,
      flags: [
        '--role=front-end',
        `--coordinator=${cluster.cluster.etcd.url}`,
        `--cluster-secret-file=${scene.path('cluster', 'cluster-secret')}`,
        `--http=127.0.0.1:${await pickPort()}`,
        `--ssh=127.0.0.1:${await pickPort()}`,
        `--ops=127.0.0.1:${await pickPort()}`,
        '--set=replication.factor=7',
      ],
    });
    try {
      await member.start().ready();
      const url = new URL(cluster.httpUrl(0, 'team/too-many.git'));
      url.port = new URL(member.fact('httpUrl')).port;
      const directory = await scene.makeRepository();
      const pushed = await scene.tryGit(['push', url.href, 'main'], { cwd: directory });
      assert.notEqual(pushed.exitCode, 0);
      const env = {
        QUORATE_URL: member.fact('httpUrl'),
        QUORATE_TOKEN: await cluster.cluster.adminToken(),
      };
      const quorate = (...args: readonly string[]) =>
        scene.run(process.execPath, [mainScript, ...args], { env });
      await waitFor('it to see all nodes', async () =>
        /3 of 3 alive; 3 can take copies, fewer than replication\.factor \(7\)/.test(
          (await quorate('status')).stdout,
        ),
      );
      assert.match(
        (await quorate('node', 'list')).stderr,
        /^3 of 3 nodes can take copies; fewer than replication\.factor \(7\)$/m,
      );
      const made = await quorate('repo', 'create', 'team/more');
      assert.match(
        made.stderr,
        /put on 7 storage nodes, and only 3 can take one now; start more, or lower replication\.factor/,
      );
      // It is nowhere: the name is free, and what is there is served.
      const there = cluster.httpUrl(0, 'team/too-many.git');
      await scene.git(['push', '-q', there, 'main'], { cwd: directory });
      await scene.git(['push', '-q', url.href, 'main:other'], { cwd: directory });
    } finally {
      await member.stop();
    }
  });
});
