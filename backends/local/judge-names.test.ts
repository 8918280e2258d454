import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RefCommand } from '../contract/objects.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { judgeNames } from './judge-names.js';

const zero = '0'.repeat(40);
const one = '1'.repeat(40);
const two = '2'.repeat(40);

const snapshot = createRefSnapshot({
  generation: 1,
  head: { symref: 'refs/heads/main' },
  refs: [
    { name: 'refs/heads/a', oid: one },
    { name: 'refs/heads/alias', oid: one, symref: 'refs/heads/a' },
    { name: 'refs/heads/d/e', oid: one },
    { name: 'refs/heads/main', oid: one },
  ],
});

const command = (ref: string, oldOid: string, newOid: string): RefCommand => ({
  ref,
  oldOid,
  newOid,
});

const cases: {
  desc: string;
  commands: RefCommand[];
  settings?: Record<string, string>;
  refused: Record<string, RegExp>;
}[] = [
  {
    desc: 'an update from the current value',
    commands: [command('refs/heads/a', one, two)],
    refused: {},
  },
  {
    desc: 'a stale old value',
    commands: [command('refs/heads/a', two, two)],
    refused: { 'refs/heads/a': /is at 1111111111 but expected 2222222222/ },
  },
  {
    desc: 'an update that is done, as where a client sends a push again whose answer was lost',
    commands: [command('refs/heads/a', two, one)],
    refused: { 'refs/heads/a': /^stale info: is at 1111111111 already, .*git fetch$/ },
  },
  {
    desc: 'a creation that is done',
    commands: [command('refs/heads/a', zero, one)],
    refused: { 'refs/heads/a': /^reference already exists, at 1111111111: .*git fetch$/ },
  },
  {
    desc: 'creating what exists',
    commands: [command('refs/heads/a', zero, two)],
    refused: { 'refs/heads/a': /already exists/ },
  },
  {
    desc: 'deleting what is not there',
    commands: [command('refs/heads/x', one, zero)],
    refused: { 'refs/heads/x': /no such ref/ },
  },
  {
    desc: 'deleting what is not there, and was not said to be',
    commands: [command('refs/heads/x', zero, zero)],
    refused: {},
  },
  {
    desc: 'updating what is gone',
    commands: [command('refs/heads/x', one, two)],
    refused: { 'refs/heads/x': /it is gone/ },
  },
  {
    desc: 'a symbolic ref',
    commands: [command('refs/heads/alias', one, two)],
    refused: { 'refs/heads/alias': /symbolic ref to refs\/heads\/a/ },
  },
  {
    desc: 'a name below an existing ref',
    commands: [command('refs/heads/a/b', zero, two)],
    refused: { 'refs/heads/a/b': /'refs\/heads\/a' exists/ },
  },
  {
    desc: 'a name above an existing ref',
    commands: [command('refs/heads/d', zero, two)],
    refused: { 'refs/heads/d': /'refs\/heads\/d\/e' exists/ },
  },
  {
    desc: 'names that only share letters',
    commands: [command('refs/heads/ab', zero, two), command('refs/heads/a-b', zero, two)],
    refused: {},
  },
  {
    desc: 'two new names in each other’s way, with one between them in order',
    commands: [
      command('refs/heads/n', zero, two),
      command('refs/heads/n-1', zero, two),
      command('refs/heads/n/m', zero, two),
    ],
    refused: {
      'refs/heads/n': /at the same time/,
      'refs/heads/n/m': /at the same time/,
    },
  },
  {
    desc: 'more refs than allowed, deletions counted',
    settings: { 'receive.maxRefs': '4' },
    commands: [
      command('refs/heads/a', one, zero),
      command('refs/heads/p', zero, two),
      command('refs/heads/q', zero, two),
    ],
    refused: { 'refs/heads/q': /receive\.maxRefs/ },
  },
];

for (const { desc, commands, settings, refused } of cases) {
  test(`judging names: ${desc}`, () => {
    const judged = judgeNames(snapshot, commands, settings ?? {});
    assert.deepEqual([...judged.keys()].toSorted(), Object.keys(refused).toSorted());
    for (const [ref, words] of Object.entries(refused)) assert.match(judged.get(ref) ?? '', words);
  });
}
