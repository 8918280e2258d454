import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hostilePackets } from '../wire/arbitraries.js';
import { FakeService, codeOf, oidOf } from './fake-service.js';

const refs = [{ name: 'refs/heads/main', oid: oidOf('a') }];

/** A prefix that gets hostile bytes past the first look. */
const openings = fc.constantFrom(
  '',
  '0014command=ls-refs\n0001',
  '0012command=fetch\n0001',
  `0032want ${oidOf('a')}\n0000`,
  `0067${oidOf('0')} ${oidOf('a')} refs/heads/x\0 atomic`,
);

test('hostile bytes end in an answer or an operating error, with every read released', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('git-upload-pack' as const, 'git-receive-pack' as const),
      fc.constantFrom('stateless' as const, 'session' as const),
      fc.constantFrom(0 as const, 1 as const, 2 as const),
      fc.tuple(openings, hostilePackets),
      async (service, mode, protocol, [opening, packets]) => {
        const fake = new FakeService({ refs });
        const input = Buffer.concat([Buffer.from(opening), packets]);
        const { outcome, error, output } = await fake.talk({ service, mode, protocol }, input);
        assert.equal(fake.sessions, 0);
        if (outcome === undefined) {
          assert.ok(
            ['invalid-argument', 'resource-exhausted', 'unimplemented'].includes(
              codeOf(error) ?? '',
            ),
          );
          assert.equal(output.length, 0);
        } else {
          assert.notEqual(outcome.fields['error'], 'internal');
        }
      },
    ),
    { numRuns: 500 },
  );
});
