import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, repositoriesOf } from './cluster-scene.js';

test('an older copy of etcd, and most copies of a repository lost for good: what is left is gone on from by two commands', async (t) => {
  const ground = await createClusterScene({ frontEnds: 1, etcdMembers: 1 });
  t.after(() => ground.close());
  const { scene, cluster } = ground;
  const directory = await scene.makeRepository();
  const url = ground.httpUrl(0, 'team/app.git');
  const push = () => scene.tryGit(['push', url, 'main'], { cwd: directory });
  assert.equal((await push()).exitCode, 0);
  const snapshot = scene.path('snapshot.db');
  await cluster.etcd.snapshot(snapshot);
  const acknowledged = await scene.commit(directory, 'acknowledged.txt', 'kept\n');
  assert.equal((await push()).exitCode, 0);
  // More than what members put anew when etcd is back.
  for (let n = 0; n < 20; n++) await ground.admin(0, 'user', 'add', `later-${n}`);
  const [id] = await repositoriesOf(cluster.storageNode(0));
  assert.ok(id);
  await ground.converged(id, 3);

  const lost = [cluster.storageNode(1), cluster.storageNode(2)];
  for (const node of lost) await node.kill();
  await cluster.etcd.restore(snapshot);
  const restart = async (): Promise<void> => {
    const left = [cluster.storageNode(0), cluster.frontEnd(0)];
    await Promise.all(left.map((member) => member.stop()));
    for (const member of left) await member.start().ready();
  };
  await restart();
  await waitFor('the node that is left to be asked', async () =>
    /^team\/app +unreachable +1 +2$/m.test(await ground.admin(0, 'recover')),
  );
  await assert.rejects(ground.admin(0, 'recover', '--apply'), /with --force/);
  const applied = await ground.admin(0, 'recover', '--apply', '--force');
  // In the copy the others were announced, and are until their leases end.
  const lists = /^applied; restart these: front-end-1, storage-1(?:, storage-2, storage-3)?$/m;
  assert.match(applied, lists);
  await restart();
  assert.notEqual((await push()).exitCode, 0, 'it stays frozen');

  const recover = (...more: readonly string[]): Promise<string> =>
    ground.admin(0, 'repo', 'recover', 'team/app', ...more);
  await waitFor('the report', async () =>
    /nothing was changed: .* may come back, and might have the latest: /.test(await recover()),
  );
  const gone = ['--gone', 'storage-2,storage-3'];
  // Their announcements in the copy end with their leases.
  const report = await waitFor('those that are gone to be gone', async () => {
    const said = await recover(...gone);
    return said.includes('--accept-loss 2') ? said : undefined;
  });
  assert.match(report, /^committed: generation 1$/m);
  assert.match(report, /^left: +generation 2, on storage-1$/m);
  assert.match(report, /^lost: +what was committed after generation 2, if anything was: /m);
  await assert.rejects(recover(...gone, '--accept-loss', '1'), /generation 2, not 1/);
  assert.match(await recover(...gone, '--accept-loss', '2'), /team\/app goes on as generation 2/);

  const clone = scene.path('work', 'recovered');
  await scene.git(['clone', '-q', url, clone]);
  await scene.git(['merge-base', '--is-ancestor', acknowledged, 'HEAD'], { cwd: clone });
  for (const node of lost) {
    await rm(node.dataDirectory, { recursive: true });
    await node.start().ready();
  }
  await scene.commit(directory, 'after.txt', 'after\n');
  await waitFor('a push to be accepted', async () => {
    const { exitCode, stderr } = await push();
    if (exitCode !== 0) assert.match(stderr, /it is safe to push again/);
    return exitCode === 0;
  });
  await ground.converged(id, 3);
  await waitFor('nothing to be left to recover', async () =>
    /^nothing is frozen$/m.test(await ground.admin(0, 'recover')),
  );
});
