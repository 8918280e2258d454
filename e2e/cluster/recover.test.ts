import assert from 'node:assert/strict';
import { test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, repositoriesOf } from './cluster-scene.js';

test('a cluster whose etcd was put back refuses pushes, and loses none to the recovery', async (t) => {
  const ground = await createClusterScene({ frontEnds: 1, etcdMembers: 1 });
  t.after(() => ground.close());
  const { scene, cluster } = ground;
  const repository = await scene.makeRepository();
  const changed = ground.httpUrl(0, 'team/changed.git');
  const unchanged = ground.httpUrl(0, 'team/unchanged.git');
  const push = (url: string) => scene.tryGit(['push', url, 'main'], { cwd: repository });
  for (const url of [changed, unchanged]) assert.equal((await push(url)).exitCode, 0);
  const snapshot = scene.path('snapshot.db');
  await cluster.etcd.snapshot(snapshot);
  const acknowledged = await scene.commit(repository, 'acknowledged.txt', 'kept\n');
  assert.equal((await push(changed)).exitCode, 0);
  // More than what members put anew when etcd is back: or its revision is no lower by then than the last one seen.
  for (let n = 0; n < 20; n++) await ground.admin(0, 'user', 'add', `later-${n}`);
  for (const id of await repositoriesOf(cluster.storageNode(0))) await ground.converged(id, 3);
  await cluster.etcd.restore(snapshot);

  await scene.commit(repository, 'later.txt', 'later\n');
  const refused = await waitFor('the older copy to be noticed', async () => {
    const { exitCode, stderr } = await push(unchanged);
    assert.notEqual(exitCode, 0);
    return /older copy: revision \d+ after \d+/.test(stderr) ? stderr : undefined;
  });
  assert.match(refused, /quorate recover/);
  assert.notEqual((await push(changed)).exitCode, 0);

  const members = [...cluster.storage, ...cluster.frontEnds];
  const restartAll = async (): Promise<void> => {
    await Promise.all(members.map((member) => member.stop()));
    // As when a cluster is started: who looks for storage nodes comes last.
    for (const kind of [cluster.storage, cluster.frontEnds]) {
      await Promise.all(kind.map((member) => member.start().ready()));
    }
    await ground.allSeen();
  };
  await restartAll();
  assert.notEqual((await push(unchanged)).exitCode, 0);
  const listed = await waitFor('reads to go on', async () => {
    const { exitCode, stdout } = await scene.tryGit(['ls-remote', unchanged]);
    return exitCode === 0 ? stdout : undefined;
  });
  assert.match(listed, /refs\/heads\/main/);
  assert.match(await ground.admin(0, 'status'), /^frozen: +the coordinator is an older copy: /m);
  const copies = await ground.admin(0, 'repo', 'replicas', 'team/changed');
  assert.match(copies, /this disk is at generation 2, .*: .* quorate recover/);
  assert.match(await ground.admin(0, 'recover'), /team\/changed +behind +1 +2\n/);
  assert.match(
    await ground.admin(0, 'recover', '--apply'),
    /^applied; restart these: front-end-1, storage-1, storage-2, storage-3$/m,
  );
  await waitFor('a member to say so', async () =>
    /"warnings":\{"coordinator":"[^"]+ start this process again/.test(
      await (await fetch(`${cluster.storageNode(0).fact('opsUrl')}/readyz`)).text(),
    ),
  );
  await restartAll();
  assert.match(await ground.admin(0, 'recover'), /^nothing is frozen$/m);

  for (const url of [changed, unchanged]) {
    const pushed = await push(url);
    assert.equal(pushed.exitCode, 0, pushed.stderr);
  }
  for (const id of await repositoriesOf(cluster.storageNode(0))) await ground.converged(id, 3);
  const clone = scene.path('work', 'recovered');
  await scene.git(['clone', '-q', changed, clone]);
  await scene.git(['merge-base', '--is-ancestor', acknowledged, 'HEAD'], { cwd: clone });
});
