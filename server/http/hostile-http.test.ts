import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { QuorateError } from '../../backends/contract/errors.js';
import {
  ask,
  basic,
  type Fixture,
  ok,
  pushTo,
  rawConnection,
  readAll,
  startListener,
  systemClock,
} from './listener-fixture.js';
import { until } from '../../backends/contract/testing/until.js';

const open: Fixture[] = [];
async function start(...options: Parameters<typeof startListener>): Promise<Fixture> {
  const fixture = await startListener(...options);
  open.push(fixture);
  return fixture;
}
afterEach(async () => {
  for (const fixture of open.splice(0)) {
    await fixture.close();
    assert.equal(fixture.running(), 0);
  }
});

const post = (headers: string): string =>
  `POST /a/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\n${headers}\r\n`;
const smuggled = 'GET /smuggled/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n';

const attacks = [
  {
    desc: 'both a length and chunks (request smuggling)',
    bytes: `${post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n')}0\r\n\r\n${smuggled}`,
    status: 400,
  },
  {
    desc: 'two lengths',
    bytes: `${post('Content-Length: 0\r\nContent-Length: 70\r\n')}${smuggled}`,
    status: 400,
  },
  {
    desc: 'a signed length',
    bytes: `${post('Content-Length: +0\r\n')}${smuggled}`,
    status: 400,
  },
  {
    desc: 'chunked, but not last',
    bytes: `${post('Transfer-Encoding: chunked, identity\r\n')}0\r\n\r\n${smuggled}`,
    status: 400,
  },
  {
    desc: 'a coding that is nearly chunked',
    bytes: `${post('Transfer-Encoding: xchunked\r\n')}0\r\n\r\n${smuggled}`,
    status: 400,
  },
  {
    desc: 'a coding before chunked',
    bytes: `${post('Transfer-Encoding: gzip, chunked\r\n')}0\r\n\r\n`,
    status: 400,
  },
  {
    desc: 'white space before the colon',
    bytes: `${post('Transfer-Encoding : chunked\r\n')}0\r\n\r\n${smuggled}`,
    status: 400,
  },
  { desc: 'a folded header', bytes: post('X: a\r\n b: c\r\nContent-Length: 0\r\n'), status: 400 },
  { desc: 'no host', bytes: 'GET /a HTTP/1.1\r\n\r\n', status: 400 },
  { desc: 'no HTTP at all', bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', status: 400 },
  { desc: 'the git protocol', bytes: '0032git-upload-pack /app.git\0host=x\0', status: 400 },
  { desc: 'a raw NUL in the path', bytes: 'GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n', status: 400 },
  {
    desc: 'a raw dot segment',
    bytes: 'GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n',
    status: 400,
  },
  {
    desc: 'a length beyond numbers',
    bytes: post(`Content-Length: ${'9'.repeat(40)}\r\n`),
    status: 400,
  },
  {
    desc: 'a length beyond the limit',
    bytes: post('Content-Length: 999999999999\r\n'),
    status: 413,
  },
  { desc: 'a large header', bytes: post(`X: ${'a'.repeat(40_000)}\r\n`), status: 431 },
  { desc: 'many headers', bytes: post('X: aaaaaaaa\r\n'.repeat(4_000)), status: 431 },
  {
    desc: 'a long target',
    bytes: `GET /${'a'.repeat(40_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    status: 431,
  },
  {
    desc: 'a malformed chunk',
    bytes: `${post('Transfer-Encoding: chunked\r\n')}3\r\nabc\r\nzz\r\n`,
    status: 400,
  },
  {
    desc: 'a chunk length beyond numbers',
    bytes: `${post('Transfer-Encoding: chunked\r\n')}${'f'.repeat(30)}\r\nabc`,
    status: 400,
  },
  {
    desc: 'a chunk longer than it says',
    bytes: `${post('Transfer-Encoding: chunked\r\n')}3\r\nabcdef\r\n0\r\n\r\n`,
    status: 400,
  },
  {
    desc: 'a body where none belongs',
    bytes: `GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd`,
    status: 400,
  },
] as const;

for (const { desc, bytes, status } of attacks) {
  test(`${desc}: ${status}, and nothing gets through`, async () => {
    const { port, requests, running } = await start({ limits: { maxPushBodyBytes: 1_000_000 } });
    const connection = await rawConnection(port, Buffer.from(bytes, 'latin1'));
    const answer = new RegExp(`^HTTP/1.1 ${status} [^]*\r\n\r\n[^]*[a-z].*\\.\n$`);
    await until('answered', () => answer.test(connection.received()) || connection.closed());
    assert.match(connection.received(), answer);
    connection.socket.destroy();
    await until('over', () => running() === 0);
    assert.ok(!requests.some((request) => request.path.includes('smuggled')));
    const next = await ask(port, { path: '/a/info/refs?service=git-upload-pack' });
    assert.equal(next.status, 200, 'the server goes on');
  });
}

test('a client that opens a connection and says nothing, or half a header, is sent away', async () => {
  const { port } = await start({ limits: { headersTimeoutMs: 100 } });
  const silent = await rawConnection(port);
  const slow = await rawConnection(port, 'GET /a HTTP/1.1\r\nHost: x\r\nX-A: ');
  const drip = setInterval(() => slow.socket.write('a'), 10);
  await until('both are closed', () => silent.closed() && slow.closed());
  clearInterval(drip);
  assert.match(slow.received(), /^HTTP\/1.1 408 /);
});

test('a client that stops in the middle of its body gets 408', async () => {
  // Not before the head of the request is read, on a machine that is busy.
  const { port, running } = await start({ limits: { idleTimeoutMs: 1_000 } });
  const connection = await rawConnection(port, `${post('Content-Length: 100\r\n')}half of it`);
  await until('answered', () => connection.received().length > 0);
  assert.match(connection.received(), /^HTTP\/1.1 408 /);
  assert.equal(running(), 0);
  await until('closed', () => connection.closed());
});

test('a client that does not read its answer is dropped', async () => {
  const { port, running } = await start({
    limits: { idleTimeoutMs: 1_000 },
    async run(_input, output, request) {
      while (!request.signal.aborted) {
        if (!output.write(Buffer.alloc(1_000_000))) {
          await new Promise((resolve) => output.once('drain', resolve).once('close', resolve));
        }
      }
      throw new QuorateError('cancelled', 'The client is gone.');
    },
  });
  const connection = await rawConnection(port);
  connection.socket.pause();
  connection.socket.write(post('Content-Length: 0\r\n'));
  await until('it runs', () => running() === 1);
  await until('it is ended', () => running() === 0);
  // It does not read that it was closed either.
  connection.socket.destroy();
});

test('git may work longer than a client may be silent', async () => {
  // A busy machine may take some hundred milliseconds for the request itself.
  const { port } = await start({
    limits: { idleTimeoutMs: 1_000 },
    async run(input, output) {
      await readAll(input);
      await new Promise((resolve) => setTimeout(resolve, 2_500));
      output.write(Buffer.from('done'));
      return ok;
    },
  });
  assert.equal((await ask(port, pushTo('/a/git-upload-pack', 'x'))).body.toString(), 'done');
});

test('a request that takes too long in all is ended', async () => {
  let aheadMs = 0;
  const clock = { ...systemClock, monotonicMs: () => performance.now() + aheadMs };
  const { port, running } = await start({
    clock,
    run: (_input, _output, request) =>
      new Promise((_resolve, reject) => {
        request.signal.addEventListener('abort', () => reject(new Error('aborted')));
      }),
  });
  const asked = ask(port, pushTo('/a/git-upload-pack', 'x'));
  await until('it runs', () => running() === 1);
  aheadMs = 7 * 3_600_000;
  assert.equal((await asked).status, 503);
});

test('a gzip bomb is cut off at the limit, in bounded memory', async () => {
  const limit = 10_000_000;
  let taken = 0;
  const { port } = await start({
    limits: { maxFetchBodyBytes: limit },
    async run(input, output) {
      for await (const chunk of input) taken += Buffer.from(chunk).length;
      output.write(Buffer.from('all of it'));
      return ok;
    },
  });
  const member = gzipSync(Buffer.alloc(32 * 1024 ** 2));
  const bomb = Buffer.concat(Array.from({ length: 32 }, () => member));
  const before = process.memoryUsage().rss;
  const answer = await ask(
    port,
    pushTo('/a/git-upload-pack', bomb, { 'Content-Encoding': 'gzip' }),
  );
  assert.equal(answer.status, 413);
  assert.ok(taken <= limit, `${taken} bytes were handed on`);
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 150_000_000, `memory grew by ${grown} bytes for 1 GiB of zeros`);
});

test('gzip that never yields a byte is cut off at the limit too', async () => {
  const { port, running } = await start({ limits: { maxFetchBodyBytes: 100_000 } });
  const header = Buffer.from('1f8b0800000000000003', 'hex');
  const emptyBlock = Buffer.from('000000ffff', 'hex');
  const connection = await rawConnection(
    port,
    'POST /a/git-upload-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  const blocks = Buffer.concat([header, ...Array.from({ length: 2_000 }, () => emptyBlock)]);
  const flood = setInterval(() => {
    connection.socket.write(`${blocks.length.toString(16)}\r\n`);
    connection.socket.write(blocks);
    connection.socket.write('\r\n');
  }, 1);
  await until('answered', () => connection.received().length > 0);
  clearInterval(flood);
  assert.match(connection.received(), /^HTTP\/1.1 4(13|00) /);
  connection.socket.destroy();
  await until('over', () => running() === 0);
});

const refusals = [
  { desc: '401', headers: basic('a', 'bad'), status: 401 },
  { desc: '403', headers: {}, status: 403 },
  { desc: '413', headers: { 'Content-Length': '30000001' }, status: 413 },
  { desc: '415', headers: { 'Content-Type': 'text/plain' }, status: 415 },
];

for (const { desc, headers, status } of refusals) {
  for (const chunked of [false, true]) {
    test(`${desc} is read by a client that is still sending (${chunked ? 'chunked' : 'length'})`, async () => {
      const { port } = await start({
        limits: { maxPushBodyBytes: 30_000_000 },
        open: () => {
          throw new QuorateError('permission-denied', 'You may not push here.');
        },
      });
      const body = Buffer.alloc(30_000_001, 'x');
      const framing = chunked ? { 'Transfer-Encoding': 'chunked' } : {};
      const { 'Content-Length': _length, ...rest } = { 'Content-Length': '', ...headers };
      const length = chunked || status === 413 ? {} : { 'Content-Length': String(body.length - 1) };
      const sent = chunked || status === 413 ? body : body.subarray(1);
      const answer = await ask(
        port,
        pushTo('/a/git-receive-pack', sent, { ...rest, ...framing, ...length }),
      );
      // The chunked body is refused before its size is known.
      assert.equal(answer.status, chunked && status === 413 ? 403 : status);
    });
  }
}

test('a chunked body that passes the limit gets 413', async () => {
  const { port } = await start({ limits: { maxPushBodyBytes: 1_000_000 } });
  const headers = { 'Transfer-Encoding': 'chunked' };
  const answer = await ask(port, pushTo('/a/git-receive-pack', Buffer.alloc(5_000_000), headers));
  assert.equal(answer.status, 413);
});

for (const reads of ['nothing', 'a part'] as const) {
  test(`a service that read ${reads} of a body: the rest is taken, and its answer arrives`, async () => {
    const { port } = await start({
      async run(input, output) {
        if (reads === 'a part') await input[Symbol.asyncIterator]().next();
        output.write(Buffer.from('refused early'));
        return ok;
      },
    });
    const answer = await ask(port, pushTo('/a/git-receive-pack', Buffer.alloc(20_000_000)));
    assert.equal(answer.body.toString(), 'refused early');
    // The server drains after its answer; a client that was cut off would have seen a reset.
    const slow = await rawConnection(port, post('Content-Length: 3000000\r\n'));
    slow.socket.write(Buffer.alloc(1_000_000));
    await until('answered', () => slow.received().includes('refused early'));
    slow.socket.write(Buffer.alloc(2_000_000));
    slow.socket.write('GET /a/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n');
    await until('the next is answered', () => slow.received().split('refused early').length === 3);
    slow.socket.destroy();
  });
}

test('connections of one address are limited, and come back', async () => {
  const { port } = await start({ limits: { maxConnectionsPerAddress: 2 } });
  const first = await rawConnection(port);
  const second = await rawConnection(port);
  const third = await rawConnection(port);
  await until('the third is answered', () => third.received().length > 0);
  assert.match(third.received(), /^HTTP\/1.1 429 [^]*Retry-After: 5\r\n/);
  await until('the third is closed', () => third.closed());
  first.socket.destroy();
  second.socket.destroy();
  await until('there is room', () => first.closed() && second.closed());
  await until('the next is served', () =>
    ask(port, { path: '/a/info/refs?service=git-upload-pack' }).then(
      (answer) => answer.status === 200,
      () => false,
    ),
  );
});

test('connections in all are limited', async () => {
  const { port } = await start({ limits: { maxConnections: 1 } });
  const first = await rawConnection(port);
  const second = await rawConnection(port);
  await until('answered', () => second.received().length > 0);
  assert.match(second.received(), /^HTTP\/1.1 503 /);
  first.socket.destroy();
});

test('a flood of pipelined requests closes the connection', async () => {
  const { port, running, requests } = await start({
    run: (_input, _output, request) =>
      new Promise((_resolve, reject) => {
        request.signal.addEventListener('abort', () => reject(new Error('aborted')));
      }),
  });
  const one = 'GET /a/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n';
  const connection = await rawConnection(port, one.repeat(100));
  await until('closed', () => connection.closed());
  await until('over', () => running() === 0);
  assert.ok(requests.length <= 8);
});
