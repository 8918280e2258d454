import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { noRetry, QuorateError } from '../../backends/contract/errors.js';
import { newKey } from './testing/access-table.js';
import { ApiScene, objectIn } from './testing/api-scene.js';

let scene: ApiScene;
let admin: string;

beforeEach(async () => {
  scene = await ApiScene.open();
  admin = await scene.token('root', { admin: true });
});
afterEach(async () => await scene.close());

describe('requests that do not fit', () => {
  const cases = [
    {
      desc: 'an unknown field is named',
      request: ['POST', '/users', { name: 'ann', role: 'x' }],
      status: 400,
      says: /^role: unknown field$/,
    },
    {
      desc: 'every unknown field is named',
      request: ['POST', '/users', { name: 'ann', a: 1, b: 2 }],
      status: 400,
      says: /a: unknown field; b: unknown field/,
    },
    {
      desc: 'a missing field is named',
      request: ['POST', '/users', {}],
      status: 400,
      says: /^name: a user name is wanted$/,
    },
    {
      desc: 'a wrong type is named',
      request: ['POST', '/users', { name: 'ann', admin: 'yes' }],
      status: 400,
      says: /^admin: /,
    },
    {
      desc: 'an unknown parameter of a query',
      request: ['GET', '/repositories?limt=3'],
      status: 400,
      says: /^limt: unknown field$/,
    },
    {
      desc: 'a limit out of range',
      request: ['GET', '/repositories?limit=0'],
      status: 400,
      says: /^limit: has to be/,
    },
    {
      desc: 'a level that there is not',
      request: ['PUT', '/repositories/team%2Fapp/grants/root', { level: 'owner' }],
      status: 400,
      says: /^level: has to be read, write or admin$/,
    },
    {
      desc: 'an event that there is not',
      request: ['GET', '/audit?event=pushes'],
      status: 400,
      says: /^event: has to be authentication, access, limit, push or admin$/,
    },
    {
      desc: 'a setting that is nearly one',
      request: ['PATCH', '/repositories/team%2Fapp', { settings: { 'receive.denyDelete': 'x' } }],
      status: 400,
      says: /did you mean receive\.denyDeletes\?/,
    },
    {
      desc: 'a setting in the wrong section',
      request: ['PATCH', '/repositories/team%2Fapp', { settings: { 'transfer.fsckObjects': 'x' } }],
      status: 400,
      says: /did you mean receive\.fsckObjects\?/,
    },
    {
      desc: 'a setting like no other gets the whole list',
      request: ['PATCH', '/repositories/team%2Fapp', { settings: { colour: 'x' } }],
      status: 400,
      says: /there are receive\.denyDeletes, .*uploadpack\.allowFilter/,
    },
    {
      desc: 'a value that does not fit its setting',
      request: [
        'PATCH',
        '/repositories/team%2Fapp',
        { settings: { 'receive.maxInputSize': 'big' } },
      ],
      status: 400,
      says: /^settings\.receive\.maxInputSize: wants a whole number/,
    },
    {
      desc: 'a message id that git fsck does not have',
      request: [
        'PATCH',
        '/repositories/team%2Fapp',
        { settings: { 'receive.fsck.ignore': 'badDate,zeroPadedFilemode' } },
      ],
      status: 400,
      says: /"zeroPadedFilemode" is none$/,
    },
    {
      desc: 'a branch name that git refuses',
      request: ['PUT', '/repositories/team%2Fapp/head', { branch: 'a..b' }],
      status: 400,
      says: /^branch: is not a branch name/,
    },
    {
      desc: 'a repository name that climbs',
      request: ['POST', '/repositories', { name: '../x' }],
      status: 400,
      says: /./,
    },
    {
      desc: 'what is no JSON',
      request: ['POST', '/users', '{"name":'],
      status: 400,
      says: /not valid JSON/,
    },
    {
      desc: 'a body of half a megabyte is read',
      request: ['POST', '/users', JSON.stringify({ name: 'x'.repeat(512 * 1024) })],
      status: 400,
      says: /^name: /,
    },
    {
      desc: 'a body that is too large',
      request: ['POST', '/users', JSON.stringify({ name: 'x'.repeat(1024 * 1024) })],
      status: 413,
      says: /larger than 1 MiB/,
    },
    {
      desc: 'a user that exists',
      request: ['POST', '/users', { name: 'root' }],
      status: 409,
      says: /user root/,
    },
    {
      desc: 'a path that there is not',
      request: ['GET', '/nothing'],
      status: 404,
      says: /no such path/,
    },
    {
      desc: 'a method that there is not',
      request: ['DELETE', '/users'],
      status: 405,
      says: /takes GET, POST only/,
    },
    {
      desc: 'broken percent-encoding',
      request: ['GET', '/repositories/%E0%A4%A'],
      status: 400,
      says: /percent-encoding/,
    },
    {
      desc: 'disabling oneself',
      request: ['PATCH', '/users/root', { disabled: true }],
      status: 409,
      says: /cannot disable yourself/,
    },
  ] as const;

  for (const { desc, request, status, says } of cases) {
    test(desc, async () => {
      await scene.createRepository('team/app');
      const [method, path, body] = request;
      const answer = await scene.request(method, path, { token: admin, body });
      assert.equal(answer.status, status, answer.text);
      assert.match(messageOf(answer.text), says);
    });
  }

  test('a body of another type', async () => {
    const headers = { 'Content-Type': 'text/plain' };
    const answer = await scene.request('POST', '/users', { token: admin, body: '{}', headers });
    assert.equal(answer.status, 415);
  });

  test('a compressed body', async () => {
    const headers = { 'Content-Encoding': 'gzip' };
    const answer = await scene.request('POST', '/users', { token: admin, body: '{}', headers });
    assert.equal(answer.status, 415);
  });

  test('a change asked for by a web page', async () => {
    const headers = { Origin: 'https://evil.example' };
    const body = { name: 'ann' };
    const answer = await scene.request('POST', '/users', { token: admin, body, headers });
    assert.equal(answer.status, 403);
    assert.equal(await scene.accounts.getUser('ann'), undefined);
  });

  test('anonymous changes are refused before their body is read', async () => {
    const socket = connect(Number(new URL(scene.url).port), '127.0.0.1');
    socket.write('POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n');
    socket.write('Content-Type: application/json\r\n\r\n{');
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    assert.match(answer, /^HTTP\/1\.1 401 /);
  });
});

test('an error is a problem (RFC 9457)', async () => {
  const answer = await scene.request('POST', '/users', { token: admin, body: { name: 'root' } });
  assert.equal(answer.headers.get('content-type'), 'application/problem+json; charset=utf-8');
  assert.deepEqual(answer.body, {
    type: 'urn:quorate:problem:already-exists',
    title: 'It exists already',
    status: 409,
    detail: 'there is a user root already',
    instance: answer.headers.get('x-request-id'),
    code: 'already-exists',
    details: {},
  });
});

describe('signing in', () => {
  const cases = [
    {
      desc: 'Basic, token as the password',
      header: (t: string) => `Basic ${encoded(`x:${t}`)}`,
      status: 200,
    },
    { desc: 'scheme in lower case', header: (t: string) => `bearer ${t}`, status: 200 },
    {
      desc: 'Basic, token as the user',
      header: (t: string) => `Basic ${encoded(`${t}:`)}`,
      status: 401,
    },
    { desc: 'another scheme', header: (t: string) => `Digest ${t}`, status: 401 },
    {
      desc: 'an endless header',
      header: (t: string) => `Bearer ${t}${'x'.repeat(4000)}`,
      status: 401,
    },
  ];
  for (const { desc, header, status } of cases) {
    test(desc, async () => {
      const headers = { Authorization: header(admin) };
      const answer = await scene.request('GET', '/users', { headers });
      assert.equal(answer.status, status);
      const challenged = (answer.headers.get('www-authenticate') ?? '').includes('Bearer');
      assert.equal(challenged, status === 401);
      const [event] = scene.audited;
      assert.equal(event?.event, 'authentication');
      assert.equal(event?.outcome, status === 200 ? 'ok' : 'refused');
    });
  }

  test('a disabled user is nobody', async () => {
    const token = await scene.token('ann');
    await scene.request('PATCH', '/users/ann', { token: admin, body: { disabled: true } });
    assert.equal((await scene.request('GET', '/keys', { token })).status, 401);
    const refused = scene.audited.find(({ outcome }) => outcome === 'refused');
    assert.deepEqual([refused?.actor, refused?.details['problem']], ['ann', 'disabled user']);
  });

  test('a token that expires makes none that lives longer', async () => {
    const token = await scene.token('ann', { expiresAtMs: Date.now() + 3_600_000 });
    const make = async (life: object) =>
      (await scene.request('POST', '/tokens', { token, body: { user: 'ann', ...life } })).status;
    assert.equal(await make({}), 403);
    assert.equal(await make({ expiresInSeconds: 7200 }), 403);
    assert.equal(await make({ expiresInSeconds: 60 }), 201);
  });
});

describe('what is left behind', () => {
  test('the secret of a token is answered once and written nowhere', async () => {
    const body = { user: 'root', name: 'laptop', scope: 'read' };
    const answer = await scene.request('POST', '/tokens', { token: admin, body });
    const secret = String(answer.body?.['secret']);
    assert.notEqual(await scene.accounts.authenticateToken(secret), undefined);
    const list = await scene.request('GET', '/tokens', { token: admin });
    const traces = [list.text, JSON.stringify(scene.audited), ...scene.logged].join('\n');
    assert.match(traces, /laptop/);
    assert.ok(!traces.includes(secret) && !traces.includes(admin));
  });

  test('a request id is in the header, the log and the audit event', async () => {
    const answer = await scene.request('POST', '/users', { token: admin, body: { name: 'ann' } });
    const id = answer.headers.get('x-request-id') ?? '';
    assert.match(id, /^[0-9a-f]{16}$/);
    assert.ok(scene.logged.some((line) => line.includes(id)));
    const event = scene.audited.find(({ event }) => event === 'admin');
    assert.equal(event?.requestId, id);
    assert.deepEqual(event?.details, {
      action: 'user.create',
      name: 'ann',
      admin: false,
      canCreate: true,
    });
  });

  test('a bug tells the log, and the client only where to look', async () => {
    await scene.createRepository('team/app');
    scene.backend.repositories.stats = async () => {
      throw new Error('ENOENT /srv/data/secret-place');
    };
    const answer = await scene.request('GET', '/repositories/team%2Fapp', { token: admin });
    assert.equal(answer.status, 500);
    assert.ok(!answer.text.includes('secret-place'));
    assert.ok(scene.logged.some((line) => line.includes('secret-place')));
  });

  test('trouble that passes says when to come back', async () => {
    scene.backend.status = async () => {
      throw new QuorateError('unavailable', 'the server is starting');
    };
    const answer = await scene.request('GET', '/status', { token: admin });
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get('retry-after'), '2');
  });

  test('trouble that waiting does not mend says nothing of trying again', async () => {
    for (const error of [
      new QuorateError('unavailable', 'an older copy: recover', { details: { ...noRetry } }),
      new QuorateError('resource-exhausted', 'at most 5 rules can be set here'),
      new QuorateError('not-found', 'there is none'),
      new QuorateError('data-corrupt', 'frozen'),
    ]) {
      scene.backend.status = async () => {
        throw error;
      };
      const { headers, status } = await scene.request('GET', '/status', { token: admin });
      assert.ok(status >= 400);
      assert.equal(headers.get('retry-after'), null, error.message);
    }
  });
});

const post = (path: string, body: object, key: string, token = admin) =>
  scene.request('POST', path, { token, body, headers: { 'Idempotency-Key': key } });

describe('Idempotency-Key', () => {
  test('the same request again gets the same answer, and nothing is done twice', async () => {
    const first = await post('/users', { name: 'ann' }, 'k1');
    const again = await post('/users', { name: 'ann' }, 'k1');
    assert.equal(first.status, 201);
    assert.deepEqual([again.status, again.text], [first.status, first.text]);
    const body = { user: 'root', name: 'ci' };
    const both = await Promise.all([post('/tokens', body, 'k2'), post('/tokens', body, 'k2')]);
    assert.equal(both[0].text, both[1].text);
    const made = (await scene.accounts.listTokens('root')).filter(({ name }) => name === 'ci');
    assert.equal(made.length, 1);
    assert.equal(scene.audited.filter(({ details }) => details['repeated'] === true).length, 2);
  });

  test('a different request with the same key is refused, and so is a key that is none', async () => {
    await post('/users', { name: 'ann' }, 'k1');
    const other = await post('/users', { name: 'bob' }, 'k1');
    assert.deepEqual([other.status, other.body?.['code']], [409, 'already-exists']);
    assert.equal(await scene.accounts.getUser('bob'), undefined);
    assert.equal((await post('/users', { name: 'bob' }, 'two words')).status, 400);
  });

  test('a failure is tried again; the answer is for its own token only', async () => {
    assert.equal((await post('/users', { name: 'root' }, 'k1')).status, 409);
    assert.equal((await post('/users', { name: 'ann' }, 'k1')).status, 201);
    const body = { user: 'root', scope: 'admin' };
    const secret = (await post('/tokens', body, 'k2')).body?.['secret'];
    const lesser = await scene.token('root', { scope: 'read' });
    const stolen = await post('/tokens', body, 'k2', lesser);
    assert.equal(stolen.status, 403);
    assert.ok(!stolen.text.includes(String(secret)));
  });
});

test('lists come in pages', async () => {
  for (const name of ['ann', 'bob', 'cem', 'dan']) {
    await scene.token(name);
    await scene.accounts.addKey(name, newKey());
  }
  for (const [path, rows, total] of [
    ['/users', 'users', 5],
    ['/keys', 'keys', 4],
    ['/tokens', 'tokens', 5],
  ] as const) {
    const whole = await scene.request('GET', path, { token: admin });
    assert.equal(whole.body?.['next'], null);
    const all = Object.values(objectIn(whole.body, rows));
    assert.equal(all.length, total);
    const found: unknown[] = [];
    let after = '';
    for (;;) {
      const page = await scene.request('GET', `${path}?limit=2${after}`, { token: admin });
      const part = Object.values(objectIn(page.body, rows));
      assert.ok(part.length <= 2);
      found.push(...part);
      const next = page.body?.['next'];
      if (typeof next !== 'string') break;
      after = `&after=${encodeURIComponent(next)}`;
    }
    assert.deepEqual(found, all);
  }
  assert.equal((await scene.request('GET', '/users?limit=0', { token: admin })).status, 400);
});

function encoded(text: string): string {
  return Buffer.from(text).toString('base64');
}

function messageOf(text: string): string {
  const { detail } = objectIn({ problem: JSON.parse(text) }, 'problem');
  return String(detail);
}
