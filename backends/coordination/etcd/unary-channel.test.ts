import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, createServer, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer as createTcpServer } from 'node:net';
import { afterEach, test } from 'node:test';
import {
  ClientClosedError,
  GRPCDeadlineExceededError,
  GRPCInternalError,
  GRPCUnavailableError,
  GRPCUnknownError,
} from 'etcd3';
import { pickPort } from '../../contract/testing/ports.js';
import { until } from '../../contract/testing/until.js';
import { RequestNotTaken } from './grpc-status.js';
import { UnaryChannel } from './unary-channel.js';

type Serve = (stream: ServerHttp2Stream, path: string) => void;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});

/** A server that speaks HTTP/2 as Node does, and what its streams do. */
async function serving(
  serve: Serve,
  settings: { maxConcurrentStreams?: number; initialWindowSize?: number } = {},
) {
  const port = await pickPort();
  const sessions: Http2Session[] = [];
  const server = createServer({ settings });
  server.on('session', (session) => sessions.push(session));
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    serve(stream, String(headers[':path']));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  undo.push(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  const channel = new UnaryChannel({ endpoint: `127.0.0.1:${port}` });
  undo.push(() => channel.close());
  return { channel, sessions };
}

function call(channel: UnaryChannel, path: string, message = 'm', timeoutMs = 60_000) {
  const headers = { ':method': 'POST', ':path': path };
  return channel.call({ headers, message: Buffer.from(message), timeoutMs, isLongest: true });
}

async function bodyOf(stream: ServerHttp2Stream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function answer(stream: ServerHttp2Stream, body: Buffer, trailers: Record<string, string>): void {
  stream.respond({ ':status': 200 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(body);
}

/** The message back. */
const echo: Serve = (stream) => {
  void bodyOf(stream).then(
    (body) => answer(stream, body, { 'grpc-status': '0' }),
    () => undefined,
  );
};

test('many calls at once are answered, each with its own', async () => {
  const { channel, sessions } = await serving(echo);
  const texts = Array.from({ length: 200 }, (_, n) => `message ${n}`);
  const answers = await Promise.all(texts.map((text) => call(channel, '/', text)));
  assert.deepEqual(answers.map(String), texts);
  assert.equal(sessions.length, 1);
});

test('messages larger than frames and windows pass both ways', async () => {
  const { channel } = await serving(echo, { initialWindowSize: 1_000 });
  const large = 'x'.repeat(1_500_000);
  const [first, second, small] = await Promise.all([
    call(channel, '/', large),
    call(channel, '/', `${large}y`),
    call(channel, '/', 'small'),
  ]);
  assert.ok(String(first) === large && String(second) === `${large}y`);
  assert.equal(String(small), 'small');
});

test('an empty message is one', async () => {
  const { channel } = await serving(echo);
  assert.equal(String(await call(channel, '/', '')), '');
});

test('what the member does not take at once waits for its turn', async () => {
  let running = 0;
  let most = 0;
  const { channel } = await serving(
    (stream, path) => {
      running += 1;
      most = Math.max(most, running);
      stream.on('close', () => (running -= 1));
      echo(stream, path);
    },
    { maxConcurrentStreams: 2 },
  );
  const texts = Array.from({ length: 20 }, (_, n) => `${n}`);
  const answers = await Promise.all(texts.map((text) => call(channel, '/', text)));
  assert.deepEqual(answers.map(String), texts);
  assert.ok(most <= 2, `${most} at once`);
});

test('errors are those of etcd3', async () => {
  const { channel } = await serving((stream, path) => {
    if (path === '/no-leader') {
      const status = { 'grpc-status': '14', 'grpc-message': 'etcdserver: no leader' };
      stream.respond({ ':status': 200, ...status }, { endStream: true });
    } else if (path === '/late') {
      answer(stream, Buffer.alloc(0), { 'grpc-status': '2', 'grpc-message': 'so %22%25 what' });
    } else if (path === '/half') {
      answer(stream, Buffer.from([0, 0, 0, 0, 9, 1]), { 'grpc-status': '0' });
    } else if (path === '/busy') stream.respond({ ':status': 503 }, { endStream: true });
    else stream.respond({ ':status': 404 }, { endStream: true });
  });
  const fails = (path: string, kind: new () => Error, message: RegExp) =>
    assert.rejects(call(channel, path), (error) => {
      return error instanceof kind && message.test(error.message);
    });
  await fails('/no-leader', GRPCUnavailableError, /etcdserver: no leader$/);
  await fails('/late', GRPCUnknownError, /so "% what$/);
  await fails('/half', GRPCInternalError, /no message/);
  await fails('/busy', GRPCUnavailableError, /503/);
  await fails('/other', GRPCUnknownError, /404/);
});

test('a call ends at its deadline, and a connection on which nothing is said ends with it', async () => {
  let silent = 0;
  const { channel, sessions } = await serving((stream, path) => {
    if (path === '/silent') silent += 1;
    else echo(stream, path);
  });
  await call(channel, '/');
  const long = call(channel, '/silent');
  const lost = assert.rejects(long, GRPCUnavailableError);
  await until('the first call', () => silent === 1);
  await assert.rejects(call(channel, '/silent', 'm', 50), GRPCDeadlineExceededError);
  await lost;
  assert.equal(String(await call(channel, '/', 'again')), 'again');
  assert.equal(sessions.length, 2);
});

test('a call that was lost with its connection may have been done, one that was refused was not', async () => {
  const { channel, sessions } = await serving((stream, path) => {
    if (path === '/refused') stream.close(constants.NGHTTP2_REFUSED_STREAM);
    else if (path === '/given-up') stream.close(constants.NGHTTP2_CANCEL);
    else if (path === '/lost') stream.session?.destroy();
    else echo(stream, path);
  });
  await assert.rejects(call(channel, '/refused'), RequestNotTaken);
  await assert.rejects(call(channel, '/given-up'), GRPCUnavailableError);
  await assert.rejects(call(channel, '/lost'), GRPCUnavailableError);
  assert.equal(String(await call(channel, '/', 'again')), 'again');
  assert.equal(sessions.length, 2);
});

test('a member that stops answers what it has taken, and only that', async () => {
  const held: ServerHttp2Stream[] = [];
  const { channel, sessions } = await serving((stream, path) => {
    if (path === '/held') held.push(stream);
    else echo(stream, path);
  });
  const taken = call(channel, '/held', 'taken');
  await until('the first call', () => held.length === 1);
  const late = call(channel, '/held', 'late');
  await until('the second call', () => held.length === 2);
  const [first] = held;
  assert.ok(first !== undefined);
  const refused = assert.rejects(late, RequestNotTaken);
  sessions[0]?.goaway(0, first.id ?? 0);
  await refused;
  // The next call goes over another connection, while the first one is still in use.
  assert.equal(String(await call(channel, '/', 'next')), 'next');
  assert.equal(sessions.length, 2);
  echo(first, '/held');
  assert.equal(String(await taken), 'taken');
});

test('a call that was taken is not called refused, whatever the word with which the member leaves', async () => {
  const { channel } = await serving((stream) => {
    stream.session?.goaway(constants.NGHTTP2_REFUSED_STREAM, stream.id ?? 0);
  });
  await assert.rejects(call(channel, '/'), GRPCUnavailableError);
});

test('a channel that is closed answers what was asked, and nothing more', async () => {
  const held: ServerHttp2Stream[] = [];
  const { channel, sessions } = await serving((stream) => held.push(stream));
  assert.ok(await channel.ready(60_000));
  const open = call(channel, '/', 'open');
  await until('the first call', () => held.length === 1);
  channel.close();
  await assert.rejects(call(channel, '/'), ClientClosedError);
  await assert.rejects(channel.ready(0), ClientClosedError);
  for (const stream of held) echo(stream, '/');
  assert.equal(String(await open), 'open');
  await until('the connection to end', () => sessions[0]?.destroyed === true);
});

test('no connection is told, tried again later, and found when it is there', async () => {
  const port = await pickPort();
  const channel = new UnaryChannel({ endpoint: `127.0.0.1:${port}` });
  undo.push(() => channel.close());
  assert.equal(await channel.ready(60_000), false);
  await assert.rejects(call(channel, '/'), GRPCUnavailableError);
  const server = createServer();
  server.on('stream', (stream) => echo(stream, '/'));
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  undo.push(() => server.close());
  await until('a connection', () => channel.ready(60_000));
  assert.equal(String(await call(channel, '/', 'there')), 'there');
  channel.close();
});

test('what speaks another protocol, or none, is no connection', async () => {
  for (const greeting of [
    'HTTP/1.1 400 Bad Request\r\n\r\n',
    '\0\0\x04\x08\0\0\0\0\0\0\0\0\x01',
    '',
  ]) {
    const port = await pickPort();
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      if (greeting === '') socket.end();
      else socket.write(greeting, 'latin1');
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    const channel = new UnaryChannel({ endpoint: `127.0.0.1:${port}` });
    assert.equal(await channel.ready(60_000), false, greeting);
    channel.close();
    server.close();
  }
});
