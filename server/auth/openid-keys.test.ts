import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { after, before, beforeEach, test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { unused } from './memory-coordinator.fixture.js';
import { issuerUrlProblem, KeySets } from './openid-keys.js';

let server: Server;
let url = '';
let asked: string[] = [];
let answer: (path: string) => { readonly status: number; readonly body: string };
let now = 0;
const clock: Clock = { nowMs: () => now, monotonicMs: () => now, sleep: unused };

before(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? '');
    const { status, body } = answer(request.url ?? '');
    response.writeHead(status, { Location: `${url}/keys` }).end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  url = `http://127.0.0.1:${address.port}`;
});
after(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
beforeEach(() => {
  asked = [];
  now = 1_000_000;
});

const token = { payload: '', signature: '', protected: '' };

/** Asks for a key that there is not. */
async function ask(keySets: KeySets, jwksUrl: string | null): Promise<string> {
  try {
    const keySet = await keySets.of(url, jwksUrl);
    await keySet({ alg: 'ES256', kid: 'x' }, token);
    return 'found';
  } catch (error) {
    return error instanceof QuorateError ? error.code : 'no such key';
  }
}

test('an issuer that is down is asked again only after a while', async () => {
  for (const jwksUrl of [null, `${url}/keys`]) {
    asked = [];
    const keySets = new KeySets(clock, 10);
    answer = () => ({ status: 500, body: '' });
    for (let n = 0; n < 5; n++) assert.equal(await ask(keySets, jwksUrl), 'unavailable');
    assert.equal(asked.length, 1);
    now += 30_000;
    answer = (path) =>
      path === '/keys'
        ? { status: 200, body: '{"keys":[]}' }
        : { status: 200, body: JSON.stringify({ issuer: url, jwks_uri: `${url}/keys` }) };
    assert.equal(await ask(keySets, jwksUrl), 'no such key');
  }
});

test('what an issuer says is not believed when it does not fit', async () => {
  const wrong = [
    '{',
    '{}',
    JSON.stringify({ issuer: 'https://else.example.org', jwks_uri: `${url}/keys` }),
    JSON.stringify({ issuer: url, jwks_uri: 'http://192.0.2.1/keys' }),
    JSON.stringify({ issuer: url, jwks_uri: 'file:///etc/passwd' }),
    ' '.repeat(300 * 1024),
  ];
  for (const body of wrong) {
    answer = () => ({ status: 200, body });
    assert.equal(await ask(new KeySets(clock, 10), null), 'unavailable', body.slice(0, 80));
  }
  assert.deepEqual([...new Set(asked)], ['/.well-known/openid-configuration']);
  answer = () => ({ status: 302, body: '' });
  asked = [];
  assert.equal(await ask(new KeySets(clock, 10), `${url}/moved`), 'unavailable');
  assert.deepEqual(asked, ['/moved']);
});

test('keys come over https, or from this machine', () => {
  for (const good of ['https://example.org', 'http://127.0.0.1:1', 'http://[::1]:1/x']) {
    assert.equal(issuerUrlProblem(good), undefined, good);
  }
  const bad = [
    'http://example.org',
    'http://127.0.0.1.example.org',
    'ftp://x',
    'x',
    'https://a:b@c',
  ];
  for (const text of bad) assert.notEqual(issuerUrlProblem(text), undefined, text);
});
