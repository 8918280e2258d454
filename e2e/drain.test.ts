import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { packOf, emptyTree, emptyCommit, pkt } from './checker/raw-git.js';
import { zeroOid } from './checker/push-journal.js';

const repository = 'team/app';

async function serve(scene: Scene, flags: readonly string[] = []): Promise<ServerProcess> {
  const server = await scene.startServer({ flags });
  const source = await scene.makeRepository({ files: { blob: randomBytes(16 * 1024 * 1024) } });
  await scene.git(['push', '-q', server.httpUrl(repository), 'main'], { cwd: source });
  return server;
}

/** A push whose end is sent when told to. Resolves with all that came back. */
async function slowPush(server: ServerProcess) {
  const commit = emptyCommit('slow', []);
  const pack = packOf([emptyTree, commit]);
  const commands = Buffer.concat([
    pkt(`${zeroOid} ${commit.oid} refs/heads/slow\0report-status`),
    Buffer.from('0000'),
  ]);
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  let answer = '';
  socket.on('error', () => undefined);
  socket.setEncoding('latin1').on('data', (text: string) => (answer += text));
  await once(socket, 'connect');
  const closed = once(socket, 'close');
  socket.write(
    [
      `POST /${repository}/git-receive-pack HTTP/1.1`,
      'Host: localhost',
      `Authorization: Basic ${Buffer.from(`x:${server.adminToken}`).toString('base64')}`,
      'Content-Type: application/x-git-receive-pack-request',
      `Content-Length: ${commands.length + pack.length}\r\n\r\n`,
    ].join('\r\n'),
  );
  socket.write(Buffer.concat([commands, pack.subarray(0, 20)]));
  return {
    finish: async (): Promise<string> => {
      socket.write(pack.subarray(20));
      await closed;
      return answer;
    },
    closed: closed.then(() => answer),
  };
}

/** A `git upload-pack` session over SSH that has its first bytes and reads no further until told to. */
async function slowClone(scene: Scene, server: ServerProcess) {
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const main = (await scene.git(['ls-remote', server.httpUrl(repository), 'HEAD'])).slice(0, 40);
  const ssh = spawn(
    'ssh',
    [...(await key.sshArguments(server)), `git-upload-pack '${repository}'`],
    {
      env: { ...scene.env },
      stdio: ['pipe', 'pipe', 'ignore'],
    },
  );
  await once(ssh.stdout, 'data');
  ssh.stdin.write(`${pkt(`want ${main} side-band-64k ofs-delta\n`).toString()}0000`);
  ssh.stdin.write(pkt('done\n'));
  await once(ssh.stdout, 'data');
  ssh.stdout.pause();
  const exited = once(ssh, 'close');
  return {
    finish: async (): Promise<{ bytes: number; exitCode: number | null }> => {
      let bytes = 0;
      ssh.stdout.on('data', (chunk: Buffer) => (bytes += chunk.length));
      ssh.stdout.resume();
      await exited;
      return { bytes, exitCode: ssh.exitCode };
    },
    closed: exited,
    kill: () => ssh.kill('SIGKILL'),
  };
}

const draining = (server: ServerProcess): Promise<true> =>
  waitFor('the server to drain', () => server.logs().includes('"msg":"draining"') || undefined);

test('SIGTERM lets a push and a clone finish, takes nobody new, and ends with 0', async (t) => {
  const scene = await createScene(t);
  // However busy the machine is: nobody is cut off here.
  const server = await serve(scene, ['--set', 'shutdown.grace=3m']);
  const push = await slowPush(server);
  const clone = await slowClone(scene, server);
  process.kill(server.pid, 'SIGTERM');
  await draining(server);
  const late = await scene.tryGit(['ls-remote', server.httpUrl(repository)]);
  assert.notEqual(late.exitCode, 0, 'a new client was served');
  assert.ok(server.running, 'it waits for those that it serves');
  assert.match(await push.finish(), /ok refs\/heads\/slow/);
  const { bytes, exitCode } = await clone.finish();
  assert.ok(bytes > 15 * 1024 * 1024, `${bytes} bytes came`);
  assert.equal(exitCode, 0);
  assert.deepEqual(await server.exited(), { exitCode: 0, signal: null });
  await server.relaunch().ready();
  const listed = await scene.git(['ls-remote', server.httpUrl(repository), 'refs/heads/slow']);
  assert.match(listed, /refs\/heads\/slow$/m);
});

test('SIGTERM does not wait for stuck clients beyond its grace', async (t) => {
  const scene = await createScene(t);
  const server = await serve(scene, ['--set', 'shutdown.grace=1s']);
  const push = await slowPush(server);
  const clone = await slowClone(scene, server);
  process.kill(server.pid, 'SIGTERM');
  // Bounded by the harness; the grace and the teardown together stay far below that.
  assert.deepEqual(await server.exited(), { exitCode: 0, signal: null }, server.logs());
  assert.doesNotMatch(await push.closed, /ok refs\/heads\/slow/);
  clone.kill();
  await clone.closed;
  await server.relaunch().ready();
  const listed = await scene.git(['ls-remote', server.httpUrl(repository), 'refs/heads/slow']);
  assert.equal(listed, '');
});
