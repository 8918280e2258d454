import assert from 'node:assert/strict';
import { test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, repositoriesOf } from './cluster-scene.js';

test('a repository that moved since etcd was saved is recovered from where it is; and once more from the same copy, by who slept through it', async (t) => {
  const ground = await createClusterScene({
    storageNodes: 2,
    frontEnds: 2,
    etcdMembers: 1,
    flags: ['--set=replication.factor=1'],
  });
  t.after(() => ground.close());
  const { scene, cluster } = ground;
  const repository = await scene.makeRepository();
  const url = ground.httpUrl(0, 'team/app.git');
  const push = (): ReturnType<typeof scene.tryGit> =>
    scene.tryGit(['push', url, 'main'], { cwd: repository });
  assert.equal((await push()).exitCode, 0);
  const has = async (index: number): Promise<boolean> =>
    (await repositoriesOf(cluster.storageNode(index))).length > 0;
  const from = (await has(0)) ? 0 : 1;
  const snapshot = scene.path('snapshot.db');
  await cluster.etcd.snapshot(snapshot);
  await ground.admin(0, 'repo', 'move', 'team/app', '--to', `storage-${2 - from}`);
  await waitFor('the old copy to go', async () => !(await has(from)) || undefined);
  const acknowledged = await scene.commit(repository, 'acknowledged.txt', 'kept\n');
  assert.equal((await push()).exitCode, 0);
  // More than what members put anew when etcd is back: or its revision is no lower by then than the last one seen.
  for (let n = 0; n < 20; n++) await ground.admin(0, 'user', 'add', `later-${n}`);

  const [first, second] = cluster.frontEnds;
  assert.ok(first !== undefined && second !== undefined);
  const putBack = async (incarnation: number): Promise<void> => {
    await cluster.etcd.restore(snapshot);
    await waitFor('the older copy to be told of, by who has seen most', async () => {
      const key = ['get', '--print-value-only', 'quorate/cluster/identity'];
      const etcdctl = ['--endpoints', cluster.etcd.endpoints.join(','), ...key];
      const { stdout } = await scene.run('etcdctl', etcdctl, { env: { ETCDCTL_API: '3' } });
      return stdout.includes(`"incarnation":${incarnation}}`) || undefined;
    });
  };
  const restart = async (members: typeof cluster.storage): Promise<void> => {
    await Promise.all(members.map((member) => member.stop()));
    await Promise.all(members.map((member) => member.start().ready()));
  };
  let clones = 0;
  const goesOn = async (): Promise<void> => {
    await waitFor('a push', async () => (await push()).exitCode === 0 || undefined);
    const clone = scene.path('work', `clone-${clones++}`);
    await scene.git(['clone', '-q', url, clone]);
    await scene.git(['merge-base', '--is-ancestor', acknowledged, 'HEAD'], { cwd: clone });
    assert.match(
      await ground.admin(0, 'repo', 'replicas', 'team/app'),
      new RegExp(`^storage-${2 - from} +voter `, 'm'),
    );
  };

  await putBack(1);
  await restart(cluster.storage);
  await ground.allSeen();
  assert.match(await ground.admin(0, 'recover'), /^team\/app +behind +1 +2$/m);
  assert.match(
    await ground.admin(0, 'recover', '--apply'),
    /^applied; restart these: front-end-1, front-end-2, storage-1, storage-2$/m,
  );
  await restart(cluster.storage);
  await restart([first]);
  await ground.allSeen();
  await scene.commit(repository, 'between.txt', 'between\n');
  await goesOn();
  assert.match(await ground.admin(0, 'recover'), /^applied; restart these: front-end-2$/m);

  await putBack(2);
  // The nodes come back to this etcd by themselves.
  await waitFor('the report', async () =>
    /^team\/app +behind +1 +3$/m.test(await ground.admin(1, 'recover')),
  );
  await ground.admin(1, 'recover', '--apply');
  await restart(cluster.storage);
  await restart([first, second]);
  await ground.allSeen();
  for (const index of [0, 1]) {
    assert.match(await ground.admin(index, 'recover'), /^nothing is frozen$/m);
  }
  await scene.commit(repository, 'later.txt', 'later\n');
  await goesOn();
});
