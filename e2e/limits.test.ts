import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { commandSection, errorIn, HostileGround } from './hostile-ground.js';
import { createScene, type Finished, type Scene, type ServerProcess, waitFor } from './harness.js';

/** A pack of no object. */
const emptyPack = Buffer.from(
  '5041434b0000000200000000029d08823bd8a8eab510ad6ac75c823cfd3ed31e',
  'hex',
);

async function groundWith(t: TestContext, ...settings: readonly string[]): Promise<HostileGround> {
  const ground = await HostileGround.create({ flags: settings.flatMap((each) => ['--set', each]) });
  t.after(() => ground.close());
  return ground;
}

/** Every limit that a repository has: what goes over it is refused in words that name the setting. */
describe('limits of a repository', () => {
  let ground: HostileGround;
  before(async () => {
    // What these pushes leave is compared file by file.
    ground = await HostileGround.create({ flags: ['--set', 'maintenance.enabled=false'] });
  });
  after(() => ground.close());

  const table = [
    { setting: 'receive.maxInputSize=100k', says: /receive\.maxInputSize/ },
    { setting: 'receive.maxObjectSize=100k', says: /receive\.maxObjectSize/ },
    { setting: 'receive.maxRefs=1', says: /receive\.maxRefs/ },
    { setting: 'receive.maxCommands=1', says: /receive\.maxCommands/ },
  ] as const;
  for (const { setting, says } of table) {
    for (const transport of ['HTTP', 'SSH'] as const) {
      test(`${setting} over ${transport}`, async () => {
        const { scene, server, source } = ground;
        await scene.admin(server, 'repo', 'set', 'victim', setting);
        await scene.git(['checkout', '-q', '-B', 'second', 'main'], { cwd: source });
        // More than any limit of size, and two commands.
        await scene.commit(source, 'noise', randomBytes(150_000).toString('base64'));
        const [url, env] =
          transport === 'HTTP'
            ? [server.httpUrl('victim.git'), {}]
            : [server.sshUrl('victim.git'), await sshEnvironment(ground)];
        const refused = await scene.tryGit(['push', url, 'second', 'second:refs/heads/third'], {
          cwd: source,
          env,
        });
        assert.notEqual(refused.exitCode, 0);
        assert.match(refused.stderr, says);
        await ground.assertUnharmed();
        // With the limit gone the same push is fine.
        const [key = ''] = setting.split('=');
        await scene.admin(server, 'repo', 'set', 'victim', `${key}=1000000000`);
        await scene.git(['push', '-q', url, 'second', 'second:refs/heads/third'], {
          cwd: source,
          env,
        });
        await scene.git(['push', '-q', url, ':second', ':third'], { cwd: source, env });
        await ground.settle();
      });
    }
  }

  test('5,000 refs in one push are made', async () => {
    const { scene, server, source, tip } = ground;
    const url = server.httpUrl('many.git');
    await scene.git(['update-ref', '--stdin'], {
      cwd: source,
      stdin: Array.from({ length: 5_000 }, (_, n) => `create refs/heads/many/${n} ${tip}\n`).join(
        '',
      ),
    });
    // Each of them is synced to the disk.
    const options = { cwd: source, timeoutMs: 300_000 };
    await scene.git(['push', '-q', url, 'refs/heads/many/*:refs/heads/many/*'], options);
    const listed = await scene.git(['ls-remote', url, 'refs/heads/many/*']);
    assert.equal(listed.trim().split('\n').length, 5_000);
    await ground.settle();
  });

  test('60,000 refs in one push are refused, and none is made', async () => {
    const { scene, server } = ground;
    // The default is 50,000.
    await scene.admin(server, 'repo', 'create', 'defaults');
    const commands = Array.from({ length: 60_000 }, (_, n) => ({
      ref: `refs/heads/many/${n}`,
      newOid: ground.tip,
    }));
    const body = Buffer.concat([Buffer.from(commandSection(commands)), emptyPack]);
    const overHttp = await ground.post('git-receive-pack', body, { repository: '/defaults.git' });
    assert.match((await errorIn(overHttp.body)) ?? '', /more than 50000 ref updates/);
    const overSsh = await ground.ssh("git-receive-pack '/defaults.git'", body, { keepOpen: true });
    assert.match((await errorIn(overSsh.stdout)) ?? '', /more than 50000 ref updates/);
    assert.equal(overSsh.exitCode, 128);
    assert.equal(await scene.git(['ls-remote', server.httpUrl('defaults')]), '');
    await ground.settle();
  });
});

async function sshEnvironment({
  scene,
  server,
}: HostileGround): Promise<Readonly<Record<string, string>>> {
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  return key.environment(server);
}

/** A client by hand: what it wrote stays unfinished until the test says so. */
class SlowClient {
  readonly socket: Socket;
  received = '';
  closed = false;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.socket = connect(Number(port), hostname);
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1');
    });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => {
      this.closed = true;
    });
  }

  /** Writes one byte after the other until the server has had enough. */
  async dripUntilAnswered(): Promise<void> {
    const timer = setInterval(() => this.socket.write('a'), 50);
    try {
      await waitFor('an answer', () => this.received.includes('\r\n\r\n') || this.closed);
    } finally {
      clearInterval(timer);
      this.socket.destroy();
    }
  }
}

const opening = (ground: HostileGround, length: number): string =>
  'POST /victim.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n' +
  `Authorization: ${ground.authorization}\r\n` +
  `Content-Type: application/x-git-receive-pack-request\r\nContent-Length: ${length}\r\n\r\n`;

/** Slow clients are sent away, and meanwhile others are served, also by a machine that is slow itself. */
describe('limits of time', () => {
  test('limits.handshakeTime: headers that drip, a connection that is silent, an SSH login that never comes', async (t) => {
    const ground = await groundWith(t, 'limits.handshakeTime=5s');
    const { server } = ground;
    const headers = new SlowClient(server.url);
    headers.socket.write('GET /victim.git HTTP/1.1\r\nX: ');
    const silent = new SlowClient(server.url);
    const login = new SlowClient(`http://${server.sshHost}:${server.sshPort}`);
    const banner = new SlowClient(`http://${server.sshHost}:${server.sshPort}`);
    banner.socket.write('SSH-2.0-slow\r\n');
    await ground.assertServes();
    await headers.dripUntilAnswered();
    assert.match(headers.received, /^HTTP\/1\.1 408 /);
    for (const client of [silent, login, banner]) {
      await waitFor('the server to close', () => client.closed);
    }
    await ground.assertUnharmed();
  });

  test('limits.idleTime: a push that stops in the middle', async (t) => {
    const ground = await groundWith(t, 'limits.idleTime=2s');
    const commands = commandSection([{ ref: 'refs/heads/slow', newOid: ground.tip }]);
    for (const part of ['00', commands, `${commands}PACK\0\0\0\x02`]) {
      const client = new SlowClient(ground.server.url);
      client.socket.write(Buffer.from(opening(ground, 10_000) + part, 'latin1'));
      await waitFor('an answer', () => client.received.includes('\r\n\r\n') || client.closed);
      assert.match(client.received, /^HTTP\/1\.1 408 /);
      await ground.assertUnharmed();
      client.socket.destroy();
    }
    const overSsh = await ground.ssh(
      "git-receive-pack '/victim.git'",
      Buffer.from(`${commands}PACK`),
      {
        keepOpen: true,
      },
    );
    assert.notEqual(overSsh.exitCode, 0);
    await ground.assertUnharmed();
  });

  test('limits.requestTime: a push that drips, and is never silent', async (t) => {
    const ground = await groundWith(t);
    // While it is attacked, and not longer: what is to be served may take its time on a busy machine.
    await ground.server.stop();
    await ground.server.relaunch(['env', 'QUORATE_LIMITS_REQUEST_TIME=5s']).ready();
    const client = new SlowClient(ground.server.url);
    client.socket.write(
      opening(ground, 100_000) + commandSection([{ ref: 'refs/heads/x', newOid: ground.tip }]),
    );
    await client.dripUntilAnswered();
    assert.match(client.received, /^HTTP\/1\.1 503 /);
    const overSsh = await ground.ssh("git-upload-pack '/victim.git'", Buffer.from('0'), {
      keepOpen: true,
    });
    assert.equal(overSsh.exitCode, 128);
    assert.match((await errorIn(overSsh.stdout)) ?? '', /too long/);
    await ground.server.restart();
    await ground.assertUnharmed();
  });
});

describe('limits of numbers', () => {
  test('limits.fetchBody', async (t) => {
    const ground = await groundWith(t, 'limits.fetchBody=10k');
    const body = Buffer.from(`0032want ${'1'.repeat(40)}\n`.repeat(1_000));
    const plain = await ground.post('git-upload-pack', body);
    assert.equal(plain.status, 413);
    const chunked = await ground.post('git-upload-pack', body, {
      headers: { 'transfer-encoding': 'chunked' },
    });
    assert.match(`${chunked.status} ${chunked.body.toString()}`, /^413 |too long/);
    await ground.assertUnharmed();
  });

  test('limits.pushBody', async (t) => {
    const ground = await groundWith(t, 'limits.pushBody=10k');
    const answer = await ground.post('git-receive-pack', Buffer.alloc(20_000, '0'));
    assert.equal(answer.status, 413);
    assert.match(answer.body.toString(), /10240 bytes/);
    await ground.assertUnharmed();
  });

  test('limits.connectionsPerAddress, over HTTP and over SSH', async (t) => {
    const ground = await groundWith(t, 'limits.connectionsPerAddress=4');
    const { server } = ground;
    for (const [url, says, served] of [
      [server.url, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 404 /],
      [`http://${server.sshHost}:${server.sshPort}`, '', /^SSH-2\.0-/],
    ] as const) {
      // Connections of before may still count when the first five come.
      await waitFor('one of five to be sent away', async () => {
        const clients = Array.from({ length: 5 }, () => new SlowClient(url));
        for (const { socket } of clients) socket.write(says);
        await waitFor('each to be answered', () =>
          clients.every(({ closed, received }) => closed || served.test(received)),
        );
        const refused = clients.filter(({ received }) => !served.test(received));
        for (const { received } of refused) {
          assert.match(received, /^HTTP\/1\.1 429 |[Tt]oo many|^$/);
        }
        for (const { socket } of clients) socket.destroy();
        return refused.length === 1;
      });
    }
    await waitFor(
      'a place',
      async () => (await fetch(`${server.url}/`).catch(() => undefined))?.status === 404,
    );
    await ground.assertUnharmed();
  });

  test('limits.requestsPerPrincipal, and limits.queueTime', async (t) => {
    const ground = await groundWith(t, 'limits.requestsPerPrincipal=2', 'limits.queueTime=2s');
    const { scene, server } = ground;
    const running = Array.from({ length: 2 }, () => new SlowClient(server.url));
    for (const { socket } of running) socket.write(opening(ground, 100));
    const refused = await waitFor('a refusal', async () => {
      const answer = await ground.get('/victim.git/info/refs?service=git-upload-pack');
      return answer.status === 429 ? answer : undefined;
    });
    assert.match(refused.body.toString(), /waited too long/);
    assert.equal(refused.headers['retry-after'], '30');
    // Somebody else is served meanwhile.
    await scene.admin(server, 'user', 'add', 'ann');
    await scene.admin(server, 'repo', 'grant', 'victim', 'ann', 'read');
    const token = (await scene.admin(server, 'token', 'create', 'ann')).trim();
    await scene.git(['ls-remote', server.httpUrl('victim.git', { user: 'ann', token })]);
    for (const { socket } of running) socket.destroy();
    await waitFor('a place', async () => {
      const answer = await ground.get('/victim.git/info/refs?service=git-upload-pack');
      return answer.status === 200;
    });
    await ground.assertUnharmed();
  });

  test('limits.ratePerPrincipal, limits.ratePerAddress, limits.ratePerRepository', async (t) => {
    for (const limit of ['Principal', 'Address', 'Repository']) {
      const scene = await createScene();
      try {
        const flags = ['--set', `limits.ratePer${limit}=6`];
        const server = await scene.startServer({ flags });
        const key = await scene.sshKey();
        await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
        await scene.admin(server, 'repo', 'create', 'a');
        const env = await key.environment(server);
        for (const [url, said] of [
          [server.httpUrl('a'), /429/],
          [server.sshUrl('a'), /ERROR: .*too many requests.*: try again/],
        ] as const) {
          const refused = await waitFor('a refusal', () =>
            firstRefused(() => scene.tryGit(['ls-remote', url], { env })),
          );
          assert.match(refused.stderr, said);
          assert.equal(refused.exitCode, 128);
        }
        // What was refused may be let in again soon: a place comes every ten seconds.
        const answer = await waitFor('a refusal', async () => {
          const asked = await fetch(`${server.url}/a/info/refs?service=git-upload-pack`, {
            headers: { authorization: `Bearer ${server.adminToken}` },
          });
          if (asked.status === 429) return asked;
          await asked.text();
          return undefined;
        });
        assert.match(await answer.text(), /too many requests/);
        assert.match(answer.headers.get('retry-after') ?? '', /^([1-9]|10)$/);
        const metrics = await (await fetch(`${server.opsUrl}/metrics`)).text();
        for (const transport of ['http', 'ssh']) {
          assert.match(
            metrics,
            new RegExp(
              `quorate_limit_refusals_total\\{transport="${transport}",limit="rate-${limit.toLowerCase()}"\\} [1-9]`,
            ),
          );
        }
        const audit = await scene.admin(server, 'audit');
        assert.match(audit, /too many requests/);
        // The admin API went on meanwhile: it has a rate of its own, but none for a repository.
        if (limit !== 'Repository') await adminRate(scene, server, limit.toLowerCase());
      } finally {
        await scene.close();
      }
    }
    t.diagnostic('each over HTTP and over SSH');
  });

  test('limits.failedSignIns', async (t) => {
    const scene = await createScene(t);
    const server = await scene.startServer({ flags: ['--set', 'limits.failedSignIns=3'] });
    const url = `${server.url}/victim.git/info/refs?service=git-upload-pack`;
    const authorization = `Basic ${Buffer.from('admin:wrong').toString('base64')}`;
    const statuses: number[] = [];
    for (let n = 0; n < 5; n += 1) {
      statuses.push((await fetch(url, { headers: { authorization } })).status);
    }
    assert.deepEqual(statuses, [401, 401, 401, 429, 429]);
    const said = await scene.tryGit(['ls-remote', server.httpUrl('victim.git')]);
    assert.match(said.stderr, /429/);
  });
});

/** Runs some at once: one after the other they may be slower than the rate, on a busy machine. */
async function firstRefused(run: () => Promise<Finished>): Promise<Finished | undefined> {
  const ended = await Promise.all(Array.from({ length: 8 }, run));
  return ended.find(({ exitCode }) => exitCode !== 0);
}

/** Uses up the rate of the admin API, and looks at what is told of it, and where. */
async function adminRate(scene: Scene, server: ServerProcess, of: string): Promise<void> {
  const refused = await waitFor('a refusal of the admin API', () =>
    firstRefused(() => scene.quorate(server, ['user', 'list'])),
  );
  assert.match(refused.stderr, /sent too many requests: .*; try again in ([1-9]|10) s/);
  const answer = await waitFor('another refusal', async () => {
    const asked = await fetch(`${server.url}/api/v1/users`, {
      method: 'POST',
      headers: { authorization: `Bearer ${server.adminToken}` },
    });
    if (asked.status === 429) return asked;
    await asked.text();
    return undefined;
  });
  assert.match(answer.headers.get('retry-after') ?? '', /^([1-9]|10)$/);
  const problem: unknown = await answer.json();
  assert.match(JSON.stringify(problem), /"code":"resource-exhausted"/);
  const metrics = await (await fetch(`${server.opsUrl}/metrics`)).text();
  const counted = `quorate_limit_refusals_total\\{transport="admin",limit="rate-${of}"\\} [1-9]`;
  assert.match(metrics, new RegExp(counted));
  await waitFor('the audit log', async () => {
    const trail = await readFile(path.join(server.dataDirectory, 'audit.jsonl'), 'utf8');
    return trail
      .split('\n')
      .some((line) => /"event":"limit"/.test(line) && /"transport":"admin"/.test(line));
  });
}
