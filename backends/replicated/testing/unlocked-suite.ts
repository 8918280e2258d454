import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Coordinator, Transaction } from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import { keys, prefixEnd } from '../../contract/keys.js';
import type { RefCommand } from '../../contract/objects.js';
import { openClusterIdentity } from '../../coordination/cluster-identity.js';
import { patientLeaseMs } from '../../coordination/etcd/testing/etcd-fixture.js';
import { guardCoordinator } from '../../coordination/guarded-coordinator.js';
import { createLocks, type Locks } from '../../coordination/locks.js';
import { createProcessLease, type OwnedProcessLease } from '../../coordination/process-lease.js';
import { silentLogger } from '../../coordination/test-environment.js';
import { emptyDigest } from '../../git/digest.js';
import { silentMeter, systemClock, zeroOid } from '../../local/testing/local-fixture.js';
import { type Basis, basisUnderLocks } from '../basis.js';
import { CommitQueue, type ReadyPush } from '../commit-queue.js';
import { Presence } from '../presence.js';
import { decodeLogEntry, encodeRecord } from '../records.js';
import { fenceDown, withoutLocks } from '../without-locks.js';
import { intercepting, isCommit, type Step } from './fault-coordinator.js';
import { plainRecord } from './plain-record.js';

const id = 'a'.repeat(32);
const random = { bytes: (length: number) => randomBytes(length) };
const logger = silentLogger;
const clock = { ...systemClock, sleep: () => Promise.resolve() };
/** On which who waits again and again holds up nobody. */
const hasty = { ...systemClock, sleep: () => delay(1) };

/** One of two processes that push to the same repository. */
interface FrontEnd {
  readonly lease: OwnedProcessLease;
  readonly locks: Locks;
  readonly presence: Presence;
}

/** What a push without locks is committed by, and what stands in its way; on any coordinator. */
export function defineUnlockedSuite(
  name: string,
  open: () => Promise<{
    readonly coordinator: Coordinator;
    readonly close: () => Promise<void>;
  }>,
): void {
  suite(`pushes without locks, ${name}`, () => {
    let opened: Awaited<ReturnType<typeof open>>;
    let coordinator: Coordinator;
    let frontEnds: readonly FrontEnd[];
    let commits: Transaction[];

    beforeEach(async () => {
      opened = await open();
      ({ coordinator } = opened);
      frontEnds = ['one', 'two'].map((holder) => {
        const lease = createProcessLease({
          coordinator,
          clock: systemClock,
          logger,
          ttlMs: patientLeaseMs,
        });
        const around = { coordinator, lease, clock: systemClock, random, meter: silentMeter };
        const locks = createLocks({ ...around, logger, holder });
        return { lease, locks, presence: new Presence({ ...around, logger }) };
      });
      commits = [];
      await put(keys.repo(id), record);
      await put(keys.head(id), { generation: 0, digest: emptyDigest({ symref: 'refs/heads/x' }) });
    });
    afterEach(async () => {
      for (const { locks, lease } of frontEnds) {
        await locks.close();
        await lease.close();
      }
      await opened.close();
    });

    async function put(key: string, value: object): Promise<void> {
      const success = [{ type: 'put', key, value: encodeRecord(value) } as const];
      await coordinator.transaction({ compares: [], success, failure: [] });
    }

    function of(index: number): FrontEnd {
      const frontEnd = frontEnds[index];
      assert.ok(frontEnd !== undefined);
      return frontEnd;
    }

    async function basis(): Promise<Basis> {
      const wanted = [keys.repo(id), keys.head(id)];
      const read = await Promise.all(wanted.map((key) => coordinator.get(key)));
      return basisUnderLocks(id, new Map(wanted.map((key, index) => [key, read[index]])));
    }

    async function ready(pushId: string, ref = 'refs/heads/main'): Promise<ReadyPush> {
      const { locks, presence } = of(0);
      const seen = await basis();
      const announced = await presence.announced();
      const { hold, exactHead } = withoutLocks(locks, seen, { refs: [ref], presence: announced });
      return {
        ...pushOf(pushId, ref, seen),
        frontEnd: announced.id,
        held: hold,
        exactHead,
      };
    }

    async function readyLocked(pushId: string, ref = 'refs/heads/main'): Promise<ReadyPush> {
      const { locks } = of(1);
      const held = await locks.acquire({
        repositoryId: id,
        scope: { refs: [ref] },
        pushId,
        timeoutMs: 30_000,
        signal: new AbortController().signal,
        read: [keys.head(id), keys.repo(id)],
      });
      return { ...pushOf(pushId, ref, basisUnderLocks(id, held.reads)), held };
    }

    /** A commit queue of one process; the commits from it go through `step`. */
    function queue(step?: Step): CommitQueue {
      const own = intercepting(coordinator, (transaction) => {
        if (!isCommit(transaction)) return undefined;
        commits.push(transaction);
        return step;
      });
      return new CommitQueue(id, { coordinator: own, clock, meter: silentMeter, logger });
    }

    async function assertLog(pushIds: readonly string[]): Promise<void> {
      const rangeEnd = prefixEnd(keys.log(id));
      const { entries } = await coordinator.range(keys.log(id), { rangeEnd });
      assert.deepEqual(
        entries.map(decodeLogEntry).map(({ pushId }) => pushId),
        pushIds,
      );
      const { head } = await basis();
      assert.equal(head.generation, pushIds.length);
      const locks = await coordinator.range(keys.allLocks, { rangeEnd: prefixEnd(keys.allLocks) });
      assert.deepEqual(locks.entries, []);
    }

    test('is committed by one transaction, and no other', async () => {
      const push = await ready('a');
      assert.equal((await queue().commit(push)).status, 'committed');
      assert.equal(commits.length, 1);
      const before = commits[0]?.success.filter(({ type }) => type === 'delete');
      assert.deepEqual(before, [], 'there is no lock to delete');
      await assertLog(['a']);
    });

    test('never follows another head than its own', async () => {
      const [known, unknown, other] = [
        await ready('a'),
        await ready('b'),
        await ready('c', 'refs/c'),
      ];
      const commit = queue();
      assert.equal((await commit.commit(other)).status, 'committed');
      assert.equal((await commit.commit(known)).status, 'lost-lock');
      assert.equal(commits.length, 1, 'this process knew');
      assert.equal((await queue().commit(unknown)).status, 'lost-lock');
      assert.equal(commits.length, 2);
      await assertLog(['c']);
    });

    test('of those that come together one is the next, and who holds locks follows', async () => {
      const pushes = [
        await readyLocked('l', 'refs/l'),
        await ready('a'),
        await ready('b', 'refs/b'),
      ];
      const commit = queue();
      const outcomes = await Promise.all(pushes.map((push) => commit.commit(push)));
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        ['committed', 'committed', 'lost-lock'],
      );
      await assertLog(['a', 'l']);
    });

    for (const other of ['refs/heads/main', 'refs/heads/main/below', 'refs/heads'] as const) {
      test(`does not overtake who has locked ${other}`, async () => {
        const push = await ready('a');
        const locked = await readyLocked('l', other);
        assert.equal((await queue().commit(push)).status, 'lost-lock');
        assert.equal((await queue().commit(locked)).status, 'committed');
        await assertLog(['l']);
      });
    }

    test('goes past who has locked something else', async () => {
      const push = await ready('a');
      const locked = await readyLocked('l', 'refs/heads/other');
      assert.equal((await queue().commit(push)).status, 'committed');
      assert.equal((await queue().commit(locked)).status, 'committed');
      await assertLog(['a', 'l']);
    });

    test('does not overtake who waits', async () => {
      const push = await ready('a', 'refs/heads/elsewhere');
      await put(keys.lockWaiter(id, 'somebody'), {});
      assert.equal((await queue().commit(push)).status, 'lost-lock');
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'delete', key: keys.lockWaiter(id, 'somebody') }],
        failure: [],
      });
      await assertLog([]);
    });

    test('is not committed by a front-end that has lost its lease', async () => {
      const push = await ready('a');
      await (await of(0).lease.current()).revoke();
      assert.equal((await queue().commit(push)).status, 'lost-lock');
      // It announces itself anew by itself, under another name.
      assert.equal((await queue().commit(await ready('b'))).status, 'committed');
      await assertLog(['b']);
    });

    test('is not committed once the fence of its front-end is down, whichever key is there else', async () => {
      const push = await ready('a');
      const { fence } = push.held;
      assert.ok(fence !== undefined);
      const { succeeded } = await coordinator.transaction({ ...fenceDown(fence), failure: [] });
      assert.ok(succeeded);
      assert.equal((await queue().commit(push)).status, 'lost-lock');
      fence.gone();
      // Under the same name: nobody takes over what it has left to do.
      const next = await ready('b');
      assert.deepEqual(next.held.locks, push.held.locks);
      assert.equal((await queue().commit(next)).status, 'committed');
      // The first one is of no use any more, though there is a fence.
      assert.equal((await queue().commit(push)).status, 'lost-lock');
      await assertLog(['b']);
    });

    test('costs one push its commit when the fence of its front-end is gone without a word, and no more', async () => {
      const push = await ready('a');
      const { fence } = push.held;
      assert.ok(fence !== undefined);
      // Taken down by a request whose answer was lost, and which came late.
      await coordinator.transaction({ ...fenceDown(fence), failure: [] });
      assert.equal((await queue().commit(push)).status, 'lost-lock');
      assert.equal((await queue().commit(await ready('b'))).status, 'committed');
      await assertLog(['b']);
    });

    test('does not follow a head that has its revision and is another', async () => {
      const push = await ready('a');
      const { locks, presence } = of(0);
      const restored = {
        ...(await basis()),
        headValue: encodeRecord({ generation: 0, digest: 'x' }),
      };
      const refs = ['refs/heads/main'];
      const { hold, exactHead } = withoutLocks(locks, restored, {
        refs,
        presence: await presence.announced(),
      });
      const outcome = await queue().commit({ ...push, held: hold, exactHead });
      assert.equal(outcome.status, 'lost-lock');
      await assertLog([]);
    });

    for (const [how, make] of [
      ['without locks', ready],
      ['under locks', readyLocked],
    ] as const) {
      test(`${how}: what an older copy of the coordinator took is not told as done`, async () => {
        const directory = await mkdtemp(join(tmpdir(), 'quorate-older-'));
        const file = join(directory, 'cluster.json');
        const around = { clock: hasty, random, logger };
        const identity = await openClusterIdentity({ ...around, coordinator, file });
        try {
          const push = await make('a');
          // As it is when the one that was asked before had gone further.
          identity.observe(identity.revision + 1_000, 0);
          const guarded = guardCoordinator(coordinator, identity);
          const own = new CommitQueue(id, { ...around, coordinator: guarded, meter: silentMeter });
          await assert.rejects(own.commit(push), { code: 'outcome-unknown' });
          assert.equal(identity.frozen?.reason, 'went-back');
          await assertLog(['a']);
          await assert.rejects(own.commit(await make('b')), { code: 'unavailable' });
        } finally {
          await identity.close();
          await rm(directory, { recursive: true });
        }
      });
    }

    const lost = new QuorateError('outcome-unknown', 'lost');

    test('a lost answer: it has happened', async () => {
      const push = await ready('a');
      const outcome = await queue(async (run) => {
        await run();
        // Others go on meanwhile.
        assert.equal((await queue().commit(await readyLocked('l'))).status, 'committed');
        throw lost;
      }).commit(push);
      assert.equal(outcome.status === 'committed' && outcome.entry.generation, 1);
      await assertLog(['a', 'l']);
    });

    test('a lost answer: it has not happened, and never will', async () => {
      const push = await ready('a');
      const before = await basis();
      let late: (() => Promise<unknown>) | undefined;
      const outcome = await queue(async (run) => {
        late = run;
        throw lost;
      }).commit(push);
      assert.equal(outcome.status, 'lost-lock');
      await late?.();
      await assertLog([]);
      const after = await basis();
      assert.deepEqual(after.head, before.head);
      assert.ok(after.headRevision > before.headRevision);
    });

    test('a lost answer: another got in first, whose entry is gone by now', async () => {
      const push = await ready('a');
      const outcome = await queue(async () => {
        assert.equal((await queue().commit(await readyLocked('l'))).status, 'committed');
        const success = [{ type: 'delete', key: keys.logEntry(id, 1) } as const];
        await coordinator.transaction({ compares: [], success, failure: [] });
        throw lost;
      }).commit(push);
      assert.equal(outcome.status, 'lost-lock');
    });

    for (const what of ['its outbox record is left', 'its front-end is gone'] as const) {
      test(`a lost answer: no entry, and ${what}: no verdict`, async () => {
        const push = await ready('a');
        const committed = queue(async (run) => {
          await run();
          const gone = [keys.logEntry(id, 1)];
          if (what === 'its front-end is gone') {
            gone.push(keys.outbox(id, 'a'), keys.frontEnd(push.frontEnd));
          }
          await coordinator.transaction({
            compares: [],
            success: gone.map((key) => ({ type: 'delete', key })),
            failure: [],
          });
          throw lost;
        }).commit(push);
        await assert.rejects(committed, { code: 'outcome-unknown' });
      });
    }
  });
}

const record = {
  name: 'team/app',
  ...plainRecord,
};

function pushOf(pushId: string, ref: string, seen: Basis): Omit<ReadyPush, 'held' | 'exactHead'> {
  const updates: RefCommand[] = [{ ref, oldOid: zeroOid, newOid: '1'.repeat(40) }];
  return {
    configRevision: seen.configRevision,
    basis: seen.head.generation,
    headSeen: seen,
    frontEnd: 'somebody',
    changes: { updates },
    entry: { pushId, updates, prepared: ['s'], actor: 'a', atMs: 1 },
  };
}
