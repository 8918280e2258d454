import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { Head, RefCommand, RefSnapshot } from '../contract/objects.js';
import { digestAfter, digestOf } from './digest.js';
import { createRefSnapshot, nextSnapshot } from './ref-snapshot.js';
import { zero } from './testing/repository.js';

const oid = fc.integer({ min: 1, max: 5 }).map((n) => String(n).repeat(40));
const name = fc
  .constantFrom('a', 'b', 'c', 'é', '\u{ff5e}', '\u{1f600}', 'a/b', 'z')
  .map((short) => `refs/heads/${short}`);
const head: fc.Arbitrary<Head> = fc.oneof(
  name.map((symref) => ({ symref })),
  oid.map((id) => ({ oid: id })),
);
/** What each ref is to become; undefined deletes it. */
const changes = fc.array(
  fc.record({
    values: fc.dictionary(name, fc.option(oid, { nil: undefined })),
    head: fc.option(head, { nil: undefined }),
  }),
  { maxLength: 8 },
);

describe('digest of refs', () => {
  it('kept up to date equals recomputed, and the snapshot kept up to date equals built anew', () => {
    fc.assert(
      fc.property(head, changes, (firstHead, steps) => {
        let snapshot = createRefSnapshot({ generation: 0, head: firstHead, refs: [] });
        let digest = digestOf(snapshot);
        for (const [index, step] of steps.entries()) {
          const updates = commandsFor(snapshot, step.values);
          const headChange = step.head && { old: snapshot.head, new: step.head };
          digest = digestAfter(digest, updates, headChange);
          snapshot = nextSnapshot(snapshot, {
            generation: index + 1,
            updates,
            peeled: new Map(),
            ...(step.head === undefined ? {} : { head: step.head }),
          });
          const rebuilt = createRefSnapshot({
            generation: index + 1,
            head: snapshot.head,
            refs: [...snapshot.refs].reverse(),
          });
          assert.equal(digest, digestOf(rebuilt));
          assert.deepEqual(snapshot.refs, rebuilt.refs);
        }
      }),
    );
  });

  it('is the sum that the architecture names', () => {
    const refs = [
      { name: 'refs/heads/a', oid: 'a'.repeat(40) },
      { name: 'refs/heads/b', oid: 'b'.repeat(40) },
      { name: 'refs/heads/link', oid: 'b'.repeat(40), symref: 'refs/heads/b' },
    ];
    const snapshot = createRefSnapshot({ generation: 1, head: { symref: 'refs/heads/a' }, refs });
    const terms = [
      `refs/heads/a\0${'a'.repeat(40)}`,
      `refs/heads/b\0${'b'.repeat(40)}`,
      'HEAD\0ref: refs/heads/a',
    ].map((text) => BigInt(`0x${createHash('sha512').update(text).digest('hex')}`));
    const sum = terms.reduce((total, term) => total + term, 0n) % (1n << 512n);
    assert.equal(digestOf(snapshot), sum.toString(16).padStart(128, '0'));
  });

  it('tells a detached HEAD from a branch, and one branch from another', () => {
    const heads: Head[] = [
      { symref: 'refs/heads/a' },
      { symref: 'refs/heads/b' },
      { oid: 'a'.repeat(40) },
    ];
    const digests = heads.map((value) =>
      digestOf(createRefSnapshot({ generation: 0, head: value, refs: [] })),
    );
    assert.equal(new Set(digests).size, 3);
    for (const digest of digests) assert.match(digest, /^[0-9a-f]{128}$/);
  });
});

function commandsFor(
  snapshot: RefSnapshot,
  values: Readonly<Record<string, string | undefined>>,
): RefCommand[] {
  return Object.entries(values).flatMap(([ref, value]) => {
    const oldOid = snapshot.find(ref)?.oid ?? zero;
    const newOid = value ?? zero;
    return oldOid === newOid ? [] : [{ ref, oldOid, newOid }];
  });
}
