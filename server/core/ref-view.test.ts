import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoredSettings } from '../../backends/contract/settings.js';
import { oidOf, snapshotOf } from './fake-service.js';
import { visibleRefs } from './hidden-refs.js';
import { RefView, RefViews } from './ref-view.js';

const hiding: readonly {
  desc: string;
  settings: StoredSettings;
  shown: readonly string[];
  hidden: readonly string[];
}[] = [
  { desc: 'nothing', settings: {}, shown: ['refs/heads/main', 'HEAD'], hidden: [] },
  {
    desc: 'a hierarchy, not what merely begins like it',
    settings: { 'transfer.hideRefs': 'refs/changes' },
    shown: ['refs/changes2/x', 'refs/heads/main'],
    hidden: ['refs/changes', 'refs/changes/01/1'],
  },
  {
    desc: 'a hierarchy written with a slash',
    settings: { 'transfer.hideRefs': 'refs/changes/' },
    shown: ['refs/heads/main'],
    hidden: ['refs/changes/01/1'],
  },
  {
    desc: 'all but what is shown again later',
    settings: { 'transfer.hideRefs': 'refs/heads, !refs/heads/main' },
    shown: ['refs/heads/main', 'refs/tags/v1'],
    hidden: ['refs/heads/other'],
  },
  {
    desc: 'the last pattern that matches decides',
    settings: { 'transfer.hideRefs': '!refs/heads/main, refs/heads' },
    shown: [],
    hidden: ['refs/heads/main'],
  },
  {
    desc: "the service's own list refines transfer.hideRefs",
    settings: { 'transfer.hideRefs': 'refs/pull', 'uploadpack.hideRefs': '!refs/pull/1' },
    shown: ['refs/pull/1/head'],
    hidden: ['refs/pull/2/head'],
  },
  {
    desc: "not by the other service's list",
    settings: { 'receive.hideRefs': 'refs/heads' },
    shown: ['refs/heads/main'],
    hidden: [],
  },
  {
    desc: 'a pattern for the full name',
    settings: { 'transfer.hideRefs': '^refs/a, !^refs/a/b' },
    shown: ['refs/a/b'],
    hidden: ['refs/a/c'],
  },
];

for (const { desc, settings, shown, hidden } of hiding) {
  test(`hides ${desc}`, () => {
    const { test: visible } = visibleRefs(settings, 'uploadpack');
    for (const name of shown) assert.ok(visible(name), name);
    for (const name of hidden) assert.ok(!visible(name), name);
  });
}

const refs = ['a', 'b', 'c', 'd'].map((digit) => ({
  name: `refs/heads/${digit}`,
  oid: oidOf(digit),
}));

test('a view has the visible refs alone, in every way of asking', () => {
  const settings = { 'transfer.hideRefs': 'refs/heads/b' };
  const view = new RefView(snapshotOf(refs), visibleRefs(settings, 'uploadpack'));
  assert.deepEqual(
    view.refs.map(({ name }) => name),
    ['refs/heads/a', 'refs/heads/c', 'refs/heads/d'],
  );
  assert.equal(view.find('refs/heads/b'), undefined);
  assert.equal(view.find('refs/heads/c')?.oid, oidOf('c'));
  assert.equal(view.hasTip(oidOf('b')), false);
  assert.equal(view.hasTip(oidOf('a')), true);
  assert.deepEqual(view.prefixRange('refs/heads/b'), [1, 1]);
  assert.deepEqual(view.prefixRange('refs/heads/c'), [1, 2]);
  assert.deepEqual(view.prefixRange('refs/'), [0, 3]);
});

test('HEAD gives neither name nor id of a hidden branch away', () => {
  const settings = { 'transfer.hideRefs': 'refs/heads/b' };
  const visible = visibleRefs(settings, 'uploadpack');
  const of = (head: Parameters<typeof snapshotOf>[1]): unknown =>
    new RefView(snapshotOf(refs, head), visible).head;
  assert.equal(of({ symref: 'refs/heads/b' }), undefined);
  assert.deepEqual(of({ symref: 'refs/heads/a' }), { symref: 'refs/heads/a', oid: oidOf('a') });
  assert.deepEqual(of({ symref: 'refs/heads/none' }), { symref: 'refs/heads/none' });
  assert.deepEqual(of({ oid: oidOf('e') }), { oid: oidOf('e') });
});

test('views are made once per snapshot and filter', () => {
  const views = new RefViews();
  const snapshot = snapshotOf(refs);
  const all = visibleRefs({}, 'uploadpack');
  const some = visibleRefs({ 'transfer.hideRefs': 'refs/heads/b' }, 'uploadpack');
  assert.equal(views.of(snapshot, all), views.of(snapshot, visibleRefs({}, 'receive')));
  assert.notEqual(views.of(snapshot, all), views.of(snapshot, some));
  assert.notEqual(views.of(snapshot, all), views.of(snapshotOf(refs), all));
});
