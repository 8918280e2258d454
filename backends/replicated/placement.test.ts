import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ring } from './placement.js';

const node = (nodeId: string, more: object = {}) => ({
  nodeId,
  storeId: `store-${nodeId}`,
  zone: 'z',
  weight: 1,
  capacityBytes: 0,
  usedBytes: 0,
  draining: false,
  ...more,
});
const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `n${n}`);
const repositories = Array.from({ length: 2000 }, (_, n) => `repository-${n}`);
const place = (ring: Ring, id: string, count = 3): string[] =>
  ring.place(id, count).map(({ nodeId }) => nodeId);

test('each repository gets different nodes, evenly by weight, and always the same ones', () => {
  const nodes = names(5).map((name) => node(name, { weight: name === 'n0' ? 2 : 1 }));
  const ring = new Ring(nodes);
  const shares = new Map<string, number>();
  for (const id of repositories) {
    const chosen = place(ring, id);
    assert.equal(new Set(chosen).size, 3);
    assert.deepEqual(place(new Ring(nodes.toReversed()), id), chosen);
    const [first = ''] = chosen;
    shares.set(first, (shares.get(first) ?? 0) + 1);
  }
  for (const name of names(5)) {
    const expected = (name === 'n0' ? 2 / 6 : 1 / 6) * repositories.length;
    const share = shares.get(name) ?? 0;
    assert.ok(share > expected * 0.6 && share < expected * 1.4, `${name} has ${share}`);
  }
});

test('a node that takes nothing new gets something only where there is no other', () => {
  const ring = new Ring([
    ...names(3).map((name) => node(name)),
    node('full', { zone: 'y', problem: 'the disk is full' }),
  ]);
  for (const id of repositories.slice(0, 100)) {
    assert.ok(!place(ring, id).includes('full'));
    assert.ok(place(ring, id, 4).includes('full'));
  }
});

test('a node that comes takes only its own share, one that goes leaves only that', () => {
  const before = new Ring(names(5).map((name) => node(name)));
  const after = new Ring(names(6).map((name) => node(name)));
  let moved = 0;
  for (const id of repositories) {
    const old = place(before, id);
    for (const nodeId of place(after, id)) {
      if (old.includes(nodeId)) continue;
      assert.equal(nodeId, 'n5', 'nothing moves between nodes that stay');
      moved++;
    }
  }
  // A sixth of the copies, give or take.
  assert.ok(moved > 500 && moved < 1500, `${moved} copies moved`);
});

test('zones come first, then room; a draining node gets nothing', () => {
  const ring = new Ring([
    node('a1', { zone: 'a' }),
    node('a2', { zone: 'a' }),
    node('b1', { zone: 'b' }),
    node('c1', { zone: 'c', draining: true }),
    node('d1', { zone: 'd', capacityBytes: 100, usedBytes: 95 }),
  ]);
  for (const id of repositories.slice(0, 50)) {
    const two = place(ring, id, 2);
    assert.equal(new Set(two.map((name) => name[0])).size, 2);
    assert.ok(two.includes('b1'));
    assert.deepEqual(place(ring, id, 3).sort(), ['a1', 'a2', 'b1']);
    assert.deepEqual(place(ring, id, 9).sort(), ['a1', 'a2', 'b1', 'd1']);
    const beside = ring.place(id, 1, [{ nodeId: 'b1', zone: 'b' }]);
    assert.equal(beside[0]?.zone, 'a');
  }
  assert.deepEqual(new Ring([]).place('x', 3), []);
});
