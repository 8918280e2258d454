import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createManualClock } from '../coordination/test-environment.js';
import { LateStores } from './late-stores.js';

const waited = { repositoryId: 'a', waitedMs: 3_000 };

test('a store that answered nobody while a read waited is late with all repositories, for half a minute', () => {
  const clock = createManualClock();
  const late = new LateStores(clock);
  late.answered('store');
  clock.advance(3_000);
  late.note('store', waited);
  assert.deepEqual([late.has('store', 'a'), late.has('store', 'b')], [true, true]);
  assert.equal(late.has('other', 'a'), false);
  clock.advance(30_000);
  assert.deepEqual([late.has('store', 'a'), late.has('store', 'b')], [false, false]);
});

test('a repository that is slow where others are answered is late alone', () => {
  const clock = createManualClock();
  const late = new LateStores(clock);
  clock.advance(2_000);
  late.answered('store');
  clock.advance(1_000);
  late.note('store', waited);
  assert.deepEqual([late.has('store', 'a'), late.has('store', 'b')], [true, false]);
});
