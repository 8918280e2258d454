import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HttpRefusal } from './error-map.js';
import { routeOf } from './route.js';

const served = [
  [
    'GET',
    '/team/app.git/info/refs?service=git-upload-pack',
    'advertise',
    'git-upload-pack',
    '/team/app.git',
  ],
  ['HEAD', '/app/info/refs?service=git-receive-pack', 'advertise', 'git-receive-pack', '/app'],
  ['GET', '/app/info/refs?x=1&service=git-upload-pack', 'advertise', 'git-upload-pack', '/app'],
  ['POST', '/a%20b/git-upload-pack', 'rpc', 'git-upload-pack', '/a b'],
  ['POST', '/%C3%A9.git/git-receive-pack?x', 'rpc', 'git-receive-pack', '/é.git'],
  ['POST', '/a%252f/git-upload-pack', 'rpc', 'git-upload-pack', '/a%2f'],
  [
    'GET',
    'http://host:1/app/info/refs?service=git-upload-pack',
    'advertise',
    'git-upload-pack',
    '/app',
  ],
  ['GET', '/team/app.git', 'page', undefined, '/team/app.git'],
  ['GET', '/team/app/', 'page', undefined, '/team/app/'],
  ['GET', '/team/objects', 'page', undefined, '/team/objects'],
  ['DELETE', '/api/repositories/x', 'api', undefined, undefined],
  ['GET', '/api', 'api', undefined, undefined],
] as const;

for (const [method, target, kind, service, path] of served) {
  test(`${method} ${target} is ${kind}`, () => {
    assert.deepEqual(
      { service: undefined, path: undefined, ...routeOf(method, target) },
      { kind, service, path },
    );
  });
}

const refused = [
  { desc: 'dumb info/refs', method: 'GET', target: '/app.git/info/refs', status: 403 },
  { desc: 'dumb HEAD', method: 'GET', target: '/app.git/HEAD', status: 403 },
  { desc: 'dumb pack list', method: 'GET', target: '/app.git/objects/info/packs', status: 403 },
  {
    desc: 'dumb loose object',
    method: 'GET',
    target: `/app.git/objects/ab/${'0'.repeat(38)}`,
    status: 403,
  },
  {
    desc: 'dumb pack',
    method: 'GET',
    target: `/a/objects/pack/pack-${'0'.repeat(40)}.idx`,
    status: 403,
  },
  {
    desc: 'archive advertisement',
    method: 'GET',
    target: '/a/info/refs?service=git-upload-archive',
    status: 403,
  },
  { desc: 'archive over HTTP', method: 'POST', target: '/a/git-upload-archive', status: 403 },
  { desc: 'unknown service', method: 'GET', target: '/a/info/refs?service=git-shell', status: 403 },
  { desc: 'empty service', method: 'GET', target: '/a/info/refs?service=', status: 403 },
  {
    desc: 'POST to info/refs',
    method: 'POST',
    target: '/a/info/refs?service=git-upload-pack',
    status: 405,
  },
  { desc: 'GET of an rpc', method: 'GET', target: '/a/git-receive-pack', status: 405 },
  { desc: 'PUT', method: 'PUT', target: '/a', status: 405 },
  { desc: 'the root', method: 'GET', target: '/', status: 404 },
  { desc: 'dot segment', method: 'GET', target: '/a/../b', status: 400 },
  { desc: 'encoded dot segment', method: 'GET', target: '/a/%2e%2e/b', status: 400 },
  { desc: 'trailing dot segment', method: 'GET', target: '/a/..', status: 400 },
  {
    desc: 'encoded slash',
    method: 'GET',
    target: '/..%2fetc/info/refs?service=git-upload-pack',
    status: 400,
  },
  { desc: 'encoded backslash', method: 'GET', target: '/a%5c..', status: 400 },
  { desc: 'encoded NUL', method: 'GET', target: '/a%00.git', status: 400 },
  { desc: 'invalid UTF-8', method: 'GET', target: '/a%ff', status: 400 },
  { desc: 'overlong UTF-8 slash', method: 'GET', target: '/a%c0%af', status: 400 },
  { desc: 'half an escape', method: 'GET', target: '/a%2', status: 400 },
  { desc: 'asterisk form', method: 'OPTIONS', target: '*', status: 400 },
] as const;

for (const { desc, method, target, status } of refused) {
  test(`${desc} is ${status}`, () => {
    assert.throws(
      () => routeOf(method, target),
      (error) =>
        error instanceof HttpRefusal && error.status === status && error.message.length > 10,
    );
  });
}

test('405 names the methods that are allowed', () => {
  assert.throws(
    () => routeOf('GET', '/a/git-upload-pack'),
    (error) => error instanceof HttpRefusal && error.headers['Allow'] === 'POST',
  );
});
