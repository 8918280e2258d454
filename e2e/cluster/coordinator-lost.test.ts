import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { mainScript } from '../server-process.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';

describe('a cluster whose etcd has lost its quorum', () => {
  let ground: ClusterScene;
  let directory: string;
  let ssh: Record<string, string>;
  let tip: string;

  before(async () => {
    ground = await createClusterScene({ frontEnds: 2 });
    const { scene } = ground;
    directory = await scene.makeRepository({ commits: 2 });
    const key = await scene.sshKey();
    await ground.admin(0, 'key', 'add', 'admin', key.publicKeyFile);
    ssh = { ...(await key.environment(ground.sshServer(0))) };
    // The first front-end is the one that is asked for them, and never hears of one of them before.
    for (const [name, by] of [
      ['team/calm', 0],
      ['team/strict', 0],
      ['team/unread', 1],
    ] as const) {
      const url = ground.httpUrl(by, `${name}.git`);
      await scene.git(['push', '-q', url, 'main'], { cwd: directory });
      if (name === 'team/strict') continue;
      await ground.admin(by, 'repo', 'set', name, 'replication.readConsistency=eventual');
    }
    tip = (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
    // What is to be recalled has to have been read.
    for (const name of ['team/calm', 'team/strict']) {
      assert.equal(await tipSeen(ground.httpUrl(0, `${name}.git`)), tip);
      assert.equal(await tipSeen(ground.sshUrl(0, `${name}.git`), ssh), tip);
    }
  });
  after(() => ground.close());

  async function tipSeen(url: string, env = {}): Promise<string> {
    const listed = await ground.scene.git(['ls-remote', url, 'refs/heads/main'], { env });
    return listed.split('\t')[0] ?? '';
  }

  async function ops(path: string): Promise<{ readonly status: number; readonly text: string }> {
    const answer = await fetch(`${ground.cluster.frontEnd(0).fact('opsUrl')}${path}`);
    return { status: answer.status, text: await answer.text() };
  }

  /** With the token in the data directory of the first front-end, whom nobody can ask etcd about. */
  function status(...flags: readonly string[]): ReturnType<typeof ground.scene.run> {
    const { scene, cluster } = ground;
    const words = ['--data', cluster.frontEnd(0).dataDirectory, 'status', ...flags];
    return scene.run(process.execPath, [mainScript, ...words], { env: {} });
  }

  test('eventual reads go on, pushes are refused, and all is well when it is back', async () => {
    const { scene, cluster } = ground;
    const well = await status();
    assert.equal(well.exitCode, 0, well.stderr);
    assert.match(well.stdout, /^etcd members: +3 of 3 answer$/m);
    const lost = cluster.etcd.members.slice(0, 2);
    for (const member of lost) await member.kill();

    const url = ground.httpUrl(0, 'team/calm.git');
    const clone = scene.path('work', 'http-clone');
    await scene.git(['clone', '-q', url, clone]);
    assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), tip);
    const over = await scene.tryGit(
      ['clone', '-q', ground.sshUrl(0, 'team/calm.git'), scene.path('work', 'ssh-clone')],
      { env: ssh },
    );
    assert.equal(over.exitCode, 0, over.stderr);
    assert.match(over.stderr, /WARNING: the coordinator has not answered for \d+ s/);

    const { username, password, origin, pathname } = new URL(url);
    const answer = await fetch(`${origin}${pathname}/info/refs?service=git-upload-pack`, {
      headers: { authorization: `Basic ${btoa(`${username}:${password}`)}` },
    });
    await answer.text();
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('quorate-coordinator-lost') ?? '', /^\d+$/);
    const wrong = `${password.slice(0, -1)}${password.endsWith('x') ? 'y' : 'x'}`;
    const unknown = await fetch(`${origin}${pathname}/info/refs?service=git-upload-pack`, {
      headers: { authorization: `Basic ${btoa(`admin:${wrong}`)}` },
    });
    await unknown.text();
    assert.notEqual(unknown.status, 200, 'only who was known is let in');

    await scene.commit(directory, 'change.txt', 'one\n');
    for (const [to, env] of [
      [url, {}],
      [ground.sshUrl(0, 'team/calm.git'), ssh],
    ] as const) {
      const pushed = await scene.tryGit(['push', to, 'main'], { cwd: directory, env });
      assert.notEqual(pushed.exitCode, 0);
      assert.match(
        pushed.stderr,
        /not accepted: the coordinator cannot be reached; nothing changed, it is safe to push again/,
      );
    }
    for (const name of ['team/strict', 'team/unread']) {
      const read = await scene.tryGit(['ls-remote', ground.sshUrl(0, `${name}.git`)], { env: ssh });
      assert.notEqual(read.exitCode, 0, name);
      assert.match(read.stderr, /the coordinator cannot be reached/);
    }
    const metrics = await ops('/metrics');
    assert.match(metrics.text, /^quorate_recalled_reads_total\{transport="ssh"\} [1-9]/m);
    assert.match(metrics.text, /^quorate_coordinator_lost_seconds [1-9]/m);
    // Reads are strong here unless a repository says otherwise: others may do better than this front-end.
    assert.equal((await ops('/readyz')).status, 503);

    const told = await status('--json');
    assert.equal(told.exitCode, 1);
    const { coordinator, known } = JSON.parse(told.stdout);
    assert.deepEqual(
      coordinator.members.map(({ answers }: { readonly answers: boolean }) => answers),
      cluster.etcd.members.map((member) => !lost.includes(member)),
    );
    assert.equal(known.nodes.length, cluster.storage.length);
    assert.equal(known.last.storage.repositories, 3);
    const shown = await status();
    assert.equal(shown.exitCode, 1);
    assert.match(shown.stderr, /^quorate: etcd has no majority: 1 of 3 members answer \(not: /);
    assert.match(shown.stdout, /^coordinator: +does not answer for \d+ s: nothing is committed$/m);
    assert.match(shown.stdout, /^storage nodes: +3 of 3 answer$/m);
    assert.match(shown.stdout, /^repositories, then: +3$/m);

    for (const member of lost) member.start();
    await cluster.etcd.ready();
    await waitFor('pushes to be taken again', async () => {
      const pushed = await scene.tryGit(['push', '-q', url, 'main'], { cwd: directory });
      return pushed.exitCode === 0 ? true : undefined;
    });
    const newTip = (await scene.git(['rev-parse', 'main'], { cwd: directory })).trim();
    const fresh = await scene.tryGit(['ls-remote', ground.sshUrl(0, 'team/strict.git')], {
      env: ssh,
    });
    assert.equal(fresh.exitCode, 0, fresh.stderr);
    await waitFor('the push to be seen', async () => {
      return (await tipSeen(ground.sshUrl(0, 'team/calm.git'), ssh)) === newTip ? true : undefined;
    });
    const audit = await ground.admin(0, '--json', 'audit', '--repo', 'team/calm');
    assert.match(audit, /"how":\s*"recalled"/);
    await waitFor('it to be ready', async () => (await ops('/readyz')).status === 200);
  });

  test('members that cannot reach it stop all the same, without being ended', async () => {
    const { cluster } = ground;
    for (const member of cluster.etcd.members) await member.pause();
    try {
      const stopped = [cluster.storageNode(0), ...cluster.frontEnds];
      const ended = await Promise.all(stopped.map((member) => member.stop()));
      assert.deepEqual(ended, [0, 0, 0]);
      for (const { log } of stopped) {
        assert.doesNotMatch(log, /did not close in time/);
        assert.match(log, /"msg":"the lease is left to expire"/);
      }
    } finally {
      for (const member of cluster.etcd.members) member.resume();
    }
  });
});
