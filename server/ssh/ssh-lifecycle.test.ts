import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { FakeGitService, type FakeExchange } from './testing/fake-git-service.js';
import { clock, collect, createSshScene, type SshScene } from './testing/ssh-scene.js';
import { until } from '../../backends/contract/testing/until.js';

let service = new FakeGitService();
let scene: SshScene | undefined;
afterEach(async () => {
  await scene?.close();
  scene = undefined;
});

async function setUp(
  limits: Parameters<typeof createSshScene>[1] = {},
): Promise<{ scene: SshScene; key: string }> {
  service = new FakeGitService();
  scene = await createSshScene(service, limits);
  return { scene, key: scene.addKey('alice', { keygen: ['-t', 'ed25519'] }) };
}

/** A connection that stays open and carries the sessions of others. */
async function startMaster(scene: SshScene, key: string): Promise<readonly string[]> {
  const path = join(scene.directory, 'mux');
  scene.start(key, '-o', 'ControlMaster=yes', '-S', path, '-N', 'git@127.0.0.1');
  await until('the master connection', () => existsSync(path));
  // Without the master there is no way to the server: a refused session must not go around it.
  return ['-S', path, '-o', 'ProxyCommand=false', 'git@127.0.0.1'];
}

const exchangesOf = (path: string): readonly FakeExchange[] =>
  service.exchanges.filter(({ request }) => request.path === path);

function codeOf(exchange: FakeExchange | undefined): string {
  return exchange?.ended instanceof QuorateError ? exchange.ended.code : String(exchange?.ended);
}

test('without authentication everybody is trusted, with a strange key or none', async () => {
  const { scene } = await setUp({ noAuth: true });
  const stranger = scene.addKey('stranger', { keygen: ['-t', 'ed25519'], stranger: true });
  for (const options of [[], ['-o', 'PubkeyAuthentication=no']]) {
    const command = [...options, 'git@127.0.0.1', "git-upload-pack 'facts'"];
    const { stdout } = await scene.ssh(stranger, ...command);
    assert.match(stdout.toString(), /"principal":\{"kind":"trusted"\}/);
  }
});

describe('several sessions on one connection', () => {
  test('run side by side, and one that is interrupted leaves the others alone', async () => {
    // OpenSSH's master passes an interruption on with the next thing that happens on the connection.
    const { scene, key } = await setUp({ keepaliveIntervalMs: 1_000 });
    const mux = await startMaster(scene, key);
    const interrupted = scene.start(key, ...mux, "git-upload-pack 'hang'");
    const slow = scene.start(key, ...mux, "git-receive-pack 'sink'");
    const quick = await Promise.all(
      Array.from({ length: 6 }, () => scene.ssh(key, ...mux, "git-upload-pack 'source/3000000'")),
    );
    for (const { stdout, exitCode } of quick)
      assert.deepEqual([stdout.length, exitCode], [3_000_000, 0]);
    await until('both', () => exchangesOf('hang').length + exchangesOf('sink').length === 2);
    interrupted.kill('SIGTERM');
    await until('the interruption', () => exchangesOf('hang')[0]?.ended !== undefined);
    assert.equal(codeOf(exchangesOf('hang')[0]), 'cancelled');
    slow.stdin.end('12345');
    const { stdout, exitCode } = await collect(slow);
    assert.deepEqual([stdout.toString(), exitCode], ['5\n', 0]);
  });

  test('are limited in number', async () => {
    const { scene, key } = await setUp({ maxChannels: 3 });
    const mux = await startMaster(scene, key);
    for (let index = 0; index < 3; index++) scene.start(key, ...mux, "git-upload-pack 'hang'");
    await until('three sessions', () => exchangesOf('hang').length === 3);
    const { stderr, exitCode } = await scene.ssh(key, ...mux, "git-upload-pack 'facts'");
    assert.equal(exitCode, 255);
    assert.match(stderr, /refused|failed/);
    assert.equal(exchangesOf('facts').length, 0);
  });

  test('a key that was removed meanwhile opens no more of them, nor connections', async () => {
    const { scene, key } = await setUp();
    const mux = await startMaster(scene, key);
    assert.equal((await scene.ssh(key, ...mux, "git-upload-pack 'facts'")).exitCode, 0);
    scene.removeKeys();
    const { stderr, exitCode } = await scene.ssh(key, ...mux, "git-upload-pack 'facts'");
    assert.deepEqual([stderr, exitCode], ['ERROR: this key is no longer accepted\n', 128]);
    const fresh = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'facts'");
    assert.match(fresh.stderr, /Permission denied/);
  });
});

describe('a client that goes', () => {
  test('is noticed at once', async () => {
    const { scene, key } = await setUp();
    const child = scene.start(key, 'git@127.0.0.1', "git-upload-pack 'hang'");
    await until('the exchange', () => exchangesOf('hang').length === 1);
    child.kill('SIGKILL');
    await until('the end', () => exchangesOf('hang')[0]?.ended !== undefined);
    assert.equal(codeOf(exchangesOf('hang')[0]), 'cancelled');
  });

  test('in the middle of an upload leaves no clean end of input', async () => {
    const { scene, key } = await setUp();
    const child = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'sink'");
    child.stdin.write(Buffer.alloc(500_000));
    await until('some bytes', () => (exchangesOf('sink')[0]?.receivedBytes ?? 0) === 500_000);
    child.kill('SIGKILL');
    await until('the end', () => exchangesOf('sink')[0]?.ended !== undefined);
    assert.equal(codeOf(exchangesOf('sink')[0]), 'cancelled');
  });

  test('without a word is noticed by keepalives', async () => {
    // A client that is only slow, on a busy machine, is not to be taken for one that went.
    const { scene, key } = await setUp({ keepaliveIntervalMs: 500 });
    const child = scene.start(key, 'git@127.0.0.1', "git-upload-pack 'hang'");
    await until('the exchange', () => exchangesOf('hang').length === 1);
    child.kill('SIGSTOP');
    await until('the end', () => exchangesOf('hang')[0]?.ended !== undefined);
    assert.equal(codeOf(exchangesOf('hang')[0]), 'cancelled');
  });
});

describe('limits', () => {
  test('a client that sends nothing where something is due is given up', async () => {
    const { scene, key } = await setUp({ idleTimeoutMs: 200 });
    const child = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'sink'");
    const { exitCode } = await collect(child);
    assert.equal(exitCode, 255);
    assert.notEqual(exchangesOf('sink')[0]?.ended, 'ok');
  });

  test('a client whose request waits for others is not given up', async () => {
    let aheadMs = 0;
    const { scene, key } = await setUp({
      idleTimeoutMs: 600_000,
      clock: { ...clock, monotonicMs: () => clock.monotonicMs() + aheadMs },
    });
    const queued = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'queue'");
    await until('it waits', () => exchangesOf('queue').length === 1);
    // Silent for a shorter time, and given up for it.
    const silent = collect(scene.start(key, 'git@127.0.0.1', "git-receive-pack 'sink'"));
    await until('the silent one', () => exchangesOf('sink').length === 1);
    aheadMs = 700_000;
    assert.equal((await silent).exitCode, 255);
    assert.equal(exchangesOf('queue')[0]?.ended, undefined);
    service.release();
    assert.equal((await collect(queued)).exitCode, 0);
  });

  test('an exchange that takes too long is told so', async () => {
    const { scene, key } = await setUp({ requestTimeoutMs: 200 });
    const { stderr, exitCode } = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'hang'");
    assert.deepEqual([stderr, exitCode], ['ERROR: the request took too long\n', 128]);
  });

  test('a stranger that says nothing is closed', async () => {
    const { scene } = await setUp({ loginGraceMs: 200 });
    const socket = connect(scene.port, '127.0.0.1');
    socket.resume();
    await once(socket, 'close');
  });

  test('an idle connection is closed', async () => {
    const { scene, key } = await setUp({ idleTimeoutMs: 200 });
    const child = scene.start(key, '-N', 'git@127.0.0.1');
    await collect(child);
  });

  test('connections of one address', async () => {
    const { scene, key } = await setUp({ maxConnectionsPerAddress: 2 });
    const held = [connect(scene.port, '127.0.0.1'), connect(scene.port, '127.0.0.1')];
    for (const socket of held) await once(socket, 'data');
    const socket = connect(scene.port, '127.0.0.1');
    const [text] = await once(socket, 'data');
    assert.match(String(text), /^Too many connections/);
    await once(socket, 'close');
    for (const socket of held) socket.destroy();
    // The server sees them go a little later.
    await until('the next to be served', async () => {
      const { exitCode } = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'facts'");
      return exitCode === 0;
    });
  });

  test('connections of one user', async () => {
    const { scene, key } = await setUp({ maxConnectionsPerPrincipal: 1 });
    scene.start(key, 'git@127.0.0.1', "git-upload-pack 'hang'");
    await until('the exchange', () => exchangesOf('hang').length === 1);
    const refused = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'facts'");
    assert.deepEqual(
      [refused.stderr, refused.exitCode],
      ['ERROR: alice has too many connections open\n', 128],
    );
    const other = scene.addKey('bob', { keygen: ['-t', 'ed25519'], user: 'bob' });
    assert.equal((await scene.ssh(other, 'git@127.0.0.1', "git-upload-pack 'facts'")).exitCode, 0);
  });

  test('keys that a client may try', async () => {
    const { scene, key } = await setUp({ maxAuthenticationAttempts: 3 });
    const strangers = Array.from({ length: 4 }, (_, index) => {
      return scene.addKey(`stranger-${index}`, { keygen: ['-t', 'ed25519'], stranger: true });
    });
    const [first = '', ...rest] = strangers;
    const more = [...rest, key].flatMap((file) => ['-i', file]);
    const { exitCode, stderr } = await scene.ssh(
      first,
      ...more,
      'git@127.0.0.1',
      "git-upload-pack 'facts'",
    );
    assert.equal(exitCode, 255);
    assert.doesNotMatch(stderr, /Permission denied/);
    // When the connection has ended, which may be after its client.
    await until('the audit line', () => scene.audited.some(({ outcome }) => outcome === 'refused'));
  });
});

describe('draining', () => {
  test('closes what is idle, lets finish what runs, accepts nothing new', async () => {
    const { scene, key } = await setUp();
    const idle = collect(scene.start(key, '-N', 'git@127.0.0.1'));
    const child = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'sink'");
    child.stdin.write('123');
    await until('the exchange', () => exchangesOf('sink')[0]?.receivedBytes === 3);
    await until('the idle login', () => scene.audited.length === 2);
    const drained = scene.listener.drain(60_000);
    await idle;
    const fresh = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'facts'");
    assert.match(fresh.stderr, /Connection refused/);
    child.stdin.end('45');
    const { stdout, exitCode } = await collect(child);
    assert.deepEqual([stdout.toString(), exitCode], ['5\n', 0]);
    await drained;
  });

  test('stops what does not finish, and says why', async () => {
    const { scene, key } = await setUp();
    const child = collect(scene.start(key, 'git@127.0.0.1', "git-upload-pack 'hang'"));
    await until('the exchange', () => exchangesOf('hang').length === 1);
    await scene.listener.drain(10);
    const { stderr, exitCode } = await child;
    assert.deepEqual(
      [stderr, exitCode],
      ['ERROR: the server is shutting down: try again in a moment\n', 128],
    );
    assert.equal(codeOf(exchangesOf('hang')[0]), 'unavailable');
  });

  test('does not wait for an exchange that does not listen', async () => {
    const { scene, key } = await setUp();
    const child = collect(scene.start(key, 'git@127.0.0.1', "git-upload-pack 'stubborn'"));
    await until('the exchange', () => exchangesOf('stubborn').length === 1);
    await scene.listener.drain(10);
    assert.equal((await child).exitCode, 255);
  });

  test('of a listener that never listened ends at once', async () => {
    const { scene } = await setUp();
    await scene.listener.drain(1000);
    await scene.listener.drain(1000);
  });
});
