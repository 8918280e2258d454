import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { repositoriesOnDisk } from './checker/store-on-disk.js';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { TestAuthority } from '../backends/coordination/etcd/testing/certificates.js';
import { EtcdCluster } from './etcd.js';
import { createScene, type Scene, type ServerProcess, waitFor } from './harness.js';
import { pickPort } from '../backends/contract/testing/ports.js';

describe('one server on etcd', () => {
  let cluster: EtcdCluster;
  let scene: Scene;
  let server: ServerProcess;
  before(async () => {
    scene = await createScene();
    cluster = await EtcdCluster.start({ members: 3 });
    server = await scene.startServer({ flags: ['--coordinator', cluster.url, '--alone'] });
  });
  after(async () => {
    try {
      await scene.close();
    } finally {
      await cluster.stop();
    }
  });

  test('pushes, clones and restarts as on the embedded coordinator', async () => {
    const repository = await scene.makeRepository({ commits: 3 });
    const url = server.httpUrl('team/first.git');
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const tip = await scene.commit(repository, 'more.txt', 'more\n');
    const key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    const ssh = { cwd: repository, env: await key.environment(server) };
    await scene.git(['push', '-q', server.sshUrl('team/first.git'), 'main'], ssh);
    await server.restart();
    const clone = scene.path('work', 'clone');
    await scene.git(['clone', '-q', server.httpUrl('team/first.git'), clone]);
    assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), tip);
  });

  test('a server with another store on the same etcd is refused, alone or as a member', async () => {
    const secretFile = scene.path('secret');
    await writeFile(secretFile, 'a secret that is long enough\n');
    const member = ['--cluster-secret-file', secretFile, '--node', '127.0.0.1:0'];
    for (const flags of [[], ['--alone'], member, [...member, '--role=front-end']]) {
      const other = await scene.launchServer({ flags: ['--coordinator', cluster.url, ...flags] });
      await assert.rejects(other.ready(), ({ message }: Error) => {
        assert.match(message, /the repositories of a server that stands alone, in \S+ on \S+:/);
        assert.ok(message.includes(server.dataDirectory), message);
        return true;
      });
    }
    assert.match(await scene.admin(server, 'repo', 'list'), /team\/first/);
    await server.restart();
    const elsewhere = ['--coordinator', cluster.url, '--set=etcd.prefix=elsewhere/'];
    const unasked = await scene.launchServer({ flags: elsewhere });
    await assert.rejects(unasked.ready(), /--cluster-secret-file .* or say so with --alone/);
    await scene.startServer({ flags: [...elsewhere, '--alone'] });
  });

  test('pushes go on after the leader of etcd was killed', async () => {
    const repository = await scene.makeRepository();
    const url = server.httpUrl('team/second.git');
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const killed = await cluster.killLeader();
    const tip = await scene.commit(repository, 'after.txt', 'after\n');
    // On a busy machine an election may take longer than the server waits.
    await waitFor('a push to be taken', async () => {
      return (await scene.tryGit(['push', url, 'main'], { cwd: repository })).exitCode === 0;
    });
    const listed = await scene.git(['ls-remote', url, 'refs/heads/main']);
    assert.ok(listed.startsWith(tip));
    killed.start();
    await cluster.ready();
  });
});

test('an address that is not etcd stops the start, says which it is and what to do', async (t) => {
  const scene = await createScene(t);
  const web = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
  t.after(() => web.close());
  await once(web, 'listening');
  const address = web.address();
  assert.ok(typeof address === 'object' && address !== null);
  const dead = `127.0.0.1:${await pickPort()}`;
  const server = await scene.launchServer({
    flags: [
      '--coordinator',
      `etcd://127.0.0.1:${address.port},${dead},no-such-machine.invalid:2379`,
    ],
  });
  await assert.rejects(server.ready(), ({ message }: Error) => {
    assert.ok(message.includes(`what listens on 127.0.0.1:${address.port} is no etcd`), message);
    assert.ok(message.includes(`nothing listens on ${dead}`), message);
    // Who resolves names may take longer than anybody waits.
    assert.match(message, /no address is known of no-such\S+|no-such\S+:2379 does not answer/);
    assert.ok(message.includes('--coordinator etcd://HOST:PORT'), message);
    return true;
  });
});

test('etcd put back to an old snapshot: nothing is pushed, reads go on, and a recovery loses nothing', async (t) => {
  const scene = await createScene();
  const cluster = await EtcdCluster.start();
  t.after(async () => {
    try {
      await scene.close();
    } finally {
      await cluster.stop();
    }
  });
  const server = await scene.startServer({ flags: ['--coordinator', cluster.url, '--alone'] });
  const repository = await scene.makeRepository();
  const changed = server.httpUrl('team/changed.git');
  const unchanged = server.httpUrl('team/unchanged.git');
  for (const url of [changed, unchanged]) {
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
  }
  const before = (await scene.git(['rev-parse', 'main'], { cwd: repository })).trim();
  const snapshot = scene.path('snapshot.db');
  await cluster.snapshot(snapshot);
  const acknowledged = await scene.commit(repository, 'acknowledged.txt', 'kept\n');
  await scene.git(['push', '-q', changed, 'main'], { cwd: repository });
  // More than is put anew when etcd is back: or its revision is no lower by then than the last one seen.
  for (let n = 0; n < 20; n++) await scene.admin(server, 'user', 'add', `later-${n}`);
  await cluster.restore(snapshot);

  /** Never accepted, and refused in these words once etcd is reached again. */
  const refused = (url: string, words: RegExp): Promise<true> =>
    waitFor(`a refusal: ${words}`, async () => {
      const pushed = await scene.tryGit(['push', url, 'main'], { cwd: repository });
      assert.notEqual(pushed.exitCode, 0);
      return words.test(pushed.stderr) || undefined;
    });
  for (const start of ['running', 'restarted']) {
    if (start === 'restarted') await server.restart();
    // What the store holds beyond the coordinator is neither overwritten nor shown as if it were all.
    await refused(changed, /old copy/);
    await refused(unchanged, /old(er)? copy/);
    const listed = await scene.git(['ls-remote', unchanged, 'refs/heads/main']);
    assert.ok(listed.startsWith(before), 'reads go on');
  }
  await refused(unchanged, /older copy: revision \d+ after \d+.* quorate recover/);
  const ready = await fetch(`${server.opsUrl}/readyz`);
  assert.match(await ready.text(), /older copy/);
  const onDisk = await repositoriesOnDisk(server.dataDirectory, scene.env);
  const tips = onDisk.flatMap(({ refs }) => [...refs.values()]);
  assert.ok(tips.includes(acknowledged), 'the acknowledged push is still on the disk');

  const shown = await scene.admin(server, 'recover');
  assert.match(shown, /team\/changed +behind +1 +2\n/);
  assert.match(shown, /2 repositories compared, 1 with something to tell\nnothing was changed/);
  assert.match(await scene.admin(server, 'recover', '--apply'), /now start this server again/);
  await server.restart();
  await scene.git(['push', '-q', changed, 'main'], { cwd: repository });
  await scene.git(['push', '-q', unchanged, 'main'], { cwd: repository });
  const clone = scene.path('work', 'recovered');
  await scene.git(['clone', '-q', changed, clone]);
  await scene.git(['merge-base', '--is-ancestor', acknowledged, 'HEAD'], { cwd: clone });
  const again = await scene.quorate(server, ['recover', '--apply']);
  assert.notEqual(again.exitCode, 0);
  assert.match(again.stderr, /there is nothing to recover/);
});

test('etcd over TLS, with a user: from the settings', async (t) => {
  const scene = await createScene();
  // Beside the scene, which wants nothing to have its files open when it ends.
  const directory = await mkdtemp(path.join(tmpdir(), 'quorate-certificates-'));
  const authority = await TestAuthority.make(directory);
  const member = await authority.sign('member');
  const client = await authority.sign('client');
  const cluster = await EtcdCluster.start({ tls: { caFile: authority.caFile, ...member } });
  t.after(async () => {
    try {
      await scene.close();
    } finally {
      await cluster.stop();
      await rm(directory, { recursive: true });
    }
  });
  await cluster.enableUsers([{ name: 'quorate', password: 'right', prefix: 'forge/' }]);
  const passwordFile = scene.path('password');
  await writeFile(passwordFile, 'right\n');
  const settings = {
    'etcd.prefix': 'forge/',
    'etcd.ca': authority.caFile,
    'etcd.cert': client.certFile,
    'etcd.key': client.keyFile,
    'etcd.user': 'quorate',
    'etcd.passwordFile': passwordFile,
  };
  const coordinator = ['--coordinator', cluster.url, '--alone'];
  const server = await scene.startServer({ flags: [...coordinator, ...set(settings)] });
  const repository = await scene.makeRepository();
  const url = server.httpUrl('team/app.git');
  await scene.git(['push', '-q', url, 'main'], { cwd: repository });
  assert.match(await scene.git(['ls-remote', url]), /refs\/heads\/main/);

  await writeFile(passwordFile, 'wrong\n');
  const refused = await scene.launchServer({ flags: [...coordinator, ...set(settings)] });
  await assert.rejects(refused.ready(), /invalid user ID or password.*etcd\.user/);
  const missing = { ...settings, 'etcd.ca': scene.path('nowhere.pem') };
  const unread = await scene.launchServer({ flags: [...coordinator, ...set(missing)] });
  await assert.rejects(unread.ready(), /etcd\.ca: the file .*nowhere\.pem cannot be read/);
});

function set(settings: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(settings).map(([key, value]) => `--set=${key}=${value}`);
}
