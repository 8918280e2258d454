import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, heads, type LockScene, type WithLocks } from './locks-scene.js';
import { until } from '../contract/testing/until.js';

const dayMs = 24 * 3_600_000;

/** What becomes of locks when their process loses its lease, says nothing, or leaves. */
export function defineLeases(withLocks: WithLocks): void {
  defineLease(withLocks);
  defineLeaving(withLocks);
  defineSilence(withLocks);
}

function defineLease(withLocks: WithLocks): void {
  describe('the lease of locks', () => {
    test('when it is lost, so are they; later ones get another', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        await scene.expireLeases();
        assert.equal(held.lost.aborted || (await aborted(held.lost, scene)), true);
        const next = await waiting;
        assert.equal(next.lost.aborted, false);
        const commit = { compares: held.compares, success: held.deletes, failure: [] };
        assert.equal((await scene.coordinator.transaction(commit)).succeeded, false);
        await held.release();
        assert.deepEqual(await scene.pushes(), ['p1 held']);
        assert.equal(scene.gauge('locks_held', 'refs'), 1);
        await next.release();
        assert.equal(scene.gauge('locks_held', 'refs'), 0);
      });
    });
    test('when it is lost here and lives on elsewhere, what is left under it goes with it', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks(1).acquire(scene.ask('p0', heads('a')));
        const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        scene.loseDeletions(true);
        const endLeases = scene.doubtLeases();
        await until('there are three', async () => (await scene.pushes()).length === 3);
        scene.loseDeletions(false);
        await endLeases();
        await held.release();
        const next = await waiting;
        assert.deepEqual(await scene.pushes(), ['p1 held']);
        await next.release();
        assert.deepEqual(await scene.pushes(), []);
      });
    });
    test('close ends waiting and releases everything', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        assert.equal(scene.gauge('locks_waiting', 'refs'), 1);
        const ended = assert.rejects(waiting, { code: 'unavailable' });
        await scene.locks().close();
        await ended;
        assert.deepEqual(await scene.pushes(), []);
        const commit = { compares: held.compares, success: held.deletes, failure: [] };
        assert.equal((await scene.coordinator.transaction(commit)).succeeded, false);
        assert.equal(held.lost.aborted, false, 'the lease goes on');
        await assert.rejects(scene.locks().acquire(scene.ask('p2', heads('a'))), {
          code: 'unavailable',
        });
      });
    });
  });
}

function defineSilence(withLocks: WithLocks): void {
  describe('what a process holds of which nothing is heard', () => {
    test('is given to who waits for it; it takes it anew if it lives', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks(0).acquire(scene.ask('p0', heads('a')));
        const first = scene.locks(0).acquire({ ...scene.ask('p1', heads('a')), timeoutMs: dayMs });
        await scene.queued('p1');
        scene.silence();
        // However often the clock goes on until then.
        const patient = { ...scene.ask('p2', heads('a')), timeoutMs: dayMs };
        const waiting = scene.locks(1).acquire(patient);
        await scene.queued('p2');
        await until('it is given', async () => {
          scene.clock.advance(500);
          return (await scene.pushes()).includes('p2 held');
        });
        const other = await waiting;
        assert.equal(held.lost.aborted, false, 'its lease lives on');
        const commit = { compares: held.compares, success: held.deletes, failure: [] };
        assert.equal((await scene.coordinator.transaction(commit)).succeeded, false);
        await held.release();
        assert.ok((await scene.pushes()).includes('p2 held'));
        await other.release();
        await (await first).release();
        assert.deepEqual(await scene.pushes(), []);
      });
    });
    test('stays when it was heard, or when who waits is of the same process', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks(1).acquire(scene.ask('p0', heads('a')));
        const waiting = scene.locks(0).acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        const behind = scene.locks(0).acquire(scene.ask('p2', heads('a')));
        await scene.queued('p2');
        for (let looks = 0; looks < 6; looks += 1) {
          scene.clock.advance(500);
          await scene.settle();
        }
        assert.deepEqual(await scene.pushes(), ['p0 held', 'p1 waiting', 'p2 waiting']);
        await held.release();
        const next = await waiting;
        scene.silence();
        for (let looks = 0; looks < 6; looks += 1) {
          scene.clock.advance(500);
          await scene.settle();
        }
        assert.deepEqual(await scene.pushes(), ['p2 waiting', 'p1 held']);
        await next.release();
        await (await behind).release();
      });
    });
  });
}

function defineLeaving(withLocks: WithLocks): void {
  test('what cannot be released at close goes later, although the lease lives on', async () => {
    await withLocks({}, async (scene) => {
      const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
      const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
      const ended = assert.rejects(waiting, { code: 'unavailable' });
      await scene.queued('p1');
      scene.loseDeletions(true);
      await scene.locks().close();
      await ended;
      assert.deepEqual(await scene.pushes(), ['p0 held', 'p1 waiting']);
      scene.loseDeletions(false);
      await until('there are none', async () => {
        scene.clock.advance(1_000);
        return (await scene.pushes()).length === 0;
      });
      assert.equal(held.lost.aborted, false);
    });
  });
}

async function aborted(signal: AbortSignal, { coordinator }: LockScene): Promise<boolean> {
  await until('it is aborted', async () => {
    await answered(coordinator);
    return signal.aborted;
  });
  return signal.aborted;
}
