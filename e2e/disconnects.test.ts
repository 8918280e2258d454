import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { Agent } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { checkPushes } from './checker/check-pushes.js';
import type { Refs } from './checker/check-pushes.js';
import { Observer } from './checker/observer.js';
import type { RecordedPush } from './checker/push-journal.js';
import { zeroOid } from './checker/push-journal.js';
import {
  annotatedTag,
  emptyCommit,
  emptyTree,
  flushPkt,
  pkt,
  pushBody,
} from './checker/raw-git.js';
import type { RefMove } from './checker/raw-git.js';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess, SshKey } from './harness.js';
import { processTree } from './processes.js';

/* Clients that leave at every stage, politely or not, and clients that stop reading. Nothing of them may stay. */

const repository = 'team/app';
/** Large enough that a download cannot hide in socket buffers. */
const blobBytes = 24 * 1024 * 1024;

/** How a client leaves: at once, with a reset, or by closing its half first. */
const farewells = {
  close: (socket: Socket) => socket.destroy(),
  reset: (socket: Socket) => socket.resetAndDestroy(),
  'half-close': (socket: Socket) => socket.end(),
} as const;
type Farewell = keyof typeof farewells;

/** Where in a request it leaves: a byte between the header's start (-1), its end (0) and the body's end (1). */
const cuts = [
  { desc: 'before the first byte', at: -1 },
  { desc: 'mid headers', at: -0.5 },
  { desc: 'after the headers', at: 0 },
  { desc: 'mid commands', at: 0.15 },
  { desc: 'mid pack', at: 0.75 },
  { desc: 'one byte before the end', at: 0.999 },
  { desc: 'before the report', at: 1 },
  { desc: 'during the report', at: 2 },
] as const;

describe('disconnects', () => {
  let scene: Scene;
  let server: ServerProcess;
  let key: SshKey;
  let observer: Observer;
  let refs: Refs;
  let quiet: { sockets: number };
  let count = 0;
  const agent = new Agent();

  before(async () => {
    scene = await createScene();
    // Peers that fall silent are to be noticed while the test waits, and not those that a busy machine keeps waiting;
    // maintenance would change what is counted.
    server = await scene.startServer({
      flags: ['--set', 'limits.idleTime=10s', '--set', 'maintenance.enabled=false'],
    });
    key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    const source = await scene.makeRepository({
      commits: 3,
      files: { blob: randomBytes(blobBytes) },
    });
    // With an annotated tag, so that every process that pushes keep running is there when sockets are counted.
    await scene.git(['tag', '-a', '-m', 'first', 'first'], { cwd: source });
    await scene.git(['push', '-q', server.httpUrl(repository), 'main', 'first'], { cwd: source });
    observer = new Observer({ scene, server, agent });
    refs = await observer.refs([repository]);
    await observer.checkStore({ after: refs, pushes: [anyPush(1)], fsck: 'none' });
    quiet = { sockets: await socketsOf(server.pid) };
  });
  after(() => {
    agent.destroy();
    return scene.close();
  });

  test('pushes over HTTP, cut at every stage', async () => {
    const pushes: RecordedPush[] = [];
    for (const farewell of ['close', 'reset', 'half-close'] as const) {
      for (const { at } of cuts) pushes.push(await cutPush(at, farewell));
    }
    await settled(pushes);
  });

  test('pushes over SSH, cut at every stage', async () => {
    const pushes: RecordedPush[] = [];
    for (const { at } of cuts.filter((cut) => cut.at >= 0)) pushes.push(await cutSshPush(at));
    for (const bytes of ['', 'SSH-2.0-', 'SSH-2.0-cut\r\n', 'SSH-2.0-cut\r\n\0\0\0\x0c\x0a']) {
      const socket = connect(server.sshPort, server.sshHost);
      await once(socket, 'connect');
      socket.end(bytes);
      socket.destroy();
    }
    await settled(pushes);
  });

  test('fetches over HTTP, cut at every stage', async () => {
    for (const farewell of ['close', 'reset', 'half-close'] as const) {
      for (const request of [lsRefs(), fetchAll()]) {
        for (const at of [-0.5, 0, 0.5, 1, 2]) await cutRequest(request, at, farewell);
      }
    }
    await settled([]);
  });

  test('clones over SSH, killed in the middle', async () => {
    for (let n = 0; n < 4; n += 1) {
      const ssh = await startSsh('git-upload-pack');
      await once(ssh.stdout, 'data');
      ssh.stdin.write(`${pkt(`want ${mainOid()} side-band-64k ofs-delta\n`).toString()}0000`);
      ssh.stdin.write(pkt('done\n'));
      await once(ssh.stdout, 'data');
      if (n % 2 === 0) ssh.stdin.destroy();
      ssh.kill('SIGKILL');
      await once(ssh, 'close');
    }
    await settled([]);
  });

  test('clients that stop reading are dropped', async () => {
    const sockets = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const socket = await open();
        socket.write(requestBytes(fetchAll()).whole);
        await once(socket, 'readable');
        return socket;
      }),
    );
    const ssh = await startSsh('git-upload-pack');
    await once(ssh.stdout, 'data');
    ssh.stdout.pause();
    ssh.stdin.write(`${pkt(`want ${mainOid()} side-band-64k ofs-delta\n`).toString()}0000`);
    ssh.stdin.write(pkt('done\n'));
    await waitFor('git to be ended', async () => (await gitsOf(server.pid)).length === 0);
    for (const socket of sockets) socket.destroy();
    ssh.kill('SIGKILL');
    await settled([]);
  });

  test('memory stays flat over 200 cuts', async (t) => {
    await cutMany(80);
    const warm = await memoryOf(server.pid);
    await cutMany(200);
    const then = await memoryOf(server.pid);
    t.diagnostic(`${warm} -> ${then} MB`);
    // Each cut fetch had megabytes on the way: 100 that stay would be far beyond this.
    assert.ok(then < warm + 100, `from ${warm} to ${then} MB`);
  });

  /** Half of them pushes, half fetches, eight at a time. */
  async function cutMany(total: number): Promise<void> {
    const pushes: RecordedPush[] = [];
    for (let n = 0; n < total; n += 8) {
      const round = Array.from({ length: 8 }, async (_, index) => {
        const cut = cuts[(n + index) % cuts.length];
        if (index % 2 === 0) pushes.push(await cutPush(cut?.at ?? 0, 'reset'));
        else await cutRequest(fetchAll(), 2, 'close');
      });
      await Promise.all(round);
    }
    await settled(pushes);
  }

  /** Everything is as if the clients had never come, but for pushes that were complete. */
  async function settled(pushes: readonly RecordedPush[]): Promise<void> {
    await waitFor('the last of the clients to be gone', async () => {
      const gits = await gitsOf(server.pid);
      return gits.length === 0 && (await socketsOf(server.pid)) <= quiet.sockets;
    }).catch(async (error: unknown) => {
      const left = { gits: await gitsOf(server.pid), sockets: await socketsOf(server.pid) };
      assert.fail(`${String(error)}: ${JSON.stringify(left)}, before ${quiet.sockets} sockets`);
    });
    const now = await observer.refs([repository]);
    assert.deepEqual(checkPushes(refs, pushes, now), []);
    await observer.checkStore({ after: now, pushes, fsck: 'connectivity' });
    refs = now;
  }

  function mainOid(): string {
    return refs.get(repository)?.get('refs/heads/main') ?? zeroOid;
  }

  /** An atomic push of two new refs. Only one that was sent completely may take place. */
  function newPush(complete: boolean): { body: Buffer; push: RecordedPush } {
    count += 1;
    const commit = emptyCommit(`cut ${count}`, [mainOid()]);
    const tag = annotatedTag(`cut-${count}`, commit.oid);
    const moves: RefMove[] = [
      { ref: `refs/heads/cut-${count}`, old: zeroOid, new: commit.oid },
      { ref: `refs/tags/cut-${count}`, old: zeroOid, new: tag.oid },
    ];
    const body = pushBody(moves, [emptyTree, commit, tag], { atomic: true });
    const verdict = complete ? ('unknown' as const) : ('refused' as const);
    const updates = moves.map((move) => ({ ...move, verdict }));
    return { body, push: { client: 'cut', repository, atomic: true, updates } };
  }

  async function cutPush(at: number, farewell: Farewell): Promise<RecordedPush> {
    const { body, push } = newPush(at >= 1);
    await cutRequest({ service: 'git-receive-pack', body }, at, farewell);
    return push;
  }

  async function cutRequest(request: RawRequest, at: number, farewell: Farewell): Promise<void> {
    const { header, whole } = requestBytes(request);
    const bodyBytes = whole.length - header.length;
    const sent = at < 0 ? header.length * (1 + at) : header.length + bodyBytes * Math.min(at, 1);
    const socket = await open();
    if (sent >= 1) await new Promise((done) => socket.write(whole.subarray(0, sent), done));
    if (at > 1) await once(socket, 'readable');
    farewells[farewell](socket);
    // After a half-close the answer may come, and then the server closes.
    if (farewell === 'half-close') socket.resume();
    if (!socket.closed) await once(socket, 'close');
  }

  async function cutSshPush(at: number): Promise<RecordedPush> {
    const { body, push } = newPush(at >= 1);
    const ssh = await startSsh('git-receive-pack');
    await once(ssh.stdout, 'data');
    await new Promise((done) =>
      ssh.stdin.write(body.subarray(0, body.length * Math.min(at, 1)), done),
    );
    if (at > 1) await once(ssh.stdout, 'data');
    ssh.kill('SIGKILL');
    await once(ssh, 'close');
    return push;
  }

  async function startSsh(service: string) {
    const args = await key.sshArguments(server);
    const ssh = spawn('ssh', [...args, `${service} '${repository}'`], {
      env: { ...scene.env },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    // Written to after it was killed.
    ssh.stdin.on('error', () => undefined);
    return ssh;
  }

  async function open(): Promise<Socket> {
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return socket;
  }

  function requestBytes({ service, body }: RawRequest): { header: Buffer; whole: Buffer } {
    const token = Buffer.from(`admin:${server.adminToken}`).toString('base64');
    const header = Buffer.from(
      [
        `POST /${repository}/${service} HTTP/1.1`,
        'Host: localhost',
        `Authorization: Basic ${token}`,
        `Content-Type: application/x-${service}-request`,
        'Git-Protocol: version=2',
        'Connection: close',
        `Content-Length: ${body.length}\r\n\r\n`,
      ].join('\r\n'),
    );
    return { header, whole: Buffer.concat([header, body]) };
  }

  function fetchAll(): RawRequest {
    const lines = [pkt('command=fetch'), Buffer.from('0001'), pkt(`want ${mainOid()}\n`)];
    return {
      service: 'git-upload-pack',
      body: Buffer.concat([...lines, pkt('ofs-delta'), pkt('done'), flushPkt]),
    };
  }
});

interface RawRequest {
  readonly service: 'git-upload-pack' | 'git-receive-pack';
  readonly body: Buffer;
}

function lsRefs(): RawRequest {
  const body = Buffer.concat([pkt('command=ls-refs'), Buffer.from('0001'), pkt('peel'), flushPkt]);
  return { service: 'git-upload-pack', body };
}

function anyPush(n: number): RecordedPush {
  const updates = [{ ref: `${n}`, old: zeroOid, new: zeroOid, verdict: 'acknowledged' as const }];
  return { client: 'first', repository, atomic: false, updates };
}

/** Git processes of the server that serve somebody; those kept for the next push or read do not count. */
async function gitsOf(pid: number): Promise<readonly string[]> {
  const commands = await Promise.all(
    (await processTree(pid)).map(async (child) =>
      (await readFile(`/proc/${child}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' '),
    ),
  );
  return commands.filter(
    (command) => /^\S*git /.test(command) && !/ (?:cat-file|update-ref) /.test(command),
  );
}

async function socketsOf(pid: number): Promise<number> {
  const descriptors = await readdir(`/proc/${pid}/fd`);
  const targets = await Promise.all(
    descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
  );
  return targets.filter((target) => target.startsWith('socket:')).length;
}

/** Resident memory of the server's own process, in MB. */
async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024);
}
