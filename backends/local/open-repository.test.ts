import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogEntry } from '../contract/repository.js';
import { applicableTogether } from './apply-entries.js';

const zero = '0'.repeat(40);
const one = '1'.repeat(40);
const two = '2'.repeat(40);

function entry(
  generation: number,
  more: Partial<LogEntry> & { refs?: readonly string[] },
): LogEntry {
  const { refs = [], ...rest } = more;
  return {
    generation,
    pushId: `push-${generation}`,
    updates: refs.map((ref) => ({ ref, oldOid: one, newOid: two })),
    prepared: [],
    digest: '',
    actor: 'a',
    atMs: 0,
    ...rest,
  };
}

const head = { old: { symref: 'refs/heads/a' }, new: { symref: 'refs/heads/b' } };

const cases: { desc: string; entries: LogEntry[]; groups: number[][] }[] = [
  { desc: 'nothing', entries: [], groups: [] },
  {
    desc: 'pushes to different refs go together',
    entries: [entry(1, { refs: ['a'] }), entry(2, { refs: ['b', 'c'] }), entry(3, { refs: ['d'] })],
    groups: [[1, 2, 3]],
  },
  {
    desc: 'a ref that comes again begins a new group',
    entries: [entry(1, { refs: ['a'] }), entry(2, { refs: ['b'] }), entry(3, { refs: ['a'] })],
    groups: [[1, 2], [3]],
  },
  {
    desc: 'a deletion goes alone',
    entries: [
      entry(1, { refs: ['a'] }),
      entry(2, { updates: [{ ref: 'x', oldOid: one, newOid: zero }] }),
      entry(3, { refs: ['x/y'] }),
      entry(4, { refs: ['b'] }),
    ],
    groups: [[1], [2], [3, 4]],
  },
  {
    desc: 'HEAD goes alone, and so do updates that are kept elsewhere',
    entries: [
      entry(1, { refs: ['a'] }),
      entry(2, { head }),
      entry(3, { refs: ['b'] }),
      entry(4, { updatesDigest: 'd' }),
      entry(5, { refs: ['c'] }),
    ],
    groups: [[1], [2], [3], [4], [5]],
  },
  {
    desc: 'no transaction grows without bound',
    entries: [1, 2, 3].map((n) =>
      entry(n, { refs: Array.from({ length: 400 }, (_, i) => `r${n}-${i}`) }),
    ),
    groups: [[1, 2], [3]],
  },
];

for (const { desc, entries, groups } of cases) {
  test(`applied together: ${desc}`, () => {
    assert.deepEqual(
      applicableTogether(entries).map((group) => group.map(({ generation }) => generation)),
      groups,
    );
  });
}
