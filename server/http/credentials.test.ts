import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressKey } from '../core/concurrency-limit.js';
import { parseAuthorization } from './credentials.js';
import { FailureThrottle } from './failure-throttle.js';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

const headers = [
  { desc: 'none', header: undefined, secret: undefined, kind: 'none' },
  { desc: 'basic', header: `Basic ${base64('ann:s3cret')}`, secret: 's3cret', kind: 'token' },
  { desc: 'no user name', header: `basic ${base64(':s3cret')}`, secret: 's3cret', kind: 'token' },
  {
    desc: 'a colon in the token',
    header: `Basic ${base64('a:b:c')}`,
    secret: 'b:c',
    kind: 'token',
  },
  { desc: 'bearer', header: 'Bearer abc.def_-~+/=', secret: 'abc.def_-~+/=', kind: 'token' },
  {
    desc: 'empty password',
    header: `Basic ${base64('ann:')}`,
    secret: undefined,
    kind: 'malformed',
  },
  { desc: 'no colon', header: `Basic ${base64('ann')}`, secret: undefined, kind: 'malformed' },
  { desc: 'another scheme', header: 'Digest username="a"', secret: undefined, kind: 'malformed' },
  { desc: 'two tokens', header: 'Bearer a b', secret: undefined, kind: 'malformed' },
  { desc: 'empty', header: '', secret: undefined, kind: 'malformed' },
] as const;

for (const { desc, header, secret, kind } of headers) {
  test(`Authorization: ${desc}`, () => {
    const credentials = parseAuthorization(header);
    assert.equal(credentials.kind, kind);
    assert.equal(credentials.kind === 'token' ? credentials.secret : undefined, secret);
  });
}

const addresses = [
  ['127.0.0.1', '127.0.0.1'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
  ['2001:db8::9', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
] as const;

for (const [address, key] of addresses) {
  test(`limits count ${address} as ${key}`, () => assert.equal(addressKey(address), key));
}

test('failures throttle one address for a window, in bounded memory', () => {
  let nowMs = 0;
  const clock = { nowMs: () => 0, monotonicMs: () => nowMs, sleep: () => Promise.resolve() };
  const throttle = new FailureThrottle(clock, 2);
  throttle.failed('a');
  assert.equal(throttle.waitMs('a'), 0);
  nowMs = 10_000;
  throttle.failed('a');
  assert.equal(throttle.waitMs('a'), 50_000);
  assert.equal(throttle.waitMs('b'), 0);
  nowMs = 60_000;
  assert.equal(throttle.waitMs('a'), 0);
  for (let index = 0; index < 20_000; index += 1) throttle.failed(`host ${index}`);
  assert.equal(throttle.size, 10_000);
});
