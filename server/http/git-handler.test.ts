import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { QuorateError, type ErrorCode } from '../../backends/contract/errors.js';
import type { Foresight } from '../core/git-request.js';
import { statusOfCode } from './error-map.js';
import { parseErrorPkt } from '../wire/pkt-line.js';
import {
  ask,
  basic,
  deferred,
  echo,
  type Fixture,
  ok,
  pushTo,
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
  for (const fixture of open.splice(0)) await fixture.close();
});

const noCache = {
  expires: 'Fri, 01 Jan 1980 00:00:00 GMT',
  pragma: 'no-cache',
  'cache-control': 'no-cache, max-age=0, must-revalidate',
};

for (const service of ['git-upload-pack', 'git-receive-pack'] as const) {
  test(`${service}: an empty body is one also to who asks for it late`, async () => {
    const { port } = await start({
      run: async (...exchange) => {
        await new Promise((resolve) => setImmediate(resolve));
        return echo(...exchange);
      },
    });
    const answer = await ask(port, pushTo(`/a/${service}`, '', { 'Content-Length': '0' }));
    assert.equal(answer.body.toString(), 'got:');
  });

  test(`${service}: advertisement and request have git's own headers`, async () => {
    const { port, requests } = await start();
    const refs = await ask(port, {
      path: `/team/app.git/info/refs?service=${service}`,
      headers: { 'Git-Protocol': 'version=2' },
    });
    assert.equal(refs.status, 200);
    assert.equal(refs.headers['content-type'], `application/x-${service}-advertisement`);
    for (const [name, value] of Object.entries(noCache)) assert.equal(refs.headers[name], value);
    assert.equal(refs.headers['content-length'], '4');
    const result = await ask(port, pushTo(`/team/app.git/${service}`, 'abc'));
    assert.equal(result.headers['content-type'], `application/x-${service}-result`);
    assert.equal(result.body.toString(), 'got:abc');
    for (const [name, value] of Object.entries(noCache)) assert.equal(result.headers[name], value);
    assert.deepEqual(
      requests.map((each) => [each.service, each.path, each.mode, each.protocol, each.transport]),
      [
        [service, '/team/app.git', 'advertise', 2, 'http'],
        [service, '/team/app.git', 'stateless', 0, 'http'],
      ],
    );
    assert.deepEqual(requests[0]?.principal, { kind: 'anonymous' });
    assert.equal(requests[0]?.remoteAddress, '127.0.0.1');
  });
}

test('HEAD is answered without a body', async () => {
  const { port } = await start();
  const answer = await ask(port, { method: 'HEAD', path: '/a/info/refs?service=git-upload-pack' });
  assert.equal(answer.status, 200);
  assert.equal(answer.body.length, 0);
});

const bodies = [
  { desc: 'with a length', headers: {}, encode: (body: Buffer) => body },
  { desc: 'chunked', headers: { 'Transfer-Encoding': 'chunked' }, encode: (body: Buffer) => body },
  { desc: 'gzip', headers: { 'Content-Encoding': 'gzip' }, encode: gzipSync },
  {
    desc: 'x-gzip, chunked',
    headers: { 'Content-Encoding': 'x-gzip', 'Transfer-Encoding': 'chunked' },
    encode: gzipSync,
  },
] as const;

for (const { desc, headers, encode } of bodies) {
  for (const size of [0, 1, 100_000, 3_000_000]) {
    test(`a body of ${size} bytes, ${desc}, arrives as it was`, async () => {
      const { port, lines } = await start();
      const body = Buffer.alloc(size, 'quorate ');
      const sent = encode(body);
      const answer = await ask(port, pushTo('/a/git-receive-pack', sent, headers));
      assert.equal(answer.status, 200);
      assert.ok(answer.body.equals(Buffer.concat([Buffer.from('got:'), body])));
      await until('logged', () => lines.length === 1);
      assert.equal(lines[0]?.fields['bytes_in'], sent.length);
      assert.equal(lines[0]?.fields['bytes_out'], body.length + 4);
    });
  }
}

const wrongForms = [
  { desc: 'no content type', headers: { 'Content-Type': '' }, status: 415 },
  {
    desc: 'the other content type',
    headers: { 'Content-Type': 'application/x-git-upload-pack-request' },
    status: 415,
  },
  { desc: 'a form', headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, status: 415 },
  { desc: 'an unknown encoding', headers: { 'Content-Encoding': 'br' }, status: 415 },
  { desc: 'gzip that is none', headers: { 'Content-Encoding': 'gzip' }, status: 400 },
  { desc: 'an unknown expectation', headers: { Expect: 'miracles' }, status: 417 },
];

for (const { desc, headers, status } of wrongForms) {
  test(`${desc}: ${status}, in one sentence, and the connection lives on`, async () => {
    const { port } = await start();
    const answer = await ask(port, pushTo('/a/git-receive-pack', 'body', headers));
    assert.equal(answer.status, status);
    assert.match(answer.body.toString(), /^[^\n]+\.\n$|application\/x-git/);
  });
}

for (const [code, status] of Object.entries(statusOfCode)) {
  if (code === 'outcome-unknown') continue;
  test(`${code} becomes ${status} when nothing was sent`, async () => {
    for (const at of ['open', 'run'] as const) {
      const { port } = await start(failing(at, asCode(code)));
      const answer = await ask(port, { path: '/a/info/refs?service=git-upload-pack' });
      assert.equal(answer.status, status);
      assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
      if (code === 'internal') assert.doesNotMatch(answer.body.toString(), /sentence/);
      else assert.equal(answer.body.toString(), 'This is the sentence.\n');
      if (status === 401) assert.equal(answer.headers['www-authenticate'], 'Basic realm="Quorate"');
      if (status === 503 || status === 429) assert.ok(answer.headers['retry-after']);
    }
  });
}

const toldByGit: readonly string[] = [
  'unavailable',
  'deadline-exceeded',
  'failed-precondition',
  'storage-failure',
  'data-corrupt',
  'internal',
];

for (const [code, status] of Object.entries(statusOfCode)) {
  if (code === 'outcome-unknown') continue;
  const told = toldByGit.includes(code);
  test(`${code} of a fetch's POST, of which git shows no text, is ${told ? 'an ERR packet' : status}`, async () => {
    for (const at of ['open', 'run'] as const) {
      const { port } = await start(failing(at, asCode(code)));
      const answer = await ask(port, pushTo('/a/git-upload-pack', '0000'));
      assert.equal(answer.status, told ? 200 : status);
      if (!told) continue;
      assert.equal(answer.headers['content-type'], 'application/x-git-upload-pack-result');
      const message = parseErrorPkt(answer.body.subarray(4));
      if (code === 'internal') assert.match(message ?? '', /its log has the details as/);
      else assert.equal(message, 'This is the sentence.');
      const push = await ask(port, pushTo('/a/git-receive-pack', '0000'));
      assert.equal(push.status, status, 'a push has its report; what comes before it is HTTP');
    }
  });
}

function failing(at: 'open' | 'run', code: ErrorCode): Parameters<typeof startListener>[0] {
  const fail = (): Promise<never> =>
    Promise.reject(new QuorateError(code, 'This is the sentence.'));
  return at === 'open' ? { open: fail } : { run: fail };
}

function asCode(code: string): ErrorCode {
  const codes = Object.keys(statusOfCode).filter((each): each is ErrorCode => each === code);
  assert.ok(codes[0] !== undefined);
  return codes[0];
}

test('outcome-unknown closes the connection without a verdict', async () => {
  const { port } = await start({
    run: () => Promise.reject(new QuorateError('outcome-unknown', 'The answer was lost.')),
  });
  await assert.rejects(ask(port, pushTo('/a/git-receive-pack', 'x')));
});

test('a failure after the first byte breaks the connection instead of ending the answer', async () => {
  const { port } = await start({
    async run(_input, output) {
      output.write(Buffer.alloc(100_000));
      await new Promise((resolve) => setImmediate(resolve));
      throw new QuorateError('storage-failure', 'The disk is gone.');
    },
  });
  await assert.rejects(ask(port, pushTo('/a/git-upload-pack', 'x')));
});

test('bytes that are not followed at once are sent, chunked, without waiting for the end', async () => {
  const { done, finish } = deferred();
  const { port } = await start({
    async run(_input, output) {
      output.write(Buffer.from('first'));
      await done;
      output.write(Buffer.from(' last'));
      return ok;
    },
  });
  const response = await fetch(`http://127.0.0.1:${port}/a/info/refs?service=git-upload-pack`);
  assert.equal(response.headers.get('transfer-encoding'), 'chunked');
  const reader = response.body?.getReader();
  const first = await reader?.read();
  assert.equal(Buffer.from(first?.value ?? []).toString(), 'first');
  finish();
  const last = await reader?.read();
  assert.equal(Buffer.from(last?.value ?? []).toString(), ' last');
  assert.equal((await reader?.read())?.done, true);
});

test('a token is accepted as the password of any user name, and as a bearer', async () => {
  const { port, requests, audited, counts } = await start();
  const path = '/a/info/refs?service=git-upload-pack';
  for (const headers of [
    basic('ann', 'good-token'),
    basic('somebody-else', 'good-token'),
    basic('', 'good-token'),
    { Authorization: 'Bearer good-token' },
  ]) {
    assert.equal((await ask(port, { path, headers })).status, 200);
  }
  for (const { principal } of requests)
    assert.equal(principal.kind === 'user' && principal.name, 'ann');
  assert.equal(audited.length, 4);
  assert.deepEqual(audited[0]?.details, { how: 'token', token: 't1' });
  assert.ok(counts.includes('authentications http ok'));
  assert.doesNotMatch(JSON.stringify(audited), /good-token/);
});

test('wrong credentials get 401, are audited, and after some of them 429', async () => {
  const { port, requests, audited } = await start({
    limits: { maxAuthenticationFailuresPerMinute: 3 },
  });
  const path = '/a/info/refs?service=git-upload-pack';
  for (const headers of [
    basic('ann', 'bad'),
    { Authorization: 'Bearer bad' },
    { Authorization: 'Digest x' },
  ]) {
    const answer = await ask(port, { path, headers });
    assert.equal(answer.status, 401);
    assert.equal(answer.headers['www-authenticate'], 'Basic realm="Quorate"');
  }
  assert.deepEqual(
    audited.map((event) => event.outcome),
    ['refused', 'refused', 'refused'],
  );
  const throttled = await ask(port, { path, headers: basic('ann', 'good-token') });
  assert.equal(throttled.status, 429);
  assert.ok(Number(throttled.headers['retry-after']) > 0);
  assert.equal(requests.length, 0);
  assert.equal(
    (await ask(port, { path })).status,
    200,
    'who sends no credentials is not throttled',
  );
});

test('without authentication everybody is trusted and credentials are not looked at', async () => {
  const { port, requests } = await start({ noAuth: true });
  const answer = await ask(port, {
    path: '/a/info/refs?service=git-receive-pack',
    headers: basic('x', 'bad'),
  });
  assert.equal(answer.status, 200);
  assert.deepEqual(requests[0]?.principal, { kind: 'trusted' });
});

function foresightOf(name: string): Foresight {
  return { name, beganMs: 0, repository: Promise.resolve(undefined) };
}

test('the repository is looked up while it is asked who comes, for who is to be asked about', async () => {
  const foreseen: string[] = [];
  const { port, requests } = await start({
    foresee({ path, service }) {
      foreseen.push(`${service} ${path}`);
      return foresightOf(path);
    },
  });
  const path = '/a/info/refs?service=git-receive-pack';
  await ask(port, { path, headers: basic('x', 'good-token') });
  await ask(port, { path: '/b/info/refs?service=git-upload-pack' });
  assert.deepEqual(foreseen, ['git-receive-pack /a']);
  assert.deepEqual(
    requests.map(({ foresight }) => foresight?.name),
    ['/a', undefined],
  );
  const refused = await ask(port, { path, headers: basic('x', 'bad') });
  assert.equal(refused.status, 401);
});

test('100 Continue is sent after authorisation, and not at all to who is refused', async () => {
  const { port } = await start({
    open(request) {
      if (request.principal.kind === 'anonymous')
        throw new QuorateError('unauthenticated', 'Sign in.');
    },
  });
  const expecting = { Expect: '100-continue' };
  const refused = await ask(port, pushTo('/a/git-receive-pack', 'body', expecting));
  assert.deepEqual([refused.status, refused.continued], [401, false]);
  assert.equal(refused.headers.connection, 'close');
  const wrong = await ask(
    port,
    pushTo('/a/git-receive-pack', 'body', { ...expecting, ...basic('a', 'bad') }),
  );
  assert.deepEqual([wrong.status, wrong.continued], [401, false]);
  const allowed = await ask(
    port,
    pushTo('/a/git-receive-pack', 'body', { ...expecting, ...basic('a', 'good-token') }),
  );
  assert.deepEqual([allowed.status, allowed.continued], [200, true]);
  assert.equal(allowed.body.toString(), 'got:body');
});

test('a person with a browser is told how to clone, if the repository may be seen', async () => {
  const { port } = await start({
    open(request) {
      if (!request.path.startsWith('/app'))
        throw new QuorateError('not-found', 'There is no such repository.');
    },
  });
  const page = await ask(port, { path: '/app.git/' });
  assert.equal(page.status, 200);
  assert.match(page.body.toString(), new RegExp(`git clone http://127.0.0.1:${port}/app.git\n`));
  const spoofed = await ask(port, { path: '/app', headers: { Host: 'x;rm -rf ~' } });
  assert.doesNotMatch(spoofed.body.toString(), /rm/);
  assert.equal((await ask(port, { path: '/hidden' })).status, 404);
});

test('a request is logged with its facts and counted', async () => {
  const { port, lines, counts } = await start({
    async run(input, output) {
      for await (const chunk of input) output.write(chunk);
      return { status: 'refused', exitCode: 0, fields: { refs: 3 } };
    },
  });
  await ask(port, pushTo('/team/app.git/git-receive-pack', 'abc', basic('ann', 'good-token')));
  await until('logged', () => lines.length === 1);
  const { duration_ms: durationMs, request_id: requestId, ...fields } = lines[0]?.fields ?? {};
  assert.equal(typeof durationMs, 'number');
  assert.match(String(requestId), /^[0-9a-f]{12}-\w+$/);
  assert.deepEqual(fields, {
    component: 'http',
    principal: 'ann',
    remote_address: '127.0.0.1',
    repo: 'the-id',
    path: '/team/app.git',
    service: 'git-receive-pack',
    step: 'rpc',
    status: 200,
    outcome: 'refused',
    bytes_in: 3,
    bytes_out: 3,
    refs: 3,
  });
  assert.ok(counts.includes('requests http git-receive-pack refused'));
});

test('a refusal carries the request id of its log line', async () => {
  const { port, lines } = await start({
    open() {
      throw new QuorateError('not-found', 'There is no such repository.');
    },
  });
  for (const path of ['/a/info/refs?service=git-upload-pack', '/a/info/refs', '/a/HEAD']) {
    const seen = lines.length;
    const { headers } = await ask(port, { path });
    assert.match(String(headers['x-request-id']), /^[0-9a-f]{12}-\w+$/, path);
    if (!path.includes('service=')) continue;
    await until('logged', () => lines.length > seen);
    assert.equal(lines.at(-1)?.fields['request_id'], headers['x-request-id']);
  }
});

test('what the service has ready goes out at once, and is logged like every answer', async () => {
  const asked: string[] = [];
  const { port, lines, running } = await start({
    known: (request) => {
      asked.push(request.toString());
      const outcome = { status: 'ok', exitCode: 0, fields: { refs: 1 } } as const;
      return asked.length === 1 ? undefined : { text: 'ready \u00ff', outcome };
    },
  });
  const first = await ask(port, pushTo('/a/git-upload-pack', 'question'));
  assert.equal(first.body.toString(), 'got:question', 'what is not ready is served from the body');
  const second = await ask(port, pushTo('/a/git-upload-pack', 'question'));
  assert.equal(second.status, 200);
  assert.deepEqual(second.body, Buffer.from('ready \u00ff', 'latin1'));
  assert.equal(second.headers['content-type'], first.headers['content-type']);
  assert.equal(second.headers['cache-control'], first.headers['cache-control']);
  assert.deepEqual(asked, ['question', 'question']);
  assert.equal(running(), 0);
  await until('logged', () => lines.length === 2);
  const { status, bytes_in: bytesIn, bytes_out: bytesOut, refs } = lines[1]?.fields ?? {};
  assert.deepEqual(
    { status, bytesIn, bytesOut, refs },
    {
      status: 200,
      bytesIn: 8,
      bytesOut: 7,
      refs: 1,
    },
  );
});

test('the admin API is handed its requests, and its 401s count for throttling', async () => {
  const { port } = await start({
    limits: { maxAuthenticationFailuresPerMinute: 2 },
    adminApi: (request, response) => response.writeHead(401).end(`api ${request.url}`),
  });
  const first = await ask(port, { path: '/api/users', headers: basic('', 'bad') });
  assert.equal(first.body.toString(), 'api /api/users');
  await ask(port, { path: '/api/users', headers: basic('', 'bad') });
  assert.equal((await ask(port, { path: '/api/users', headers: basic('', 'bad') })).status, 429);
  assert.equal((await ask(port, { path: '/api/users' })).status, 401);
});
