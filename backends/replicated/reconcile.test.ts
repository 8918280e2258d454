import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextStep, nextStepAtHead, type SetView, type StoreView } from './reconcile.js';
import {
  ahead,
  away,
  behind,
  damaged,
  filled,
  frozen,
  head,
  limits,
  missing,
  sound,
  testScenes,
  three,
  unfilled,
} from './testing/reconcile-scenes.js';

testScenes([
  { desc: 'all is well', stores: three, step: undefined },
  { desc: 'a voter is away for a moment', stores: { ...three, c: away(10) }, step: undefined },
  {
    desc: 'a voter is behind, and the log has what it lacks',
    stores: { ...three, c: behind },
    step: undefined,
  },
  {
    desc: 'its disk was put back to an older copy: the log has no more what it lacks',
    stores: { ...three, c: behind },
    logLength: 3,
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'nor what one lacks that was down, which is filled from the others',
    stores: { ...three, c: behind },
    declared: { c: 'down' },
    logLength: 0,
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'not again at once when that failed',
    stores: { ...three, c: unfilled(10) },
    logLength: 0,
    step: undefined,
  },
  {
    desc: 'away for longer: down',
    stores: { ...three, c: away(1_000) },
    step: { type: 'declare', storeId: 'c', state: 'down' },
  },
  {
    desc: 'back, but behind: still down',
    stores: { ...three, c: behind },
    declared: { c: 'down' },
    step: undefined,
  },
  {
    desc: 'back and current: in good standing',
    stores: three,
    declared: { c: 'down' },
    step: { type: 'declare', storeId: 'c', state: undefined },
  },
  {
    desc: 'away for too long: somebody else learns',
    stores: { ...three, c: away(10_000) },
    declared: { c: 'down' },
    step: { type: 'add-learner' },
  },
  {
    desc: 'its node has another store: it is down at once',
    stores: { ...three, c: { ...away(10), replaced: true } },
    step: { type: 'declare', storeId: 'c', state: 'down' },
  },
  {
    desc: 'its node has another store: it is not waited for',
    stores: { ...three, c: { ...away(10), replaced: true } },
    declared: { c: 'down' },
    step: { type: 'add-learner' },
  },
  {
    desc: 'the learner is filled',
    stores: { ...three, c: away(10_000), l: { alive: true, awayMs: 0, leaving: false } },
    declared: { c: 'down' },
    step: { type: 'fill', storeId: 'l', fresh: false },
  },
  {
    desc: 'a filled learner votes before the lost voter goes',
    stores: { ...three, c: away(10_000), l: sound },
    declared: { c: 'down' },
    step: { type: 'promote', storeId: 'l' },
  },
  {
    desc: 'a filled learner takes the place of a damaged voter that too few others could do without',
    stores: { ...three, b: frozen, c: away(10_000), l: sound },
    declared: { c: 'down' },
    step: { type: 'promote', storeId: 'l', inPlaceOf: 'b' },
  },
  {
    desc: 'also of the last voter',
    stores: { a: { ...sound, damaged: true }, l: sound },
    step: { type: 'promote', storeId: 'l', inPlaceOf: 'a' },
  },
  {
    desc: 'not while it is not filled',
    stores: { a: { ...sound, damaged: true }, l: behind },
    step: { type: 'fill', storeId: 'l', fresh: false },
  },
  {
    desc: 'nor where that would leave too few with the head',
    stores: { a: damaged, b: behind, c: away(10_000), l: sound, lb: sound },
    declared: { c: 'down' },
    step: undefined,
  },
  {
    desc: 'too many are damaged for one to be set aside: somebody learns who can take its place',
    stores: { a: sound, b: damaged, c: damaged },
    step: { type: 'add-learner' },
  },
  {
    desc: 'nobody is left to learn: one of them is set aside, and filled from the sound one',
    stores: { a: sound, b: damaged, c: damaged },
    nobodyToAdd: true,
    step: { type: 'demote', storeId: 'b' },
  },
  {
    desc: 'it votes again before the next one is set aside',
    stores: { a: sound, c: damaged, lb: sound },
    nobodyToAdd: true,
    step: { type: 'promote', storeId: 'lb' },
  },
  {
    desc: 'not where the sound copy lacks what the damaged ones have',
    stores: { a: behind, b: damaged, c: damaged },
    nobodyToAdd: true,
    step: { type: 'add-learner' },
  },
  {
    desc: 'nor where only those that lack it would be left beside it',
    stores: { a: sound, b: { ...behind, damaged: true }, c: { ...behind, damaged: true } },
    nobodyToAdd: true,
    step: { type: 'add-learner' },
  },
  {
    desc: 'who holds the head with wrong refs does not count',
    stores: { a: sound, b: damaged, c: frozen },
    nobodyToAdd: true,
    step: { type: 'demote', storeId: 'c' },
  },
  {
    desc: 'a lost voter is not set aside for it',
    stores: { ...three, c: away(10_000) },
    declared: { c: 'down' },
    nobodyToAdd: true,
    step: { type: 'add-learner' },
  },
  {
    desc: 'who learns is filled, also while the sound copy is behind',
    stores: { a: behind, b: damaged, c: damaged, l: behind },
    step: { type: 'fill', storeId: 'l', fresh: false },
  },
  {
    desc: 'and takes the place of one of them',
    stores: { a: sound, b: damaged, c: damaged, l: sound },
    step: { type: 'promote', storeId: 'l', inPlaceOf: 'b' },
  },
  {
    desc: 'the next one can be set aside then',
    stores: { a: sound, c: damaged, d: sound, lb: damaged },
    step: { type: 'demote', storeId: 'c' },
  },
  {
    desc: 'who is away for a moment is waited for',
    stores: { a: sound, b: damaged, c: away(10) },
    step: undefined,
  },
  {
    desc: 'nobody learns from what is damaged everywhere',
    stores: { a: damaged, b: damaged, c: damaged },
    step: undefined,
  },
  {
    desc: 'pushes came while it was filled: the rest is done while none comes',
    stores: { a: sound, b: behind, l: filled },
    step: { type: 'promote', storeId: 'l' },
  },
  {
    desc: 'not beside copies that are away or damaged',
    stores: { a: damaged, b: away(10), l: filled },
    step: undefined,
  },
  {
    desc: 'nor when it was filled so slowly that it is far behind again',
    stores: { a: sound, b: sound, l: { ...filled, state: { generation: 3, digest: 'c' } } },
    headGeneration: 80,
    logLength: 90,
    step: { type: 'fill', storeId: 'l', fresh: false },
  },
  {
    desc: 'nor when it was found damaged',
    stores: { a: sound, b: sound, l: { ...filled, damaged: true } },
    step: { type: 'fill', storeId: 'l', fresh: true },
  },
  {
    desc: 'a stale voter to which pushes came while it was filled is in good standing again',
    stores: { ...three, c: filled },
    declared: { c: 'stale' },
    step: { type: 'declare', storeId: 'c', state: undefined },
  },
  {
    desc: 'but not while the log that it held up is too long',
    stores: { ...three, c: filled },
    declared: { c: 'stale' },
    logLength: 101,
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'and so is a reader',
    stores: { ...three, r: filled },
    declared: { r: 'stale' },
    wantedReaders: 1,
    step: { type: 'declare', storeId: 'r', state: undefined },
  },
  {
    desc: 'then the lost voter goes',
    stores: { ...three, c: away(10_000), d: sound },
    declared: { c: 'down' },
    step: { type: 'remove-voter', storeId: 'c' },
  },
  {
    desc: 'not when the others are not current',
    stores: { a: sound, b: behind, c: away(10_000), d: behind },
    declared: { c: 'down' },
    step: undefined,
  },
  {
    desc: 'the lost voter came back: the learner is not needed',
    stores: { ...three, l: behind },
    step: { type: 'drop-learner', storeId: 'l' },
  },
  {
    desc: 'a learner that is lost itself is given up',
    stores: { ...three, c: away(10_000), l: away(10_000) },
    declared: { c: 'down' },
    step: { type: 'drop-learner', storeId: 'l' },
  },
  {
    desc: 'a draining node’s copy is made elsewhere first',
    stores: { ...three, c: { ...sound, leaving: true } },
    step: { type: 'add-learner' },
  },
  {
    desc: 'fewer voters than wanted',
    stores: { a: sound, b: sound },
    step: { type: 'add-learner' },
  },
  {
    desc: 'more voters than wanted',
    stores: { ...three, d: sound },
    step: { type: 'remove-voter', storeId: 'd' },
  },
  {
    desc: 'a frozen copy is set aside',
    stores: { ...three, b: frozen },
    step: { type: 'demote', storeId: 'b' },
  },
  {
    desc: 'a copy that is ahead of the coordinator is nothing to set aside',
    stores: { ...three, b: ahead },
    step: undefined,
  },
  {
    desc: 'nor to be filled anew',
    stores: { a: sound, b: sound, l: ahead },
    step: { type: 'fill', storeId: 'l', fresh: false },
  },
  {
    desc: 'a copy that differs at the head is set aside when verification says so',
    stores: { ...three, b: { ...sound, damaged: true } },
    step: { type: 'demote', storeId: 'b' },
  },
  {
    desc: 'not if the others do not hold the head',
    stores: { a: behind, b: frozen, c: away(10) },
    step: undefined,
  },
  {
    desc: 'the last copy is never set aside',
    stores: { a: frozen },
    step: { type: 'add-learner' },
  },
  {
    desc: 'a damaged learner is filled anew',
    stores: { a: sound, b: sound, l: frozen },
    step: { type: 'fill', storeId: 'l', fresh: true },
  },
  {
    desc: 'too long a log: who holds it up is stale',
    stores: { ...three, c: behind },
    logLength: 101,
    step: { type: 'declare', storeId: 'c', state: 'stale' },
  },
  {
    desc: 'not without a current majority of all',
    stores: { a: sound, b: away(10), c: behind },
    logLength: 101,
    step: undefined,
  },
  {
    desc: 'a stale voter that answers catches up',
    stores: { ...three, c: behind },
    declared: { c: 'stale' },
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'and is in good standing again',
    stores: three,
    declared: { c: 'stale' },
    step: { type: 'declare', storeId: 'c', state: undefined },
  },
  {
    desc: 'a voter that has no copy is filled',
    stores: { ...three, c: missing },
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'also where it is needed for a majority',
    stores: { a: sound, c: missing },
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'not before what could not be filled just now is tried again',
    stores: { ...three, c: { ...missing, unfilledMs: 10 } },
    step: undefined,
  },
  {
    desc: 'a voter that has no copy, and is to leave, is not filled first',
    stores: { ...three, c: { ...missing, leaving: true } },
    step: { type: 'add-learner' },
  },
  {
    desc: 'a stale voter whose node is to leave is not filled first',
    stores: { ...three, c: { ...behind, leaving: true } },
    declared: { c: 'stale' },
    step: { type: 'add-learner' },
  },
  {
    desc: 'it is where nobody could take its place',
    stores: { ...three, c: { ...behind, leaving: true } },
    declared: { c: 'stale' },
    nobodyToAdd: true,
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'and where who learns needs it for a majority',
    stores: { a: sound, b: away(10), c: { ...behind, leaving: true }, l: sound },
    declared: { c: 'stale' },
    step: { type: 'fill', storeId: 'c', fresh: false },
  },
  {
    desc: 'a stale voter that could not be filled just now holds up nothing else',
    stores: { a: sound, b: away(10_000), c: unfilled(10) },
    declared: { b: 'down', c: 'stale' },
    step: { type: 'add-learner' },
  },
  {
    desc: 'it has its time to be filled',
    stores: { ...three, c: unfilled(9_999) },
    declared: { c: 'stale' },
    step: undefined,
  },
  {
    desc: 'then it is replaced as if it were gone',
    stores: { ...three, c: unfilled(10_000) },
    declared: { c: 'stale' },
    step: { type: 'add-learner' },
  },
  {
    desc: 'a learner that could not be filled just now holds up no other one',
    stores: { a: sound, b: away(10_000), c: away(10_000), l1: unfilled(10), l2: behind },
    declared: { b: 'down', c: 'down' },
    step: { type: 'fill', storeId: 'l2', fresh: false },
  },
  {
    desc: 'nor is another one taken at once',
    stores: { a: sound, b: sound, l: unfilled(9_999) },
    step: undefined,
  },
  {
    desc: 'a learner that cannot be filled for too long: another one learns',
    stores: { a: sound, b: sound, l: unfilled(10_000) },
    step: { type: 'add-learner' },
  },
  {
    desc: 'one more, and not whoever there is: what is to send it may be in trouble',
    stores: { a: sound, b: sound, l1: unfilled(10_000), l2: unfilled(10_000) },
    step: undefined,
  },
  {
    desc: 'when that one votes, the first is given up',
    stores: { ...three, l: unfilled(10_000) },
    step: { type: 'drop-learner', storeId: 'l' },
  },
]);

/** A set of all of them. */
const setOf = (stores: Readonly<Record<string, StoreView>>): SetView => ({
  record: {
    voters: Object.keys(stores).map((storeId) => ({ nodeId: storeId, storeId, joinedEpoch: 1 })),
    learners: [],
  },
  wantedReaders: 0,
  head,
  stores: new Map(Object.entries(stores)),
  logLength: 4,
});

test('stores that lag for a moment keep a set from no change, once they have applied the head', () => {
  const broken = setOf({ a: sound, b: behind, c: damaged });
  assert.equal(nextStep(broken, limits), undefined);
  assert.deepEqual(nextStepAtHead(broken, limits), { type: 'demote', storeId: 'c' });
  // Nothing is to be done but to apply, and nobody waits for that.
  assert.equal(nextStepAtHead(setOf({ a: sound, b: behind, c: behind }), limits), undefined);
  // Not what the log cannot bring to the head, nor who does not answer.
  for (const b of [{ ...behind, state: { generation: 2, digest: 'b' } }, away(0)]) {
    const step = nextStepAtHead(setOf({ a: sound, b, c: damaged }), limits);
    assert.notEqual(step?.type, 'demote');
  }
});
