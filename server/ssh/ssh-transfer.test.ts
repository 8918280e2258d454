import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import { connectRaw } from './testing/raw-client.js';
import { FakeGitService, type FakeExchange } from './testing/fake-git-service.js';
import { collect, createSshScene, type SshScene } from './testing/ssh-scene.js';
import { until } from '../../backends/contract/testing/until.js';

const service = new FakeGitService();
let scene: SshScene;
let key = '';

before(async () => {
  scene = await createSshScene(service, { rekeyAfterBytes: 1_000_000 });
  key = scene.addKey('alice', { keygen: ['-t', 'ed25519'] });
});
after(() => scene.close());

function lastExchange(): FakeExchange {
  return service.exchanges.at(-1) ?? assert.fail('no exchange was opened');
}

/** Resolves with what it was when `read` gives the same number for long enough to call it standing still. */
async function standstill(read: () => number): Promise<number> {
  let last = -1;
  let since = performance.now();
  await until('a standstill', () => {
    if (read() !== last) {
      last = read();
      since = performance.now();
    }
    return last > 0 && performance.now() - since > 400;
  });
  return last;
}

for (const cipher of ['aes128-gcm@openssh.com', 'aes128-ctr']) {
  test(`keys are exchanged anew while bytes go both ways (${cipher})`, async () => {
    const child = scene.start(
      key,
      '-c',
      cipher,
      '-o',
      'RekeyLimit=1M',
      'git@127.0.0.1',
      "git-receive-pack 'echo'",
    );
    const block = Buffer.from(Array.from({ length: 1_000_003 }, (_, index) => (index * 31) & 0xff));
    const sent = createHash('sha256');
    for (let index = 0; index < 24; index++) {
      sent.update(block);
      child.stdin.write(block);
    }
    child.stdin.end();
    const { stdout, stderr, exitCode } = await collect(child);
    assert.equal(exitCode, 0, stderr);
    assert.equal(createHash('sha256').update(stdout).digest('hex'), sent.digest('hex'));
  });
}

test('the server exchanges keys anew for a client that does not', async () => {
  const child = scene.start(
    key,
    '-v',
    '-o',
    'RekeyLimit=4G',
    'git@127.0.0.1',
    "git-upload-pack 'flood/20000000'",
  );
  let log = '';
  let received = 0;
  child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()));
  child.stdout.on('data', (chunk: Buffer) => {
    received += chunk.length;
    // Hold the rest back until the second key exchange is under way.
    if (received > 5_000_000 && keyExchanges() < 2) child.stdout.pause();
  });
  const keyExchanges = (): number => log.split('SSH2_MSG_KEXINIT received').length - 1;
  child.stdin.end();
  await until('the second key exchange', () => keyExchanges() >= 2);
  child.stdout.resume();
  const exitCode = await new Promise((resolve) => child.once('close', resolve));
  assert.deepEqual([received, exitCode], [20_000_000, 0]);
});

test('a reader that stops stops the writer', async () => {
  const child = scene.start(key, 'git@127.0.0.1', "git-upload-pack 'flood/1000000000'");
  child.stdin.end();
  child.stdout.once('data', () => child.stdout.pause());
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'flood/1000000000');
  const exchange = lastExchange();
  const sentBytes = await standstill(() => exchange.sentBytes);
  // 2 MiB of window in ssh, and what kernel buffers and pipes hold.
  assert.ok(sentBytes < 32 * 1024 ** 2, `${sentBytes}`);
  assert.ok(exchange.maxBufferedBytes <= 1024 * 1024, `${exchange.maxBufferedBytes}`);
  child.kill('SIGKILL');
  await until('the end of the exchange', () => exchange.ended !== undefined);
  assert.ok(exchange.ended instanceof Error);
});

test('nor does a reader with a window of 4 GiB get it filled', async () => {
  const client = await connectRaw(scene, key, { window: 0xffff_ffff, packetBytes: 32_768 });
  client.exec("git-upload-pack 'flood/2000000000'");
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'flood/2000000000');
  client.socket.pause();
  const exchange = lastExchange();
  const sentBytes = await standstill(() => exchange.sentBytes);
  assert.ok(sentBytes < 32 * 1024 ** 2, `${sentBytes}`);
  client.socket.destroy();
  await until('the end of the exchange', () => exchange.ended !== undefined);
});

test('nor one that begins a key exchange and does not go on with it', async () => {
  const client = await connectRaw(scene, key, { window: 0xffff_ffff, packetBytes: 32_768 });
  client.exec("git-upload-pack 'flood/2000000001'");
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'flood/2000000001');
  const exchange = lastExchange();
  client.rekey();
  client.socket.pause();
  const sentBytes = await standstill(() => exchange.sentBytes);
  assert.ok(sentBytes < 32 * 1024 ** 2, `${sentBytes}`);
  client.socket.destroy();
  await until('the end of the exchange', () => exchange.ended !== undefined);
});

test('a sender that is not read is held back', async () => {
  const child = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'hang'");
  let sentBytes = 0;
  const block = Buffer.alloc(64 * 1024);
  const pump = (): void => {
    let room = true;
    while (room) {
      room = child.stdin.write(block);
      sentBytes += block.length;
    }
  };
  child.stdin.on('drain', pump);
  pump();
  // Until there is one, it is ssh that takes nothing.
  await until('the exchange', () => service.exchanges.at(-1)?.request.path === 'hang');
  const exchange = lastExchange();
  assert.ok((await standstill(() => sentBytes)) < 32 * 1024 ** 2);
  child.kill('SIGKILL');
  await until('the end of the exchange', () => exchange.ended !== undefined);
});
