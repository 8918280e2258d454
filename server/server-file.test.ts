import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverFile, urlsFromAfar } from './server-file.js';

const config = { 'tls.cert': undefined };
const everywhere = {
  http: { host: '0.0.0.0', port: 8080 },
  ssh: { host: '::', port: 2222 },
  ops: { host: '127.0.0.1', port: 9090 },
};

test('a server on all addresses is told of from afar by its own, and beside it by the loopback', () => {
  const { httpUrl, sshUrl, opsUrl } = serverFile(everywhere, { config, version: '1' });
  assert.deepEqual(
    [httpUrl, sshUrl, opsUrl],
    ['http://127.0.0.1:8080', 'ssh://git@[::1]:2222', 'http://127.0.0.1:9090'],
  );
  assert.deepEqual(urlsFromAfar(everywhere, { config, ownHost: '10.0.0.7' }), {
    httpUrl: 'http://10.0.0.7:8080',
    sshUrl: 'ssh://git@10.0.0.7:2222',
    // Nobody else reaches what listens on the loopback.
    opsUrl: 'http://127.0.0.1:9090',
  });
  const secure = urlsFromAfar(everywhere, {
    config: { 'tls.cert': 'cert.pem' },
    ownHost: 'fd00::7',
  });
  assert.equal(secure.httpUrl, 'https://[fd00::7]:8080');
});
