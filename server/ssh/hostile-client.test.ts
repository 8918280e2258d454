import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, test } from 'node:test';
import ssh2 from 'ssh2';
import { FakeGitService } from './testing/fake-git-service.js';
import { connectRaw } from './testing/raw-client.js';
import { createSshScene, type SshScene } from './testing/ssh-scene.js';
import { until } from '../../backends/contract/testing/until.js';

const service = new FakeGitService();
let scene: SshScene;
let key = '';

before(async () => {
  scene = await createSshScene(service);
  key = scene.addKey('alice', { keygen: ['-t', 'ed25519'] });
});
after(() => scene.close());

afterEach(async () => {
  const { exitCode } = await scene.ssh(key, 'git@127.0.0.1', "git-upload-pack 'facts'");
  assert.equal(exitCode, 0, 'the server goes on');
});

/** Not `once`, which rejects when the server resets what it will not read. */
const closing = (socket: Socket): Promise<void> => {
  return new Promise((resolve) => socket.once('close', () => resolve()));
};

const window = 2 * 1024 * 1024;

test('a public key without its private key is no login', async () => {
  const stranger = scene.addKey('stranger', { keygen: ['-t', 'ed25519'], stranger: true });
  const [known, own] = [key, stranger].map((file) => ssh2.utils.parseKey(readFileSync(file)));
  assert.ok(known !== undefined && !(known instanceof Error));
  // Shows alice's public key and signs with another.
  const forged: ssh2.ParsedKey = Object.create(own ?? null, {
    getPublicSSH: { value: () => known.getPublicSSH() },
  });
  const method: ssh2.PublicKeyAuthMethod = { type: 'publickey', username: 'git', key: '' };
  // ssh2 takes a parsed key as well; its types do not say so.
  Object.assign(method, { key: forged });
  const client = new ssh2.Client();
  const failed = new Promise<Error>((resolve, reject) => {
    client.once('error', resolve);
    client.once('ready', () => reject(new Error('logged in')));
  });
  client.connect({
    host: '127.0.0.1',
    port: scene.port,
    username: 'git',
    authHandler: [method],
  });
  assert.match((await failed).message, /authentication methods failed/);
  assert.ok(scene.audited.some(({ details }) => details['why'] === 'wrong signature'));
});

test('a packet size of 0, with which ssh2 would loop for ever, ends the connection', async () => {
  const client = await connectRaw(scene, key, { window, packetBytes: 0 });
  const closed = closing(client.socket);
  client.exec("git-upload-pack 'flood/1000'");
  client.socket.resume();
  await closed;
});

test('data beyond the window ends the connection', async () => {
  const client = await connectRaw(scene, key, { window, packetBytes: 32_768 });
  client.exec("git-receive-pack 'hang'");
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'hang');
  const exchange = service.exchanges.at(-1);
  const closed = closing(client.socket);
  for (let index = 0; index < 256 && !client.socket.destroyed; index++)
    client.data(Buffer.alloc(32_000));
  await closed;
  await until('the end of the exchange', () => exchange?.ended !== undefined);
});

test('data after the end of data ends the channel', async () => {
  const client = await connectRaw(scene, key, { window, packetBytes: 32_768 });
  client.exec("git-receive-pack 'hang'");
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'hang');
  const exchange = service.exchanges.at(-1);
  client.eof();
  client.data(Buffer.from('more'));
  client.socket.destroy();
  await until('the end of the exchange', () => exchange?.ended !== undefined);
});

test('a second command on one channel is not run', async () => {
  const client = await connectRaw(scene, key, { window, packetBytes: 32_768 });
  const before = service.exchanges.length;
  client.exec("git-receive-pack 'hang'");
  client.exec("git-receive-pack 'hang'");
  client.exec('');
  await until('the exchange', () => service.exchanges.length > before);
  client.socket.destroy();
  await until('the end of the exchange', () => service.exchanges.at(-1)?.ended !== undefined);
  assert.equal(service.exchanges.length, before + 1);
});

test('other protocols and noise are closed', async () => {
  const openings = [
    Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    Buffer.from('SSH-1.5-old\r\n'),
    Buffer.alloc(100_000, 'a'),
    ...Array.from({ length: 30 }, (_, index) => {
      return Buffer.concat([Buffer.from('SSH-2.0-noise\r\n'), randomBytes(index * 40 + 16)]);
    }),
  ];
  for (const opening of openings) {
    const socket = connect(scene.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.resume();
    const closed = closing(socket);
    socket.end(opening);
    await closed;
  }
});
