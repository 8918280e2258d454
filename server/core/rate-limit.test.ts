import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateLimit } from './rate-limit.js';

function ground(perMinute: number): { limit: RateLimit; pass: (ms: number) => void } {
  let nowMs = 1_000;
  const clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: () => Promise.resolve(),
  };
  return {
    limit: new RateLimit(perMinute, clock),
    pass: (ms) => {
      nowMs += ms;
    },
  };
}

test('so many a minute, and as many at once', () => {
  const { limit, pass } = ground(60);
  for (let n = 0; n < 60; n += 1) assert.equal(limit.take('a'), 0);
  assert.equal(limit.take('a'), 1000, 'one token comes each second');
  assert.equal(limit.take('b'), 0, 'others have buckets of their own');
  pass(999);
  assert.equal(limit.take('a'), 1);
  pass(1);
  assert.equal(limit.take('a'), 0);
  assert.ok(limit.take('a') > 0);
  pass(3_600_000);
  for (let n = 0; n < 60; n += 1) assert.equal(limit.take('a'), 0);
  assert.ok(limit.take('a') > 0, 'what was not used does not pile up');
});

test('0 is no limit', () => {
  const { limit } = ground(0);
  assert.equal(limit.off, true);
  for (let n = 0; n < 1000; n += 1) assert.equal(limit.take('a'), 0);
});

test('keys remembered are bounded, and who asks often is not forgotten', () => {
  const { limit } = ground(1);
  assert.equal(limit.take('steady'), 0);
  for (let n = 0; n < 30_000; n += 1) {
    limit.take(`key ${n}`);
    if (n % 1000 === 0) assert.ok(limit.take('steady') > 0);
  }
  assert.equal(limit.take('key 0'), 0, 'forgotten');
});
