import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import * as fc from 'fast-check';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { conflictTest } from './lock-plan.js';
import { defineLeases } from './locks-leases-suite.js';
import type { HeldLocks } from './locks.js';
import { heads, type LockStore, type WithLocks, withLocksOn } from './locks-scene.js';
import { until } from '../contract/testing/until.js';

const repositoryId = 'r1';

/** The promises of `Locks`, on any coordinator. `runs`: random schedules that are tried. */
export function defineLocksSuite(name: string, store: LockStore, runs: number): void {
  const withLocks: WithLocks = (options, run) => withLocksOn(store, options, run);
  describe(`locks on ${name}`, () => {
    defineHolding(withLocks, runs);
    defineWaiting(withLocks);
    defineLeases(withLocks);
    defineLostAnswers(withLocks);
    defineListing(withLocks);
  });
}

function defineHolding(withLocks: WithLocks, runs: number): void {
  test('one transaction takes every lock and reads the basis', async () => {
    await withLocks({}, async (scene) => {
      const { coordinator } = scene;
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'put', key: keys.head(repositoryId), value: Buffer.from('7') }],
        failure: [],
      });
      const held = await scene.locks().acquire({
        ...scene.ask('p1', ['refs/heads/a', 'refs/heads/b', 'refs/heads/a']),
        read: [keys.head(repositoryId), keys.repo(repositoryId)],
      });
      assert.equal(held.scope, 'refs');
      assert.equal(held.locks.length, 2);
      assert.equal(
        Buffer.from(held.reads.get(keys.head(repositoryId))?.value ?? []).toString(),
        '7',
      );
      assert.ok(held.reads.has(keys.repo(repositoryId)));
      assert.equal(held.reads.get(keys.repo(repositoryId)), undefined);
      const commit = { compares: held.compares, success: held.deletes, failure: [] };
      assert.equal((await coordinator.transaction(commit)).succeeded, true);
      held.released();
      assert.equal((await coordinator.transaction(commit)).succeeded, false);
      await held.release();
    });
  });
  test('release is idempotent and spares a lock that others have taken since', async () => {
    await withLocks({}, async (scene) => {
      const held = await scene.locks().acquire(scene.ask('p1', heads('a')));
      await Promise.all([held.release(), held.release()]);
      const next = await scene.locks(1).acquire(scene.ask('p2', heads('a')));
      await held.release();
      assert.deepEqual(await scene.pushes(), ['p2 held']);
      await next.release();
    });
  });
  for (const [desc, a, b, conflict] of [
    ['a ref with itself', 'a', 'a', true],
    ['a ref with one below it', 'a', 'a/b', true],
    ['a ref with one far below it', 'a', 'a/b/c', true],
    ['a ref with one above it', 'a/b/c', 'a', true],
    ['not a ref that begins alike', 'a', 'ab', false],
    ['not a ref that sorts between', 'a', 'a-b', false],
    ['not a sibling', 'a/b', 'a/c', false],
  ] as const) {
    test(`excludes: ${desc}`, async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p1', heads(a)));
        const second = scene.locks(1).acquire({ ...scene.ask('p2', heads(b)), timeoutMs: 0 });
        if (conflict) {
          await assert.rejects(second, { code: 'deadline-exceeded' });
        } else {
          await (await second).release();
        }
        assert.equal(conflictTest(target(a))(target(b)), conflict);
        await held.release();
      });
    });
  }
  test('a repository lock excludes every ref, of its repository only', async () => {
    await withLocks({}, async (scene) => {
      const held = await scene.locks().acquire(scene.ask('p1', 'repository'));
      assert.equal(held.scope, 'repository');
      const same = { ...scene.ask('p2', heads('a')), timeoutMs: 0 };
      await assert.rejects(scene.locks(1).acquire(same), { code: 'deadline-exceeded' });
      await assert.rejects(scene.locks(1).acquire({ ...same, scope: 'repository' }), {
        code: 'deadline-exceeded',
      });
      const other = await scene.locks(1).acquire({ ...same, repositoryId: 'r2' });
      await other.release();
      await held.release();
    });
  });
  test('refs that need more than 100 compares take the repository lock', async () => {
    await withLocks({}, async (scene) => {
      const many = Array.from({ length: 400 }, (_, i) => `refs/heads/topic/${i}`);
      const few = await scene.locks().acquire(scene.ask('p1', many.slice(0, 40)));
      assert.equal(few.scope, 'refs');
      assert.ok(few.compares.length <= 50);
      await few.release();
      const all = await scene.locks().acquire(scene.ask('p2', many));
      assert.equal(all.scope, 'repository');
      assert.equal(all.locks.length, 1);
      await all.release();
      const long = await scene.locks().acquire(scene.ask('p3', [`refs/heads/${'é'.repeat(510)}`]));
      assert.equal(long.scope, 'repository', 'a key for this ref would be too long');
      await long.release();
    });
  });
  test('two writers never hold refs in conflict, and nothing is left', { timeout: 600_000 }, () =>
    excludesAtRandom(withLocks, runs),
  );
}

function defineWaiting(withLocks: WithLocks): void {
  describe('waiting for locks', () => {
    test('is first come, first served, across front-ends', async () => {
      await withLocks({}, async (scene) => {
        const first = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const order: string[] = [];
        const waiting: Promise<void>[] = [];
        for (const [i, refs] of [['a/x'], ['a'], ['b', 'a/y'], ['a/x', 'a/y']].entries()) {
          const pushId = `p${i + 1}`;
          const acquired = scene.locks(i % 2).acquire(scene.ask(pushId, heads(...refs)));
          waiting.push(enter(acquired, pushId, order));
          await scene.queued(pushId);
        }
        await first.release();
        await Promise.all(waiting);
        assert.deepEqual(order, ['p1', 'p2', 'p3', 'p4']);
      });
    });
    test('does not hold up those it is not in conflict with', async () => {
      await withLocks({}, async (scene) => {
        const first = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const second = scene.locks().acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        const other = await scene.locks(1).acquire(scene.ask('p2', heads('b')));
        assert.deepEqual([...(await scene.pushes())].sort(), ['p0 held', 'p1 waiting', 'p2 held']);
        await other.release();
        await first.release();
        await (await second).release();
      });
    });
    test('for the repository, stops later ref locks, so that it is not starved', async () => {
      await withLocks({}, async (scene) => {
        const first = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const order: string[] = [];
        const exclusive = enter(scene.locks(1).acquire(scene.ask('p1', 'repository')), 'p1', order);
        await scene.queued('p1');
        const later = enter(scene.locks().acquire(scene.ask('p2', heads('b'))), 'p2', order);
        await scene.queued('p2');
        assert.deepEqual(order, []);
        await first.release();
        await Promise.all([exclusive, later]);
        assert.deepEqual(order, ['p1', 'p2']);
      });
    });
    test('for the global lock, ends all others first and holds up all that come later', async () => {
      await withLocks({}, async (scene) => {
        const one = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const two = await scene
          .locks()
          .acquire({ ...scene.ask('p1', heads('a')), repositoryId: 'r2' });
        let entered = false;
        const global = scene
          .locks(1)
          .acquireGlobal(scene.ask('p2', []))
          .then((held) => {
            entered = true;
            return held;
          });
        await scene.queued('p2');
        const later = scene.locks().acquire({ ...scene.ask('p3', heads('z')), repositoryId: 'r3' });
        await scene.queued('p3');
        await one.release();
        await scene.settle();
        assert.equal(entered, false);
        await two.release();
        const held = await global;
        assert.equal(held.scope, 'global');
        assert.deepEqual([...(await scene.pushes())].sort(), ['p2 held', 'p3 waiting']);
        await held.release();
        await (await later).release();
      });
    });
    test('ends at its deadline, says who was in the way, and leaves no key', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        scene.clock.advance(3_000);
        await scene.settle();
        const waiting = scene
          .locks(1)
          .acquire({ ...scene.ask('p1', heads('a/b')), timeoutMs: 2_000 });
        await scene.queued('p1');
        const ended = assert.rejects(waiting, (error) => {
          assert.ok(error instanceof QuorateError);
          assert.equal(error.code, 'deadline-exceeded');
          assert.match(error.message, /refs\/heads\/a, held by front-end-0 for 5 s/);
          const { ref, holder, pushId, ageMs } = error.details;
          assert.deepEqual(
            { ref, holder, pushId, ageMs },
            { ref: 'refs/heads/a', holder: 'front-end-0', pushId: 'p0', ageMs: 5_000 },
          );
          return true;
        });
        scene.clock.advance(2_000);
        await ended;
        assert.deepEqual(await scene.pushes(), ['p0 held']);
        await held.release();
      });
    });
    test('ends when the caller gives up, or before it began', async () => {
      await withLocks({}, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const leaving = new AbortController();
        const wish = { ...scene.ask('p1', heads('a')), signal: leaving.signal };
        const waiting = scene.locks(1).acquire(wish);
        await scene.queued('p1');
        leaving.abort();
        await assert.rejects(waiting, { code: 'cancelled' });
        await assert.rejects(scene.locks(1).acquire(wish), { code: 'cancelled' });
        assert.deepEqual(await scene.pushes(), ['p0 held']);
        await held.release();
      });
    });
    test('is refused when the queue is full', async () => {
      await withLocks({ maxWaiters: 2 }, async (scene) => {
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        const first = scene.locks(0).acquire(scene.ask('p1', heads('a')));
        await scene.queued('p1');
        const second = scene.locks(1).acquire(scene.ask('p2', heads('a')));
        await scene.queued('p2');
        for (const i of [0, 1]) {
          await assert.rejects(scene.locks(i).acquire(scene.ask('p9', heads('a'))), {
            code: 'resource-exhausted',
          });
        }
        await held.release();
        await (await first).release();
        await (await second).release();
      });
    });
  });
}

function defineLostAnswers(withLocks: WithLocks): void {
  describe('a lock whose answer is lost', () => {
    for (const how of ['done', 'undone'] as const) {
      test(`is held once all the same: at once, ${how}`, async () => {
        await withLocks({}, async (scene) => {
          scene.loseAnswer(how);
          const held = await scene.locks().acquire({
            ...scene.ask('p0', heads('a', 'b')),
            read: [keys.head(repositoryId)],
          });
          assert.ok(held.reads.has(keys.head(repositoryId)));
          assert.deepEqual(await scene.pushes(), ['p0 held', 'p0 held']);
          const commit = { compares: held.compares, success: held.deletes, failure: [] };
          assert.equal((await scene.coordinator.transaction(commit)).succeeded, true);
          held.released();
        });
      });
      test(`is held once all the same: from the queue, ${how}`, async () => {
        await withLocks({}, async (scene) => {
          const first = await scene.locks(1).acquire(scene.ask('p0', heads('a')));
          const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
          await scene.queued('p1');
          scene.loseAnswer(how);
          await first.release();
          const held = await waiting;
          assert.deepEqual(await scene.pushes(), ['p1 held']);
          const commit = { compares: held.compares, success: held.deletes, failure: [] };
          assert.equal((await scene.coordinator.transaction(commit)).succeeded, true);
          held.released();
        });
      });
    }
    test('and that happens after it was given up is found and undone', async () => {
      await withLocks({}, async (scene) => {
        const late = scene.loseAnswer('late');
        const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
        await held.release();
        await late();
        assert.deepEqual(
          await scene.pushes(),
          ['p0 held'],
          'it came when nobody wanted it any more',
        );
        scene.clock.advance(1_000);
        await until('there are none', async () => (await scene.pushes()).length === 0);
      });
    });
  });

  test('a turn in the queue is taken once, however late the first try arrives', async () => {
    await withLocks({}, async (scene) => {
      const first = await scene.locks(1).acquire(scene.ask('p0', heads('a')));
      const waiting = scene.locks().acquire(scene.ask('p1', heads('a')));
      await scene.queued('p1');
      const late = scene.loseAnswer('late');
      await first.release();
      await (await waiting).release();
      await late();
      assert.deepEqual(await scene.pushes(), []);
    });
  });
}

function defineListing(withLocks: WithLocks): void {
  test('locks are listed with their holders', async () => {
    await withLocks({}, async (scene) => {
      const held = await scene.locks().acquire(scene.ask('p0', heads('a')));
      const waiting = scene.locks(1).acquire(scene.ask('p1', 'repository'));
      await scene.queued('p1');
      scene.clock.advance(1_500);
      await scene.settle();
      assert.deepEqual(await scene.locks().list(), [
        {
          scope: 'ref',
          repositoryId,
          ref: 'refs/heads/a',
          state: 'held',
          holder: 'front-end-0',
          pushId: 'p0',
          ageMs: 1_500,
        },
        {
          scope: 'repository',
          repositoryId,
          state: 'waiting',
          holder: 'front-end-1',
          pushId: 'p1',
          ageMs: 1_500,
        },
      ]);
      await held.release();
      await (await waiting).release();
      const left = await scene.coordinator.range(keys.allLocks, {
        rangeEnd: prefixEnd(keys.allLocks),
      });
      assert.deepEqual(left.entries, []);
    });
  });
}

async function enter(acquired: Promise<HeldLocks>, pushId: string, order: string[]): Promise<void> {
  const held = await acquired;
  order.push(pushId);
  await held.release();
}

function target(name: string): Parameters<typeof conflictTest>[0] {
  return { scope: 'refs', repositoryId, refs: heads(name) };
}

async function excludesAtRandom(withLocks: WithLocks, runs: number): Promise<void> {
  const wishes = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.uniqueArray(fc.constantFrom('a', 'a/b', 'a/b/c', 'a/d', 'ab', 'b'), {
        minLength: 1,
        maxLength: 3,
      }),
    },
    { weight: 1, arbitrary: fc.constant('repository' as const) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(wishes, { minLength: 2, maxLength: 24 }), async (plan) => {
      await withLocks({}, async (scene) => {
        const inside = new Map<string, readonly string[] | 'repository'>();
        const write = async (wish: readonly string[] | 'repository', i: number): Promise<void> => {
          const scope = wish === 'repository' ? wish : heads(...wish);
          const held = await scene.locks(i % 2).acquire(scene.ask(`p${i}`, scope));
          for (const other of inside.values()) assert.ok(!meet(scope, other), 'both are inside');
          inside.set(`p${i}`, scope);
          await setImmediate();
          await setImmediate();
          inside.delete(`p${i}`);
          await held.release();
        };
        await Promise.all(plan.map(write));
        assert.deepEqual(await scene.pushes(), []);
      });
    }),
    { numRuns: runs },
  );
}

/** Independent of the code under test. */
function meet(a: readonly string[] | 'repository', b: readonly string[] | 'repository'): boolean {
  if (a === 'repository' || b === 'repository') return true;
  return a.some((x) => b.some((y) => x === y || x.startsWith(`${y}/`) || y.startsWith(`${x}/`)));
}
