/** HTTP and SSH have pools of their own: whoever holds every place of one does not keep the other from working. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { pktText } from '../server/wire/pkt-line.js';
import { createScene, waitFor, type Scene, type ServerProcess, type SshKey } from './harness.js';
import { commandSection } from './hostile-ground.js';

type Transport = 'http' | 'ssh';

const MIB = 1024 ** 2;
/** More than the kernel's buffers of a connection take in, so that a client that does not read stops its git. */
const bigBytes = 32 * MIB;

interface User {
  readonly name: string;
  readonly token: string;
  readonly key: SshKey;
}

/** A client that stopped in the middle. */
interface Stopped {
  end(): void;
}

class Ground {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly source: string;
  readonly tip: string;
  readonly users: readonly [User, User];
  readonly #stopped: Stopped[] = [];

  private constructor(
    scene: Scene,
    parts: { server: ServerProcess; source: string; tip: string; users: readonly [User, User] },
  ) {
    this.scene = scene;
    this.server = parts.server;
    this.source = parts.source;
    this.tip = parts.tip;
    this.users = parts.users;
  }

  static async create(t: TestContext, ...settings: readonly string[]): Promise<Ground> {
    const scene = await createScene(t);
    // Who stopped keeps its place, however long the others take.
    const kept = ['limits.idleTime=30m', 'maintenance.enabled=false'];
    const flags = ['limits.gitProcesses=2', ...kept, ...settings];
    const server = await scene.startServer({ flags: flags.flatMap((each) => ['--set', each]) });
    const files = { big: randomFillSync(Buffer.alloc(bigBytes)) };
    const source = await scene.makeRepository({ commits: 2, files });
    const tip = (await scene.git(['rev-parse', 'main'], { cwd: source })).trim();
    await scene.git(['push', '-q', server.httpUrl('big'), 'main'], { cwd: source });
    const makeUser = async (name: string): Promise<User> => {
      await scene.admin(server, 'user', 'add', name);
      await scene.admin(server, 'repo', 'grant', 'big', name, 'write');
      const token = (await scene.admin(server, 'token', 'create', name)).trim();
      const key = await scene.sshKey();
      await scene.admin(server, 'key', 'add', name, key.publicKeyFile);
      return { name, token, key };
    };
    const users = [await makeUser('ann'), await makeUser('ben')] as const;
    return new Ground(scene, { server, source, tip, users });
  }

  /** As many pushes that stop in their packs, and fetches whose packs nobody reads, as there are places. */
  async exhaust(transport: Transport): Promise<void> {
    for (const user of this.users) {
      await this.#stop(transport, user, {
        service: 'git-receive-pack',
        request: `${commandSection([{ ref: `refs/heads/${user.name}`, newOid: this.tip }])}PACK\0\0\0\x02`,
      });
      await this.#stop(transport, user, {
        service: 'git-upload-pack',
        request: `${pktText(`want ${this.tip} side-band-64k ofs-delta thin-pack include-tag\n`)}0000${pktText('done\n')}`,
      });
    }
    const memory = `quorate_pack_memory_bytes{transport="${transport}"}`;
    const pushes = this.#stopped.length / 2;
    await waitFor('all places to be taken', async () => {
      // A push that has its place has a quarantine for its pack.
      const packs = await this.metric('quorate_quarantines');
      return packs >= pushes && (await this.metric(memory)) >= 256 * MIB;
    });
  }

  end(): void {
    for (const stopped of this.#stopped) stopped.end();
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.server.opsUrl}/metrics`)).text();
    const line = text.split('\n').find((each) => each.startsWith(`${name} `));
    return Number(line?.slice(name.length) ?? 0);
  }

  /** A real push of a new commit, and a real clone. */
  async work(transport: Transport, branch: string): Promise<void> {
    const { scene, server, source, users } = this;
    const [user] = users;
    const [url, env] =
      transport === 'http'
        ? [server.httpUrl('big', { user: user.name, token: user.token }), {}]
        : [server.sshUrl('big'), await user.key.environment(server)];
    const commit = await scene.git(['commit-tree', '-m', branch, 'main^{tree}', '-p', 'main'], {
      cwd: source,
    });
    await scene.git(['push', '-q', url, `${commit.trim()}:refs/heads/${branch}`], {
      cwd: source,
      env,
    });
    const clone = scene.path('work', branch);
    await scene.git(['clone', '-q', '--bare', '--branch', branch, url, clone], { env });
    assert.equal((await scene.git(['rev-parse', branch], { cwd: clone })).trim(), commit.trim());
  }

  async #stop(
    transport: Transport,
    user: User,
    { service, request }: { readonly service: string; readonly request: string },
  ): Promise<void> {
    const stopped =
      transport === 'http'
        ? this.#stopHttp(user, service, request)
        : await this.#stopSsh(user, service, request);
    this.#stopped.push(stopped);
  }

  #stopHttp({ name, token }: User, service: string, request: string): Stopped {
    const { hostname, port } = new URL(this.server.url);
    const socket = connect(Number(port), hostname).pause();
    socket.on('error', () => undefined);
    const credentials = Buffer.from(`${name}:${token}`).toString('base64');
    const length = service === 'git-receive-pack' ? 10_000 : request.length;
    socket.write(
      `POST /big/${service} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ${credentials}\r\n` +
        `Content-Type: application/x-${service}-request\r\nContent-Length: ${length}\r\n\r\n`,
    );
    socket.write(Buffer.from(request, 'latin1'));
    return { end: () => socket.destroy() };
  }

  async #stopSsh(user: User, service: string, request: string): Promise<Stopped> {
    const args = [...(await user.key.sshArguments(this.server)), `${service} '/big'`];
    const child = spawn('ssh', args, { env: { ...this.scene.env }, stdio: 'pipe' });
    child.stdin.on('error', () => undefined);
    child.stdout.pause();
    child.stderr.resume();
    child.stdin.write(Buffer.from(request, 'latin1'));
    return { end: () => child.kill('SIGKILL') };
  }
}

for (const [exhausted, other] of [
  ['http', 'ssh'],
  ['ssh', 'http'],
] as const) {
  test(`${exhausted} exhausted by slow clients leaves pushes and clones over ${other} working`, async (t) => {
    const ground = await Ground.create(t);
    try {
      await ground.exhaust(exhausted);
      const late = ground.work(exhausted, 'late');
      late.catch(() => undefined);
      const waiting = `quorate_queue_depth{queue="${exhausted}-pushes"}`;
      await waitFor('a push to wait', async () => (await ground.metric(waiting)) === 1);
      await ground.work(other, 'meanwhile');
      assert.equal(await ground.metric(waiting), 1, 'it still waits');
      ground.end();
      await late;
      assert.equal(await ground.metric(waiting), 0);
    } finally {
      ground.end();
    }
  });
}

test('connections over HTTP leave files to open for SSH, where the system allows few', async (t) => {
  const scene = await createScene(t);
  const server = await scene.startServer();
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const source = await scene.makeRepository();
  await server.stop();
  await server.relaunch(['prlimit', '--nofile=400:400', '--']).ready();
  const { hostname, port } = new URL(server.url);
  let closed = 0;
  const sockets = Array.from({ length: 400 }, () =>
    connect(Number(port), hostname)
      .on('error', () => undefined)
      .on('close', () => (closed += 1))
      .resume(),
  );
  try {
    await waitFor('connections to be turned away', () => closed >= 250);
    assert.ok(closed < 400, 'the others are open');
    const env = await key.environment(server);
    for (const name of ['one', 'two', 'three']) {
      await scene.git(['push', '-q', server.sshUrl(name), 'main'], { cwd: source, env });
    }
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});

test('who has waited too long is refused: 429 and Retry-After over HTTP, a sentence and a non-zero exit over SSH', async (t) => {
  const ground = await Ground.create(t, 'limits.queueTime=300ms');
  const { scene, server, source, tip } = ground;
  const [user] = ground.users;
  const env = await user.key.environment(server);
  try {
    await ground.exhaust('http');
    await ground.exhaust('ssh');
    const fetchBody = `${pktText(`want ${tip} side-band-64k ofs-delta\n`)}0000${pktText('done\n')}`;
    const answer = await fetch(`${server.url}/big/git-upload-pack`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${user.token}`,
        'content-type': 'application/x-git-upload-pack-request',
      },
      body: fetchBody,
    });
    assert.equal(answer.status, 429);
    assert.equal(answer.headers.get('retry-after'), '30');
    assert.match(await answer.text(), /the fetch waited too long for memory: try again/);
    for (const [url, said] of [
      [server.httpUrl('big', { user: user.name, token: user.token }), /429/],
      [server.sshUrl('big'), /(fetch|push) waited too long/],
    ] as const) {
      const commit = await scene.git(['commit-tree', '-m', 'late', 'main^{tree}'], { cwd: source });
      const push = ['push', '-q', url, `${commit.trim()}:refs/heads/late`];
      for (const args of [push, ['clone', '-q', '--bare', url, scene.path('work', 'never')]]) {
        const refused = await scene.tryGit(args, { cwd: source, env });
        assert.notEqual(refused.exitCode, 0, args.join(' '));
        assert.match(refused.stderr, said);
      }
    }
    for (const transport of ['http', 'ssh']) {
      for (const limit of ['fetches', 'pushes']) {
        const name = `quorate_limit_refusals_total{transport="${transport}",limit="${limit}"}`;
        assert.ok((await ground.metric(name)) >= 1, name);
      }
    }
  } finally {
    ground.end();
  }
});
