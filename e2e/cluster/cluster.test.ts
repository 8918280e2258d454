import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene, repositoriesOf } from './cluster-scene.js';
import { MemberProcess } from './member-process.js';
import { pickPort } from '../../backends/contract/testing/ports.js';

const header = (value: string): string[] => ['-c', `http.extraHeader=Quorate-At-Least: ${value}`];

describe('a cluster: three storage nodes, two front-ends, three members of etcd', () => {
  let ground: ClusterScene;
  before(async () => {
    ground = await createClusterScene();
  });
  after(() => ground.close());

  /** A repository with a commit, pushed through the first front-end. */
  async function pushed(
    name: string,
  ): Promise<{ readonly directory: string; readonly id: string }> {
    const { scene, cluster } = ground;
    const stored = async () => (await Promise.all(cluster.storage.map(repositoriesOf))).flat();
    const before = new Set(await stored());
    const directory = await scene.makeRepository({ commits: 2 });
    await scene.git(['push', '-q', ground.httpUrl(0, name), 'main'], { cwd: directory });
    const [id = ''] = (await stored()).filter((one) => !before.has(one));
    assert.notEqual(id, '');
    return { directory, id };
  }

  async function push(directory: string, url: string, env = {}): Promise<string> {
    const { scene } = ground;
    const tip = await scene.commit(directory, 'change.txt', `${Math.random()}\n`);
    await scene.git(['push', '-q', url, 'main'], { cwd: directory, env });
    return tip;
  }

  async function tipSeen(url: string, env = {}): Promise<string> {
    const listed = await ground.scene.git(['ls-remote', url, 'refs/heads/main'], { env });
    return listed.split('\t')[0] ?? '';
  }

  test('what is pushed through one front-end is there at the other, and on every storage node', async () => {
    const { scene } = ground;
    const { directory, id } = await pushed('team/shared.git');
    const key = await scene.sshKey();
    await ground.admin(1, 'key', 'add', 'admin', key.publicKeyFile);
    const ssh = await key.environment(ground.sshServer(1));
    const first = await push(directory, ground.sshUrl(1, 'team/shared.git'), ssh);
    assert.equal(await tipSeen(ground.httpUrl(0, 'team/shared.git')), first);
    const second = await push(directory, ground.httpUrl(0, 'team/shared.git'));
    assert.equal(await tipSeen(ground.sshUrl(1, 'team/shared.git'), ssh), second);
    const { generation } = await ground.converged(id, 3);
    assert.equal(generation, 3);
    const clone = scene.path('work', 'clone');
    await scene.git(['clone', '-q', ground.sshUrl(1, 'team/shared.git'), clone], { env: ssh });
    assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), second);
    const archive = ['archive', `--remote=${ground.sshUrl(1, 'team/shared.git')}`, 'main'];
    assert.ok((await scene.git(archive, { env: ssh })).includes('change.txt'));
  });

  test('a read token: a fetch sees at least the push that a webhook or a header told of', async () => {
    const { scene } = ground;
    const { directory } = await pushed('team/token.git');
    const url = ground.httpUrl(0, 'team/token.git');
    await ground.admin(0, 'repo', 'set', 'team/token', 'replication.readConsistency=eventual');
    const tip = await push(directory, url);
    const listed = await scene.git([...header('2'), 'ls-remote', url, 'refs/heads/main']);
    assert.equal(listed.split('\t')[0], tip);
    await assert.rejects(scene.git([...header('99'), 'ls-remote', url]));
    await assert.rejects(scene.git([...header('soon'), 'ls-remote', url]), /400/);
    const { username, password, origin, pathname } = new URL(url);
    const answer = await fetch(`${origin}${pathname}/info/refs?service=git-upload-pack`, {
      headers: { authorization: `Basic ${btoa(`${username}:${password}`)}` },
    });
    assert.equal(answer.headers.get('quorate-generation'), '2');
    await answer.text();
  });

  test('nodes are listed and drained, copies shown and moved, pushes explained', async () => {
    const { directory, id } = await pushed('team/moved.git');
    await push(directory, ground.httpUrl(1, 'team/moved.git'));
    await ground.allSeen();
    await ground.converged(id, 3);
    const nodes = JSON.parse(await ground.admin(0, '--json', 'node', 'list'));
    assert.deepEqual(
      nodes.map(({ nodeId }: { nodeId: string }) => nodeId),
      [1, 2, 3].map((number) => `storage-${number}`),
    );
    await waitFor('three copies', async () => {
      const shown = await ground.admin(1, '--json', 'repo', 'replicas', 'team/moved');
      return JSON.parse(shown).length === 3;
    });
    await assert.rejects(ground.admin(0, 'repo', 'move', 'team/moved', '--to', 'storage-1'), /3/);
    await assert.rejects(ground.admin(0, 'node', 'drain', 'storage-9'), /storage-9/);
    await ground.admin(0, 'repo', 'move', 'team/moved', '--to', 'storage-3,storage-2,storage-1');
    const verified = JSON.parse(await ground.admin(0, '--json', 'repo', 'verify', 'team/moved'));
    assert.deepEqual(
      verified.map(({ problems }: { problems: unknown }) => problems),
      [[], [], []],
    );
    const audit = await ground.admin(1, '--json', 'audit', '--repo', 'team/moved');
    const pushId = /"pushId":\s*"([0-9a-f]+)"/.exec(audit)?.[1] ?? '';
    // Written a little later, for the other front-end to see.
    const told = 'received uploaded prepared judged committed applied post-receive'.split(' ');
    let steps: string[] = [];
    await waitFor('the whole story', async () => {
      const text = await ground.admin(0, '--json', 'explain', 'push', pushId).catch(() => '');
      if (text === '') return false;
      const story = JSON.parse(text);
      assert.equal(story.repository, 'team/moved');
      steps = story.steps.map(({ step }: { step: string }) => step);
      // A push that is alone takes no locks.
      const isLocking = steps.includes('locked') || steps.includes('not locked');
      return isLocking && told.every((step) => steps.includes(step));
    }).catch((error: unknown) => {
      throw new Error(`told: ${steps.join(' ')}`, { cause: error });
    });
    await assert.rejects(ground.admin(0, 'explain', 'push', 'nobody'), /remembered for a day/);
  });

  test('all front-ends have the same SSH host keys', async () => {
    const { scene } = ground;
    const keys = await Promise.all(
      [0, 1].map(async (frontEnd) => {
        const found = await scene.hostKeys(ground.sshServer(frontEnd));
        return found
          .split('\n')
          .flatMap((line) => (/^[^#]/.test(line) ? [line.split(' ').slice(1).join(' ')] : []))
          .sort();
      }),
    );
    assert.equal(keys[0]?.length, 3);
    assert.deepEqual(keys[0], keys[1]);
  });

  test('a storage node that is killed holds up no push, and has all of them when it is back', async () => {
    const { directory, id } = await pushed('team/killed.git');
    await ground.converged(id, 3);
    const node = ground.cluster.storageNode(2);
    await node.kill();
    const tips: string[] = [];
    for (const frontEnd of [0, 1, 0]) {
      tips.push(await push(directory, ground.httpUrl(frontEnd, 'team/killed.git')));
    }
    assert.equal(await tipSeen(ground.httpUrl(1, 'team/killed.git')), tips.at(-1));
    await assert.rejects(
      ground.admin(0, 'repo', 'verify', '--all'),
      /quorate: \d+ of \d+ copies could not be verified: PROBLEMS says why\n/,
    );
    await node.start().ready();
    const { generation } = await ground.converged(id, 3);
    assert.equal(generation, 4);
    await ground.allSeen();
    assert.match(
      await ground.admin(1, 'repo', 'verify', '--all'),
      /^team\/killed +storage-3 +\d+ +none$/m,
    );
  });

  test('a fork is on every node of its source, and outlives it', async () => {
    const { scene } = ground;
    const { directory, id } = await pushed('team/source.git');
    await ground.converged(id, 3);
    const first = ground.cluster.storageNode(0);
    const before = new Set(await repositoriesOf(first));
    await ground.admin(1, 'repo', 'fork', 'team/source', 'ann/fork');
    const forkId = await waitFor('its files', async () =>
      (await repositoriesOf(first)).find((one) => !before.has(one)),
    );
    assert.match(await ground.admin(0, 'repo', 'show', 'ann/fork'), /^shared: .* 2 repositories$/m);
    const tip = await push(directory, ground.httpUrl(0, 'ann/fork.git'));
    const { generation } = await ground.converged(forkId, 3);
    assert.equal(generation, 2);
    await ground.admin(0, 'repo', 'delete', 'team/source', '--yes');
    for (const [frontEnd, name] of ['fork-0', 'fork-1'].entries()) {
      const clone = scene.path('work', name);
      await scene.git(['clone', '-q', ground.httpUrl(frontEnd, 'ann/fork.git'), clone]);
      assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), tip);
      await scene.git(['fsck', '--strict'], { cwd: clone });
    }
    const shown = (): Promise<string> => ground.admin(1, 'repo', 'show', 'ann/fork');
    await waitFor('the pool to go', async () => !(await shown()).includes('shared:'));
    await ground.admin(1, 'repo', 'verify', 'ann/fork');
  });

  test('a storage node that does not answer any more is noticed', async () => {
    const { scene } = ground;
    const { directory, id } = await pushed('team/paused.git');
    await ground.converged(id, 3);
    const node = ground.cluster.storageNode(1);
    await node.pause();
    try {
      // Away once its record has gone as well.
      const listed = await waitFor('it to be called silent', async () => {
        const all = await ground.admin(0, 'node', 'list');
        return /^storage-2 +(silent|away) /m.test(all) ? all : undefined;
      });
      assert.match(listed, /^storage-1 +alive /m);
      assert.match(await ground.admin(0, 'status'), /2 of 3 alive; (silent|away): storage-2/);
      const tip = await push(directory, ground.httpUrl(0, 'team/paused.git'));
      assert.equal(await tipSeen(ground.httpUrl(1, 'team/paused.git')), tip);
      const clone = scene.path('work', 'paused');
      await scene.git(['clone', '-q', ground.httpUrl(1, 'team/paused.git'), clone]);
      const again = await push(directory, ground.httpUrl(1, 'team/paused.git'));
      assert.equal(await tipSeen(ground.httpUrl(0, 'team/paused.git')), again);
    } finally {
      node.resume();
    }
    assert.equal((await ground.converged(id, 3)).generation, 3);
    await ground.allSeen();
  });

  test('refs that a front-end knows are told while no storage node answers', async () => {
    const { scene } = ground;
    const { directory } = await pushed('team/known.git');
    const key = await scene.sshKey();
    await ground.admin(0, 'key', 'add', 'admin', key.publicKeyFile);
    const ssh = await key.environment(ground.sshServer(0));
    const tip = await push(directory, ground.httpUrl(0, 'team/known.git'));
    assert.equal(await tipSeen(ground.httpUrl(0, 'team/known.git')), tip);
    for (const node of ground.cluster.storage) await node.pause();
    try {
      assert.equal(await tipSeen(ground.httpUrl(0, 'team/known.git')), tip);
      assert.equal(await tipSeen(ground.sshUrl(0, 'team/known.git'), ssh), tip);
      // What needs a node says why it fails.
      for (const [url, env] of [
        [ground.httpUrl(0, 'team/known.git'), {}],
        [ground.sshUrl(0, 'team/known.git'), ssh],
      ] as const) {
        const cloned = await scene.tryGit(['clone', '-q', url, scene.path('work', 'none')], {
          env,
        });
        assert.match(cloned.stderr, /storage node/, cloned.stderr);
      }
    } finally {
      for (const node of ground.cluster.storage) node.resume();
    }
    await ground.allSeen();
    const again = await push(directory, ground.httpUrl(1, 'team/known.git'));
    assert.equal(await tipSeen(ground.httpUrl(0, 'team/known.git')), again);
  });

  test('a front-end that is killed holds up nobody for long, and serves again', async () => {
    const { cluster } = ground;
    await ground.allSeen();
    const { directory } = await pushed('team/front.git');
    await cluster.frontEnd(0).kill();
    const tip = await push(directory, ground.httpUrl(1, 'team/front.git'));
    await cluster.frontEnd(0).start().ready();
    await ground.allSeen();
    assert.equal(await tipSeen(ground.httpUrl(0, 'team/front.git')), tip);
  });

  test('a storage node drains on SIGTERM, and pushes go on', async () => {
    const { cluster } = ground;
    const { directory, id } = await pushed('team/drained.git');
    const stopping = cluster.storageNode(0).stop();
    const tip = await push(directory, ground.httpUrl(0, 'team/drained.git'));
    assert.equal(await stopping, 0);
    assert.equal(await tipSeen(ground.httpUrl(1, 'team/drained.git')), tip);
    await cluster.storageNode(0).start().ready();
    await ground.converged(id, 3);
    await ground.allSeen();
  });

  test('metrics and health of every member', async () => {
    const { cluster } = ground;
    for (const member of [...cluster.storage, ...cluster.frontEnds]) {
      let said = '';
      await waitFor(`${member.name} to be ready`, async () => {
        const ready = await fetch(`${member.fact('opsUrl')}/readyz`);
        said = await ready.text();
        return ready.status === 200;
      }).catch(() => assert.fail(said));
      const metrics = await (await fetch(`${member.fact('opsUrl')}/metrics`)).text();
      assert.ok(metrics.includes('quorate_'), member.name);
    }
  });

  /** Starts a member that is to fail; returns what it said. */
  async function refusal(
    name: string,
    flags: readonly string[],
    dataDirectory = ground.scene.path(name),
  ): Promise<string> {
    await mkdir(dataDirectory, { recursive: true });
    const member = new MemberProcess({
      name,
      dataDirectory,
      readyFile: 'node.json',
      env: ground.scene.env,
      detached: false,
      flags: [
        '--role=storage',
        `--node=127.0.0.1:${await pickPort()}`,
        `--ops=127.0.0.1:${await pickPort()}`,
        ...flags,
      ],
    });
    await assert.rejects(member.start().ready());
    return member.log;
  }
  const coordinator = (): string => `--coordinator=${ground.cluster.etcd.url}`;
  const secret = (): string =>
    `--cluster-secret-file=${ground.scene.path('cluster', 'cluster-secret')}`;

  describe('what does not belong is refused, and says what to do', { concurrency: true }, () => {
    test('a member without credentials', async () => {
      const said = await refusal('open', [coordinator()]);
      assert.match(said, /must know each other.*--cluster-secret-file/);
    });

    test('a server that would stand alone on the coordinator of a cluster', async () => {
      const doors = [`--http=127.0.0.1:${await pickPort()}`, `--ssh=127.0.0.1:${await pickPort()}`];
      const said = await refusal('apart', [coordinator(), '--role=all', ...doors]);
      assert.match(said, /a cluster's, with the storage node storage-\d at \S+ .*--cluster-secret/);
    });

    test('a storage node on a coordinator of its own', async () => {
      const said = await refusal('alone', [secret()]);
      assert.match(said, /needs a coordinator that (all|its) members share/);
    });

    test('a storage node with another secret', async () => {
      const file = ground.scene.path('another-secret');
      await writeFile(file, 'f'.repeat(64));
      const said = await refusal('stranger', [coordinator(), `--cluster-secret-file=${file}`]);
      assert.match(
        said,
        /storage node storage-\d at \S+ has another cluster secret: .*--cluster-sec/,
      );
    });

    test('a node id that another store has', async () => {
      const said = await refusal('twin', [coordinator(), secret(), '--node-id=storage-1']);
      assert.match(said, /storage-1 is taken by the node at 127\.0\.0\.1:\d+.*--node-id/);
    });

    test('a node id that another front-end has', async () => {
      const doors = [`--http=127.0.0.1:${await pickPort()}`, `--ssh=127.0.0.1:${await pickPort()}`];
      const flags = [coordinator(), secret(), '--role=front-end', '--node-id=front-end-1'];
      const said = await refusal('namesake', [...flags, ...doors]);
      assert.match(
        said,
        /front-end-1 is taken by the front-end with .*front-end-1 on \S+: .*--node-id/,
      );
    });

    test("another cluster's disk", async () => {
      const said = await refusal(
        'foreign',
        [coordinator(), secret(), '--set=etcd.prefix=other/'],
        ground.cluster.storageNode(2).dataDirectory,
      );
      assert.match(said, /in use by another quorate server/);
      const node = ground.cluster.storageNode(2);
      await node.stop();
      const other = await refusal(
        'foreign',
        [coordinator(), secret(), '--set=etcd.prefix=other/'],
        node.dataDirectory,
      );
      assert.match(other, /belongs to the cluster [0-9a-f]{32}/);
      await node.start().ready();
    });
  });
});
