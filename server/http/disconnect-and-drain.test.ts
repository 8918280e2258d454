import assert from 'node:assert/strict';
import { request as httpRequest, Agent } from 'node:http';
import { afterEach, test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import type { GitRequest } from '../core/git-request.js';
import {
  ask,
  deferred,
  type Fixture,
  ok,
  pushTo,
  rawConnection,
  readAll,
  type Run,
  startListener,
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

const whenAborted = (request: GitRequest): Promise<never> =>
  new Promise((_resolve, reject) => {
    request.signal.addEventListener('abort', () => reject(new Error('aborted')));
  });

const post =
  'POST /a/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: 1000\r\n\r\n';

const stages: readonly { desc: string; open?: (request: GitRequest) => Promise<void>; run: Run }[] =
  [
    { desc: 'while the repository is opened', open: whenAborted, run: () => Promise.resolve(ok) },
    {
      desc: 'while its body is read',
      async run(input) {
        await readAll(input);
        return ok;
      },
    },
    { desc: 'while git works', run: (_input, _output, request) => whenAborted(request) },
    {
      desc: 'while the answer is sent',
      async run(_input, output, request) {
        while (!request.signal.aborted) {
          if (output.write(Buffer.alloc(100_000))) continue;
          await new Promise<void>((resolve) => {
            const done = (): void => {
              output.off('drain', done).off('close', done);
              resolve();
            };
            output.on('drain', done).on('close', done);
          });
        }
        // Whoever waits for a slow client again and again must leave nothing behind each time.
        assert.ok(output.listenerCount('close') <= 3, 'listeners pile up on the answer');
        throw new Error('aborted');
      },
    },
  ];

for (const { desc, open, run } of stages) {
  test(`a client that leaves ${desc} ends everything that ran for it`, async () => {
    const fixture = await start({ run, ...(open === undefined ? {} : { open }) });
    const connection = await rawConnection(fixture.port, `${post}some of it`);
    await until('it runs', () => fixture.requests.length === 1);
    connection.socket.destroy();
    await until('logged', () => fixture.lines.length === 1);
    assert.equal(fixture.running(), 0);
    assert.equal(fixture.requests[0]?.signal.aborted, true);
    assert.notEqual(fixture.lines[0]?.fields['outcome'], 'ok');
    assert.ok(
      !fixture.lines.some((line) => line.message === 'request failed'),
      'leaving is no bug',
    );
    assert.equal((await ask(fixture.port, { path: '/nothing/HEAD' })).status, 403);
  });
}

test('one connection serves many requests', async () => {
  const { port } = await start();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const sockets = new Set();
  for (let round = 0; round < 20; round += 1) {
    await new Promise<void>((resolve, reject) => {
      const { body, ...options } = pushTo('/a/git-upload-pack', 'x'.repeat(round * 1000));
      const request = httpRequest({ host: '127.0.0.1', port, agent, ...options });
      request.on('error', reject);
      request.on('response', (response) => {
        sockets.add(response.socket);
        response.resume().on('end', resolve);
      });
      request.end(body);
    });
  }
  assert.equal(sockets.size, 1);
  agent.destroy();
});

test('a drain closes idle connections, lets a running request end, and accepts nothing new', async () => {
  const { port, listener, running } = await start({
    async run(input, output) {
      await readAll(input);
      output.write(Buffer.from('done'));
      return ok;
    },
  });
  const idle = await rawConnection(
    port,
    'GET /a/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n',
  );
  await until('answered', () => idle.received().includes('done'));
  const busy = await rawConnection(port, post);
  await until('it runs', () => running() === 1);
  let drained = false;
  const draining = listener.drain(60_000).then(() => (drained = true));
  await until('the idle one is closed', () => idle.closed());
  await assert.rejects(ask(port, { path: '/a' }));
  assert.equal(drained, false);
  busy.socket.write('x'.repeat(1000));
  await draining;
  await until('the answer is complete', () => busy.closed());
  assert.match(busy.received(), /^HTTP\/1.1 200 [^]*done$/);
});

test('a drain ends what outlasts its grace, with a 503 where nothing was sent', async () => {
  const { port, listener, running } = await start({
    run: (_input, _output, request) => whenAborted(request),
  });
  const busy = await rawConnection(port, `${post}${'x'.repeat(1000)}`);
  await until('it runs', () => running() === 1);
  await listener.drain(10);
  await until('closed', () => busy.closed());
  assert.match(busy.received(), /^HTTP\/1.1 503 /);
  assert.equal(running(), 0);
});

test('a push of unknown outcome that a drain ends gets no verdict', async () => {
  const { port, listener, running } = await start({
    run: (_input, _output, request) =>
      whenAborted(request).catch(() => {
        throw new QuorateError('outcome-unknown', 'the answer was lost');
      }),
  });
  const busy = await rawConnection(port, `${post}${'x'.repeat(1000)}`);
  await until('it runs', () => running() === 1);
  await listener.drain(10);
  await until('closed', () => busy.closed());
  assert.equal(busy.received(), '');
});

test('a drain ends even when the service does not listen to its signal', async () => {
  const { done, finish } = deferred();
  const { port, listener, running } = await start({ run: () => done.then(() => ok) });
  const busy = await rawConnection(port, `${post}${'x'.repeat(1000)}`);
  await until('it runs', () => running() === 1);
  await listener.drain(10);
  await until('closed', () => busy.closed());
  finish();
  await until('over', () => running() === 0);
});
