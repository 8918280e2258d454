import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene, repositoriesOf } from './cluster-scene.js';
import type { MemberProcess } from './member-process.js';

interface Report {
  readonly survivor?: { readonly nodeId: string; readonly generation: number };
  readonly overruled: readonly { readonly generation: number }[];
  readonly refusal?: string;
  readonly recovered?: number;
}

describe('a repository that lost two of its three copies for good', () => {
  let ground: ClusterScene;
  before(async () => {
    ground = await createClusterScene({ frontEnds: 1, etcdMembers: 1 });
  });
  after(() => ground.close());

  async function pushed(name: string) {
    const { scene, cluster } = ground;
    const before = new Set(await repositoriesOf(cluster.storageNode(0)));
    const directory = await scene.makeRepository({ commits: 2 });
    const url = ground.httpUrl(0, `${name}.git`);
    await scene.git(['push', '-q', url, 'main'], { cwd: directory });
    const id = await waitFor('its files', async () =>
      (await repositoriesOf(cluster.storageNode(0))).find((one) => !before.has(one)),
    );
    await ground.converged(id, 3);
    return { directory, url, id };
  }

  async function recover(name: string, ...more: readonly string[]): Promise<Report> {
    return JSON.parse(await ground.admin(0, '--json', 'repo', 'recover', name, ...more));
  }

  /** Declares which generation to go on from; once more when the set was changed at the same time, as it is told to. */
  async function goOnFrom(generation: number, name: string, ...json: readonly string[]) {
    const command = [...json, 'repo', 'recover', name, '--accept-loss', String(generation)];
    return waitFor('the recovery', () =>
      ground.admin(0, ...command).catch((error: unknown) => {
        assert.match(String(error), /the repository changed meanwhile: look at the report again/);
        return undefined;
      }),
    );
  }

  /** What was uploaded to the only voter just before it got company is refused, and told to come again. */
  async function pushInTheEnd(directory: string, url: string): Promise<void> {
    await waitFor('a push to be accepted', async () => {
      const { exitCode, stderr } = await ground.scene.tryGit(['push', '-q', url, 'main'], {
        cwd: directory,
      });
      if (exitCode !== 0) assert.match(stderr, /it is safe to push again/);
      return exitCode === 0 ? true : undefined;
    });
  }

  async function clonedTip(url: string, name: string): Promise<string> {
    const { scene } = ground;
    const clone = scene.path('work', name);
    await scene.git(['clone', '-q', url, clone]);
    await scene.git(['fsck', '--strict'], { cwd: clone });
    return (await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim();
  }

  test('goes on from what is left, on an explicit word, and has three copies again', async () => {
    const { scene, cluster } = ground;
    const { directory, url, id } = await pushed('team/wiped');
    const tip = (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
    assert.match((await recover('team/wiped')).refusal ?? '', /nothing is lost/);
    const lost = [cluster.storageNode(1), cluster.storageNode(2)];
    for (const node of lost) await node.kill();
    const waiting = await waitFor('the nodes to be missed', async () => {
      const { refusal } = await recover('team/wiped');
      return refusal?.includes('nothing is lost') === true ? undefined : refusal;
    });
    assert.match(waiting, /storage-[23], storage-[23] may come back/);
    // That goes by who is known to answer, while the report asks the stores: it may be told a little later.
    const state = await waitFor('the status to tell', async () => {
      const { cluster: now } = JSON.parse(await ground.admin(0, '--json', 'status'));
      return now.nodesMissedForMajority.length === 2 ? now : undefined;
    });
    assert.deepEqual(
      [state.repositoriesWithoutMajority, state.nodesMissedForMajority],
      [1, ['storage-2', 'storage-3']],
    );
    await assert.rejects(
      ground.admin(0, 'repo', 'recover', 'team/wiped', '--accept-loss', '1'),
      /may come back/,
    );

    for (const node of lost) {
      await wipe(node);
      await node.start().ready();
    }
    const blocked = await scene.tryGit(['push', url, 'main:refs/heads/blocked'], {
      cwd: directory,
    });
    assert.notEqual(blocked.exitCode, 0);
    const report = await waitFor('the new stores to be seen', async () => {
      const found = await recover('team/wiped');
      return found.refusal === undefined ? found : undefined;
    });
    assert.deepEqual(report.survivor, { nodeId: 'storage-1', generation: 1 });
    await assert.rejects(
      ground.admin(0, 'repo', 'recover', 'team/wiped', '--accept-loss', '7'),
      /generation 1, not 7/,
    );
    assert.match(await goOnFrom(1, 'team/wiped'), /team\/wiped goes on as generation 1/);
    assert.equal(await clonedTip(url, 'wiped'), tip);
    await scene.commit(directory, 'after.txt', 'after\n');
    await pushInTheEnd(directory, url);
    await ground.converged(id, 3);
    await waitFor('three voters', async () => {
      const copies: { role: string }[] = JSON.parse(
        await ground.admin(0, '--json', 'repo', 'replicas', 'team/wiped'),
      );
      return copies.filter(({ role }) => role === 'voter').length === 3;
    });
    await ground.allSeen();
    await ground.admin(0, 'repo', 'verify', 'team/wiped');
    const audit = await ground.admin(0, '--json', 'audit', '--repo', 'team/wiped');
    assert.match(audit, /repository\.recover/);
  });

  test('goes on from a copy that is behind: no generation is given twice', async () => {
    const { scene, cluster } = ground;
    const { directory, url, id } = await pushed('team/behind');
    const kept = (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
    await cluster.storageNode(0).kill();
    await scene.commit(directory, 'lost.txt', 'lost\n');
    await scene.git(['push', '-q', url, 'main'], { cwd: directory });
    for (const index of [1, 2]) await wipe(cluster.storageNode(index));
    for (const node of cluster.storage) node.start();
    await Promise.all(cluster.storage.map((node) => node.ready()));
    await ground.allSeen();
    const report = await waitFor('the new stores to be seen', async () => {
      const found = await recover('team/behind');
      return found.refusal === undefined ? found : undefined;
    });
    assert.deepEqual(report.survivor, { nodeId: 'storage-1', generation: 1 });
    assert.deepEqual(
      report.overruled.map(({ generation }) => generation),
      [2],
    );
    const { recovered }: Report = JSON.parse(await goOnFrom(1, 'team/behind', '--json'));
    assert.equal(recovered, 3);
    assert.equal(await clonedTip(url, 'behind'), kept);
    // Whoever has the lost commit pushes it again.
    await pushInTheEnd(directory, url);
    assert.equal((await ground.converged(id, 3)).generation, 4);
  });
});

async function wipe(node: MemberProcess): Promise<void> {
  await node.kill();
  await rm(node.dataDirectory, { recursive: true });
}
