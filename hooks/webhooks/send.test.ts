import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { promisify } from 'node:util';
import type { Clock } from '../../backends/contract/environment.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import { sleepInSteps } from '../../backends/contract/testing/step-sleep.js';
import { until } from '../../backends/contract/testing/until.js';
import type { Attempt } from './delivery.js';
import { createSender, type Resolve } from './send.js';
import { createTargets } from './targets.js';

// Against real sockets: what is said here is what a hostile receiver can say.

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: sleepInSteps,
};

const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** A TCP server that does this with each connection; its port, and how many came. */
async function listen(
  serve: (socket: Socket) => void,
): Promise<{ readonly port: number; readonly count: () => number }> {
  let count = 0;
  const server = createServer((socket) => {
    count += 1;
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    serve(socket);
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: portOf(server), count: () => count };
}

function portOf(server: Server): number {
  const address = server.address();
  assert.ok(address !== null && typeof address !== 'string');
  return address.port;
}

/** Answers with these bytes as soon as the request begins. */
const saying = (text: string) => (socket: Socket) => {
  socket.once('data', () => socket.end(text));
};

interface Options {
  readonly allowed?: string;
  readonly timeoutMs?: number;
  readonly resolve?: Resolve;
  readonly signal?: AbortSignal;
  readonly body?: Uint8Array;
}

function send(url: string, options: Options = {}): Promise<Attempt | undefined> {
  const { allowed = '127.0.0.1', timeoutMs = 20_000, resolve, signal } = options;
  const sender = createSender({
    targets: createTargets(allowed),
    clock,
    timeoutMs,
    ...(resolve === undefined ? {} : { resolve }),
  });
  return sender({
    url,
    headers: { 'X-Quorate-Event': 'push' },
    body: options.body ?? Buffer.from('{}'),
    signal: signal ?? new AbortController().signal,
  });
}

function resolvingTo(...addresses: readonly string[]): Resolve {
  return (_hostname, found) => {
    const all = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    found(null, all);
  };
}

test('a request is sent whole, and what is answered is kept', async () => {
  let heard = '';
  const { port } = await listen((socket) => {
    socket.on('data', (bytes) => {
      heard += bytes.toString();
      if (heard.endsWith('{}')) socket.end('HTTP/1.1 202 Yes\r\nContent-Length: 4\r\n\r\nwell');
    });
  });
  const attempt = await send(`http://127.0.0.1:${port}/a/b?c=d`);
  assert.ok(attempt !== undefined);
  const { outcome, status, response, problem } = attempt;
  assert.deepEqual(
    { outcome, status, response, problem },
    { outcome: 'delivered', status: 202, response: 'well', problem: undefined },
  );
  assert.match(heard, /^POST \/a\/b\?c=d HTTP\/1\.1\r\n/);
  assert.match(heard, /Content-Length: 2\r\n/);
  assert.match(heard, /Connection: close\r\n/i);
});

test('every other status is a failure', async () => {
  for (const status of [400, 404, 410, 429, 500, 503]) {
    const { port } = await listen(saying(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`));
    const attempt = await send(`http://127.0.0.1:${port}/`);
    assert.equal(attempt?.outcome, 'status');
    assert.equal(attempt.status, status);
  }
});

test('addresses that are not public are not connected to, however they are written', async () => {
  const { port, count } = await listen(saying('HTTP/1.1 200 OK\r\n\r\n'));
  const hosts = ['127.0.0.1', '[::ffff:127.0.0.1]', '2130706433', '0x7f.1', '127.1', 'localhost'];
  for (const host of hosts) {
    const attempt = await send(`http://${host}:${port}/`, { allowed: '' });
    assert.equal(attempt?.outcome, 'forbidden-address', host);
    assert.match(attempt.problem ?? '', /webhooks\.allowedNetworks/);
  }
  const metadata = await send('http://169.254.169.254/latest/meta-data/', { allowed: '' });
  assert.equal(metadata?.outcome, 'forbidden-address');
  assert.equal(count(), 0);
});

test('what a name resolves to is judged, and only what was judged is connected to', async () => {
  const { port, count } = await listen(saying('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
  let looked = 0;
  const rebinding: Resolve = (hostname, found) => {
    looked += 1;
    resolvingTo(looked === 1 ? '10.0.0.7' : '127.0.0.1')(hostname, found);
  };
  const inner = `http://inner.example.org:${port}/`;
  const first = await send(inner, { resolve: rebinding });
  assert.equal(first?.outcome, 'forbidden-address');
  assert.equal(looked, 1, 'one look, one verdict');
  // The permitted one of several, also when it is not the first.
  const mixed = resolvingTo('10.0.0.7', 'fd00::1', '127.0.0.1');
  assert.equal((await send(inner, { resolve: mixed }))?.outcome, 'delivered');
  assert.equal(count(), 1);
  const notFound = Object.assign(new Error('x'), { code: 'ENOTFOUND' });
  const none: Resolve = (_hostname, found) => found(notFound, []);
  const unknown = await send(inner, { resolve: none });
  assert.equal(unknown?.outcome, 'dns');
  assert.match(unknown.problem ?? '', /ENOTFOUND/);
});

test('redirects are not followed, to private addresses or anywhere else', async () => {
  const target = await listen(saying('HTTP/1.1 200 OK\r\n\r\n'));
  for (const status of [301, 302, 307, 308]) {
    const location = `Location: http://127.0.0.1:${target.port}/`;
    const { port } = await listen(
      saying(`HTTP/1.1 ${status} Go\r\n${location}\r\nContent-Length: 0\r\n\r\n`),
    );
    const attempt = await send(`http://127.0.0.1:${port}/`);
    assert.equal(attempt?.outcome, 'redirect');
    assert.equal(attempt.status, status);
  }
  assert.equal(target.count(), 0);
});

test('of an answer of gigabytes a kilobyte is read', async () => {
  let written = 0;
  const { port } = await listen((socket) => {
    const part = Buffer.alloc(64 * 1024, 'x');
    const more = (): void => {
      while (!socket.destroyed && socket.write(part)) written += part.length;
    };
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.on('drain', more);
      more();
    });
  });
  const attempt = await send(`http://127.0.0.1:${port}/`);
  assert.equal(attempt?.outcome, 'delivered');
  assert.equal(attempt.response?.length, 1024);
  for (const socket of sockets) await new Promise((resolve) => socket.once('close', resolve));
  assert.ok(written < 32 * 1024 * 1024, `${written} bytes went out`);
});

test('who never answers is left', async () => {
  const silent = await listen(() => undefined);
  const trickling = await listen((socket) => {
    socket.write('HTTP/1.1 200 OK\r\nX: ');
    const timer = setInterval(() => socket.write('y'), 20);
    socket.on('close', () => clearInterval(timer));
  });
  // 1xx answers come before the answer (RFC 9110, section 15.2), as many as the receiver likes.
  const promising = await listen((socket) => {
    const timer = setInterval(() => socket.write('HTTP/1.1 102 Processing\r\n\r\n'), 20);
    socket.on('close', () => clearInterval(timer));
  });
  for (const { port, count } of [silent, trickling, promising]) {
    const attempt = await send(`http://127.0.0.1:${port}/`, { timeoutMs: 300 });
    assert.equal(attempt?.outcome, 'timeout');
    await until('the connection to be there', () => count() > 0);
    assert.equal(count(), 1);
  }
  const attempt = await send(`http://127.0.0.1:${silent.port}/`, { timeoutMs: 300 });
  assert.equal(attempt?.problem, 'no answer within 0.3 seconds');
  const unresolved = await send('http://slow.example.org/', {
    timeoutMs: 300,
    resolve: () => undefined,
  });
  assert.equal(unresolved?.outcome, 'timeout');
});

test('a body that never ends is no reason to doubt the status', async () => {
  const { port } = await listen((socket) => {
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nsome'));
  });
  const attempt = await send(`http://127.0.0.1:${port}/`, { timeoutMs: 300 });
  assert.equal(attempt?.outcome, 'delivered');
  assert.equal(attempt.response, 'some');
});

test('who answers without listening is sent no more', async () => {
  let heard = 0;
  const connections: Socket[] = [];
  const { port } = await listen((socket) => {
    connections.push(socket);
    socket.on('data', (bytes) => {
      heard += bytes.length;
    });
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      socket.pause();
    });
  });
  const body = Buffer.alloc(32 * 1024 * 1024);
  const attempt = await send(`http://127.0.0.1:${port}/`, { body });
  assert.equal(attempt?.outcome, 'delivered');
  const [socket] = connections;
  assert.ok(socket !== undefined);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.resume();
  await closed;
  assert.ok(heard < body.length, `${heard} bytes were sent`);
});

test('what is no HTTP is told apart', async () => {
  const answers = [
    'SSH-2.0-OpenSSH_9.2\r\n',
    '',
    `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(40_000)}\r\n\r\n`,
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
  ];
  for (const text of answers) {
    const { port } = await listen(saying(text));
    const attempt = await send(`http://127.0.0.1:${port}/`);
    assert.equal(attempt?.outcome, 'protocol', text.slice(0, 40));
  }
});

test('nobody listens', async () => {
  const attempt = await send(`http://127.0.0.1:${await pickPort()}/`);
  assert.equal(attempt?.outcome, 'connection');
  assert.match(attempt.problem ?? '', /ECONNREFUSED/);
});

test('an attempt that is cut off says nothing', async () => {
  const { port } = await listen(() => undefined);
  const cut = new AbortController();
  const attempt = send(`http://127.0.0.1:${port}/`, { signal: cut.signal });
  setTimeout(() => cut.abort(), 50);
  assert.equal(await attempt, undefined);
  assert.equal(await send(`http://127.0.0.1:${port}/`, { signal: cut.signal }), undefined);
});

const directory = await mkdtemp(join(tmpdir(), 'quorate-send-'));
const file = (name: string): string => join(directory, name);
after(() => rm(directory, { recursive: true }));

test('TLS that nobody vouches for is not spoken', async () => {
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const subject = ['-subj', '/CN=localhost', '-days', '1'];
  await promisify(execFile)('openssl', [
    ...args,
    ...subject,
    '-keyout',
    file('key'),
    '-out',
    file('pem'),
  ]);
  let requests = 0;
  const server = createHttpsServer(
    { key: await readFile(file('key')), cert: await readFile(file('pem')) },
    (_request, response) => {
      requests += 1;
      response.end();
    },
  );
  server.on('tlsClientError', () => undefined);
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  for (const host of ['localhost', '127.0.0.1']) {
    const attempt = await send(`https://${host}:${portOf(server)}/`);
    assert.equal(attempt?.outcome, 'tls', attempt?.problem);
    assert.match(attempt.problem ?? '', /SELF_SIGNED/);
  }
  const plain = await listen(saying('HTTP/1.1 200 OK\r\n\r\n'));
  const attempt = await send(`https://127.0.0.1:${plain.port}/`);
  assert.equal(attempt?.outcome, 'tls', 'no TLS at all');
  assert.equal(requests, 0);
});
