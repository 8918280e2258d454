import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { RefCommand, RefSnapshot } from '../contract/objects.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter, emptyDigest } from '../git/digest.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { SnapshotMemory } from './snapshot-memory.js';

const id = 'a-repository';
const none = '0'.repeat(40);
const one = '1'.repeat(40);
const two = '2'.repeat(40);
const tag = 'a'.repeat(40);
const head = { symref: 'refs/heads/main' };
const refs = [
  { name: 'refs/heads/main', oid: one },
  { name: 'refs/remotes/origin/HEAD', oid: one, symref: 'refs/heads/main' },
  { name: 'refs/tags/v1', oid: tag, peeled: one },
];
const digest = digestAfter(emptyDigest(head), [
  { ref: 'refs/heads/main', oldOid: none, newOid: one },
  { ref: 'refs/tags/v1', oldOid: none, newOid: tag },
]);

function remembering(): SnapshotMemory {
  const memory = new SnapshotMemory();
  memory.add(id, digest, createRefSnapshot({ generation: 7, head, refs }));
  return memory;
}

function entry(updates: readonly RefCommand[], more: Partial<LogEntry> = {}): LogEntry {
  const after = digestAfter(digest, updates, more.head);
  const facts = { pushId: 'p', prepared: [], actor: 'a', atMs: 0 };
  return { generation: 8, updates, digest: after, ...facts, ...more };
}

const move = { ref: 'refs/heads/main', oldOid: one, newOid: two };
const content = ({ generation, head: shown, refs: all }: RefSnapshot): object => ({
  generation,
  head: shown,
  refs: all,
});

test('the refs after a commit to branches are known without a store', () => {
  const memory = remembering();
  const updates = [
    move,
    { ref: 'refs/heads/a', oldOid: none, newOid: two },
    { ref: 'refs/tags/v1', oldOid: tag, newOid: none },
  ];
  const committed = entry(updates);
  memory.advance(id, committed);
  const found = memory.find(id, committed);
  assert.ok(found !== undefined);
  assert.deepEqual(content(found), {
    generation: 8,
    head,
    refs: [
      { name: 'refs/heads/a', oid: two },
      { name: 'refs/heads/main', oid: two },
      { name: 'refs/remotes/origin/HEAD', oid: two, symref: 'refs/heads/main' },
    ],
  });
  const next = [{ ref: 'refs/heads/a', oldOid: two, newOid: none }];
  const then = entry(next, { generation: 9, digest: digestAfter(committed.digest, next) });
  memory.advance(id, then);
  assert.equal(memory.find(id, then)?.refs.length, 2);
});

const unknown: readonly { readonly desc: string; readonly committed: LogEntry }[] = [
  {
    desc: 'a tag, which may be annotated',
    committed: entry([{ ref: 'refs/tags/v2', oldOid: none, newOid: tag }]),
  },
  { desc: 'a generation between', committed: entry([move], { generation: 9 }) },
  { desc: 'other refs before', committed: entry([move], { digest: '0'.repeat(128) }) },
  {
    desc: 'another HEAD',
    committed: entry([], { head: { old: head, new: { symref: 'refs/heads/a' } } }),
  },
  { desc: 'updates elsewhere', committed: entry([], { updatesDigest: 'x', digest }) },
  { desc: 'an earlier generation', committed: entry([], { after: { generation: 6, digest } }) },
];

for (const { desc, committed } of unknown) {
  test(`${desc}: a store is asked`, () => {
    const memory = remembering();
    memory.advance(id, committed);
    assert.equal(memory.find(id, committed), undefined);
  });
}

test('of a repository that is not known nothing is noted', () => {
  const memory = new SnapshotMemory();
  memory.advance(id, entry([move]));
  assert.deepEqual(memory.known(id), []);
});

test('the first read of a repository at a store whose disk hangs keeps no read at another one', async () => {
  const memory = new SnapshotMemory();
  const read = (storeId: string, what: Promise<string>): Promise<string> =>
    memory.oneAtFirst({ repositoryId: id, storeId }, () => what);
  const goesOn = new AbortController();
  const hanging = read(
    'one',
    once(goesOn.signal, 'abort').then(() => 'refs, late'),
  );
  assert.equal(await read('another', Promise.resolve('refs')), 'refs');
  goesOn.abort();
  assert.equal(await hanging, 'refs, late');
});
