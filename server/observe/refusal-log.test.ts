import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditEvent } from './audit.js';
import { RefusalLog } from './refusal-log.js';

test('a flood of refusals is written in part, and the rest counted', () => {
  let nowMs = 0;
  const audited: AuditEvent[] = [];
  const log = new RefusalLog({
    audit: {
      record: (event) => void audited.push(event),
      flush: () => Promise.resolve(),
      close: () => Promise.resolve(),
    },
    clock: { nowMs: () => 0, monotonicMs: () => nowMs, sleep: () => Promise.resolve() },
  });
  const refuse = (remoteAddress: string, event: 'access' | 'limit' = 'access') =>
    log.record({ event, actor: 'ann', remoteAddress, details: { code: 'not-found' } });
  for (let n = 0; n < 1000; n += 1) refuse('192.0.2.1');
  assert.equal(audited.length, 60);
  refuse('192.0.2.2');
  refuse('192.0.2.1', 'limit');
  assert.equal(audited.length, 62, 'others are written');
  nowMs = 60_000;
  refuse('192.0.2.1');
  refuse('192.0.2.1');
  assert.deepEqual(
    audited.slice(-2).map(({ details }) => details),
    [{ code: 'not-found', suppressed: 940 }, { code: 'not-found' }],
  );
});
