import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { WatchBatch } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { bytes, take, type TestSpace, text } from './coordinator-harness.js';

/** Watches: every revision once, in order, or a clear error. */
export function defineCoordinatorWatches(open: () => TestSpace): void {
  describe('watches', () => {
    defineOrder(open);
    test('start after the call by default', async () => {
      const space = open();
      await space.put('before', '');
      const leaving = new AbortController();
      const watch = space.coordinator.watch(space.all.key, {
        rangeEnd: space.all.rangeEnd,
        signal: leaving.signal,
      });
      const revision = await space.put('after', '');
      const [batch] = await take(watch, 1);
      leaving.abort();
      assert.equal(batch?.revision, revision);
    });
    test('wait for a revision that is still to come', async () => {
      const space = open();
      const base = await space.put('k', '0');
      const leaving = new AbortController();
      const watch = space.coordinator.watch(space.key('k'), {
        fromRevision: base + 2,
        signal: leaving.signal,
      });
      await space.put('k', '1');
      await space.put('k', '2');
      const [batch] = await take(watch, 1);
      leaving.abort();
      assert.equal(batch?.revision, base + 2);
    });
    test('end when the signal aborts, also one that waits or never began', async () => {
      const space = open();
      const leaving = new AbortController();
      const options = { signal: leaving.signal };
      const waiting = take(space.coordinator.watch(space.key('k'), options), 1);
      leaving.abort();
      assert.deepEqual(await waiting, []);
      assert.deepEqual(await take(space.coordinator.watch(space.key('k'), options), 1), []);
    });
    test('fail when the history that they ask for is gone', async () => {
      const space = open();
      const old = await space.put('k', '1');
      await space.put('k', '2');
      await space.harness.compact();
      const leaving = new AbortController();
      const watch = space.coordinator.watch(space.key('k'), {
        fromRevision: old,
        signal: leaving.signal,
      });
      await assert.rejects(take(watch, 1), (error) => {
        assert.ok(error instanceof QuorateError);
        assert.equal(error.code, 'failed-precondition');
        const { compactedRevision } = error.details;
        assert.ok(typeof compactedRevision === 'number' && compactedRevision > old);
        return true;
      });
      const { revision } = await space.coordinator.range(space.key('k'));
      const next = space.coordinator.watch(space.key('k'), {
        fromRevision: revision + 1,
        signal: leaving.signal,
      });
      await space.put('k', '3');
      assert.equal((await take(next, 1))[0]?.revision, revision + 1);
      leaving.abort();
    });
    test('a slow consumer gets everything or the same error, never a gap', async () => {
      const space = open();
      const base = await space.put('k', '0');
      const leaving = new AbortController();
      const watch = space.coordinator.watch(space.key('k'), {
        fromRevision: base,
        signal: leaving.signal,
      });
      const count = 300;
      let expected = base;
      try {
        for await (const batch of watch) {
          assert.equal(batch.revision, expected);
          expected += 1;
          if (batch.revision === base) {
            const puts = Array.from({ length: count }, (_, i) => space.put('k', String(i)));
            // Whose error is none of the watch's.
            await Promise.all(puts).catch((cause: unknown) => {
              throw new Error('a put failed', { cause });
            });
          }
          if (expected === base + count + 1) break;
        }
        assert.equal(expected, base + count + 1);
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
        assert.equal(error.code, 'failed-precondition');
      } finally {
        leaving.abort();
      }
    });
  });
}

function defineOrder(open: () => TestSpace): void {
  test('give one batch for each revision, in order, with only what was asked for', async () => {
    const space = open();
    const { coordinator } = space;
    const base = await space.put('a', '0');
    await space.put('outside', '0');
    await coordinator.transaction({
      compares: [],
      success: [
        { type: 'put', key: space.key('a'), value: bytes('1') },
        { type: 'put', key: space.key('outside'), value: bytes('1') },
        { type: 'put', key: space.key('b'), value: bytes('1') },
      ],
      failure: [],
    });
    const leaving = new AbortController();
    const range = { key: space.key('a'), rangeEnd: space.key('c') };
    const watch = coordinator.watch(range.key, {
      rangeEnd: range.rangeEnd,
      fromRevision: base,
      signal: leaving.signal,
    });
    const reading = take(watch, 4);
    await coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key: range.key, rangeEnd: range.rangeEnd }],
      failure: [],
    });
    await space.put('b', '2');
    const batches = await reading;
    leaving.abort();
    assert.deepEqual(batches.map(describeBatch), [
      { revision: base, events: [`put ${space.key('a')} 0 version 1`] },
      {
        revision: base + 2,
        events: [`put ${space.key('a')} 1 version 2`, `put ${space.key('b')} 1 version 1`],
      },
      { revision: base + 3, events: [`delete ${space.key('a')}`, `delete ${space.key('b')}`] },
      { revision: base + 4, events: [`put ${space.key('b')} 2 version 1`] },
    ]);
  });
}

function describeBatch(batch: WatchBatch): { revision: number; events: readonly string[] } {
  const events = batch.events.map((event) => {
    if (event.type === 'delete') {
      assert.equal(event.modRevision, batch.revision);
      return `delete ${event.key}`;
    }
    assert.equal(event.entry.modRevision, batch.revision);
    return `put ${event.entry.key} ${text(event.entry.value)} version ${event.entry.version}`;
  });
  return { revision: batch.revision, events };
}
