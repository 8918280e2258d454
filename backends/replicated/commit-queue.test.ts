import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import type { HeldLocks } from '../coordination/locks.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator, Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { RefCommand } from '../contract/objects.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter, emptyDigest } from '../git/digest.js';
import { silentMeter, systemClock, zeroOid } from '../local/testing/local-fixture.js';
import type { HeadSeen } from './basis.js';
import { type CommitOutcome, CommitQueue, type ReadyPush } from './commit-queue.js';
import { decodeHead, decodeLogEntry, encodeRecord } from './records.js';
import { intercepting, isCommit, isResolution } from './testing/fault-coordinator.js';

const id = 'a'.repeat(32);
const start = { generation: 0, digest: emptyDigest({ symref: 'refs/heads/main' }) };

let directory: string;
let coordinator: Coordinator;
let configRevision: number;
let commits: Transaction[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-queue-'));
  coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  configRevision = await put(keys.repo(id), { any: 'thing' });
  await put(keys.head(id), start);
  commits = [];
});
afterEach(async () => {
  await coordinator.close();
  await rm(directory, { recursive: true });
});

async function put(key: string, record: object): Promise<number> {
  const { revision } = await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: encodeRecord(record) }],
    failure: [],
  });
  return revision;
}

async function erase(key: string): Promise<void> {
  await coordinator.transaction({ compares: [], success: [{ type: 'delete', key }], failure: [] });
}

/** A push that holds a lock for each of its refs. */
async function ready(
  name: string,
  { refs = 1, padding = 0 }: { refs?: number; padding?: number } = {},
): Promise<ReadyPush & { readonly ended: () => boolean }> {
  const updates = Array.from({ length: refs }, (_, i): RefCommand => {
    const ref = `refs/heads/${name}/${i}${'x'.repeat(padding)}`;
    return { ref, oldOid: zeroOid, newOid: '1'.repeat(40) };
  });
  const locks: { key: string; createRevision: number }[] = [];
  for (const { ref } of updates) {
    const key = keys.refLock(id, ref);
    locks.push({ key, createRevision: await put(key, {}) });
  }
  let released = false;
  const held: HeldLocks = {
    scope: 'refs',
    locks,
    reads: new Map(),
    compares: locks.map(({ key, createRevision }) => ({
      key,
      target: 'createRevision',
      op: '=',
      operand: createRevision,
    })),
    deletes: locks.map(({ key }) => ({ type: 'delete', key })),
    released: () => {
      released = true;
    },
    release: () => Promise.resolve(),
    lost: new AbortController().signal,
  };
  return {
    held,
    configRevision,
    basis: 0,
    frontEnd: 'me',
    changes: { updates },
    entry: { pushId: name, updates, prepared: ['s'], actor: 'a', atMs: 1 },
    ended: () => released,
  };
}

function queue(wrap: (coordinator: Coordinator) => Coordinator = (inner) => inner): CommitQueue {
  return new CommitQueue(id, {
    coordinator: intercepting(wrap(coordinator), (transaction) => {
      if (isCommit(transaction)) commits.push(transaction);
      return undefined;
    }),
    clock: { ...systemClock, sleep: () => Promise.resolve() },
    meter: silentMeter,
    logger: silentLogger,
  });
}

function generationOf(outcome: CommitOutcome): number | undefined {
  return outcome.status === 'committed' ? outcome.entry.generation : undefined;
}

async function log(): Promise<readonly LogEntry[]> {
  const { entries } = await coordinator.range(keys.log(id), { rangeEnd: prefixEnd(keys.log(id)) });
  return entries.map(decodeLogEntry);
}

async function locked(): Promise<number> {
  const { entries } = await coordinator.range(keys.locks(id), {
    rangeEnd: prefixEnd(keys.locks(id)),
  });
  return entries.length;
}

/** The log is a chain from the start to the head, with no push twice. */
async function assertChain(pushIds: readonly string[]): Promise<void> {
  const entries = await log();
  assert.deepEqual(entries.map(({ pushId }) => pushId).toSorted(), [...pushIds].toSorted());
  let { generation, digest } = start;
  for (const entry of entries) {
    generation++;
    digest = digestAfter(digest, entry.updates, entry.head);
    assert.deepEqual([entry.generation, entry.digest], [generation, digest]);
  }
  const head = await coordinator.get(keys.head(id));
  assert.ok(head !== undefined);
  assert.deepEqual(decodeHead(head), { generation, digest });
  for (const pushId of pushIds) {
    assert.ok((await coordinator.get(keys.outbox(id, pushId))) !== undefined);
  }
}

test('a head that was read with the locks stands against one of the same revision, of before the coordinator was put back', async () => {
  const [before, after] = [await ready('before'), await ready('after')];
  const commit = queue((inner) =>
    intercepting(inner, (one) =>
      isCommit(one) && commits.length === 1
        ? async (run) => {
            const result = await run();
            return { ...result, revision: result.revision + 1 };
          }
        : undefined,
    ),
  );
  assert.equal(generationOf(await commit.commit(before)), 1);
  // The copy lacks that push, and its head has by chance the revision that it got.
  const headRevision = await put(keys.head(id), start);
  await erase(keys.logEntry(id, 1));
  await erase(keys.outbox(id, 'before'));
  const headSeen = { head: start, headRevision };
  assert.equal(generationOf(await commit.commit({ ...after, headSeen })), 1);
  await assertChain(['after']);
});

test('pushes that are ready together share a transaction, as consecutive entries', async () => {
  const pushes = await Promise.all(['a', 'b', 'c'].map((name) => ready(name)));
  const commit = queue();
  const outcomes = await Promise.all(pushes.map((push) => commit.commit(push)));
  assert.deepEqual(outcomes.map(generationOf), [1, 2, 3]);
  assert.equal(commits.length, 1);
  await assertChain(['a', 'b', 'c']);
  assert.equal(await locked(), 0);
  assert.ok(pushes.every((push) => push.ended()));
  assert.ok(commit.idle);
});

test('of a batch, only the push that lost a lock is turned away', async () => {
  const [a, b, c] = [await ready('a'), await ready('b', { refs: 3 }), await ready('c')];
  await erase(b.held.locks[1]?.key ?? '');
  const commit = queue();
  const outcomes = await Promise.all([a, b, c].map((push) => commit.commit(push)));
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['committed', 'lost-lock', 'committed'],
  );
  await assertChain(['a', 'c']);
  assert.equal(b.ended(), false, 'its other locks are still to be released');
});

test('a lock that was lost and taken anew by another does not count', async () => {
  const push = await ready('a');
  const key = push.held.locks[0]?.key ?? '';
  await erase(key);
  await put(key, {});
  assert.deepEqual(await queue().commit(push), { status: 'lost-lock' });
  await assertChain([]);
  assert.equal(await locked(), 1, 'the other one keeps it');
});

test('a configuration that changed turns all away, before and in the transaction', async () => {
  const early = await ready('early');
  await put(keys.repo(id), { any: 'other' });
  assert.deepEqual(await queue().commit(early), { status: 'reconfigured' });
  configRevision = await put(keys.repo(id), { any: 'thing' });
  const late = await ready('late');
  let times = 0;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction) && times++ === 0
        ? async (run) => {
            await put(keys.repo(id), { any: 'other' });
            return run();
          }
        : undefined,
    ),
  );
  assert.deepEqual(await commit.commit(late), { status: 'reconfigured' });
  await assertChain([]);
});

test('a deleted repository takes no commit', async () => {
  const push = await ready('a');
  await erase(keys.head(id));
  await assert.rejects(queue().commit(push), { code: 'not-found' });
});

test('a head that moved is built upon: nothing is overwritten', async () => {
  const [mine, theirs] = [await ready('mine'), await ready('theirs')];
  let times = 0;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction) && times++ === 0
        ? async (run) => {
            await queue().commit(theirs);
            return run();
          }
        : undefined,
    ),
  );
  assert.equal(generationOf(await commit.commit(mine)), 2);
  await assertChain(['mine', 'theirs']);
});

test('batches stay within what a transaction may carry', async () => {
  const shapes = [
    ...Array.from({ length: 60 }, () => ({ refs: 1 })),
    ...Array.from({ length: 4 }, () => ({ refs: 50, padding: 150 })),
    ...Array.from({ length: 12 }, () => ({ refs: 30, padding: 700 })),
  ];
  const pushes = await Promise.all(shapes.map((shape, i) => ready(`p${i}`, shape)));
  const large = pushes.slice(-12).map((push) => {
    // As large as an entry may be before its updates stay with the voters.
    const updates = Array.from({ length: 250 }, () => push.changes.updates[0]).filter(
      (update) => update !== undefined,
    );
    return { ...push, entry: { ...push.entry, updates } };
  });
  const commit = queue();
  const outcomes = await Promise.all(
    [...pushes.slice(0, -12), ...large].map((push) => commit.commit(push)),
  );
  assert.ok(outcomes.every(({ status }) => status === 'committed'));
  assert.ok(commits.length > 3 && commits.length < 60, `${commits.length} transactions`);
  assert.equal((await log()).length, pushes.length);
});

async function seen(): Promise<HeadSeen> {
  const kv = await coordinator.get(keys.head(id));
  assert.ok(kv !== undefined);
  return { head: decodeHead(kv), headRevision: kv.modRevision };
}

/** A queue that counts the transactions that are no commit. */
function counting(): { readonly commit: CommitQueue; readonly reads: () => number } {
  let reads = 0;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) => {
      if (!isCommit(transaction)) reads++;
      return undefined;
    }),
  );
  return { commit, reads: () => reads };
}

test('a head that was read with the locks is not read again, nor one that was committed here', async () => {
  const { commit, reads } = counting();
  assert.equal(
    generationOf(await commit.commit({ ...(await ready('a')), headSeen: await seen() })),
    1,
  );
  assert.equal(generationOf(await commit.commit(await ready('b'))), 2);
  assert.equal(reads(), 0);
  assert.equal(commits.length, 2);
  await assertChain(['a', 'b']);
});

test('a head that is old by the time of the commit costs another transaction, and nothing else', async () => {
  const old = { ...(await ready('a')), headSeen: await seen() };
  await queue().commit(await ready('other'));
  const { commit, reads } = counting();
  assert.equal(generationOf(await commit.commit(old)), 2);
  assert.equal(reads(), 0);
  await assertChain(['other', 'a']);
});

test('pushes that were judged by two configurations are told apart by reading', async () => {
  const old = { ...(await ready('old')), headSeen: await seen() };
  configRevision = await put(keys.repo(id), { any: 'other' });
  const late = { ...(await ready('late')), headSeen: await seen() };
  const { commit, reads } = counting();
  const outcomes = await Promise.all([old, late].map((push) => commit.commit(push)));
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['reconfigured', 'committed'],
  );
  assert.equal(reads(), 1);
  await assertChain(['late']);
});

for (const code of ['outcome-unknown', 'internal'] as const) {
  test(`an answer that is lost (${code}) is found out for each push of the batch`, async () => {
    const pushes = [await ready('a'), await ready('b')];
    let times = 0;
    const commit = queue((inner) =>
      intercepting(inner, (transaction) =>
        isCommit(transaction) && times++ === 0
          ? async (run) => {
              await run();
              throw new QuorateError(code, 'lost');
            }
          : undefined,
      ),
    );
    const outcomes = await Promise.all(pushes.map((push) => commit.commit(push)));
    assert.deepEqual(outcomes.map(generationOf), [1, 2]);
    await assertChain(['a', 'b']);
  });
}

test('a commit whose answer was lost, and that has not happened, never happens', async () => {
  const push = await ready('a');
  let late: (() => Promise<unknown>) | undefined;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction)
        ? async (run) => {
            late = run;
            throw new QuorateError('outcome-unknown', 'lost');
          }
        : undefined,
    ),
  );
  assert.deepEqual(await commit.commit(push), { status: 'lost-lock' });
  await late?.();
  await assertChain([]);
});

test('without its locks and without an entry nobody can say: no verdict', async () => {
  const push = await ready('a');
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction)
        ? async () => {
            await erase(push.held.locks[0]?.key ?? '');
            throw new QuorateError('outcome-unknown', 'lost');
          }
        : undefined,
    ),
  );
  await assert.rejects(commit.commit(push), { code: 'outcome-unknown' });
  assert.equal(push.ended(), false);
});

test('what decides, and is not answered either, has decided: the push was not committed', async () => {
  const push = await ready('a');
  await put(keys.frontEnd('me'), {});
  let late: (() => Promise<unknown>) | undefined;
  let decided = 0;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) => {
      const isLate = isCommit(transaction);
      if (!isLate && (!isResolution(transaction) || decided++ > 0)) return undefined;
      return async (run) => {
        if (isLate) late = run;
        else await run();
        throw new QuorateError('outcome-unknown', 'lost');
      };
    }),
  );
  assert.deepEqual(await commit.commit(push), { status: 'lost-lock' });
  await late?.();
  assert.equal(await locked(), 0);
  await assertChain([]);
});

test('of a repository that is gone when the answer was lost nobody can say: no verdict', async () => {
  const key = keys.frontEnd('me');
  const createRevision = await put(key, {});
  const head = await coordinator.get(keys.head(id));
  assert.ok(head !== undefined);
  const { held, ...push } = await ready('a');
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction)
        ? async (run) => {
            await run();
            assert.equal((await log()).length, 1);
            // As the end of a deletion has it.
            for (const one of [keys.repo(id), keys.head(id), keys.outbox(id, 'a')])
              await erase(one);
            await erase(keys.logEntry(id, 1));
            throw new QuorateError('outcome-unknown', 'lost');
          }
        : undefined,
    ),
  );
  const withoutLocks = {
    ...push,
    held: { ...held, locks: [{ key, createRevision }], deletes: [] },
    exactHead: { headRevision: head.modRevision, headValue: head.value },
  };
  await assert.rejects(commit.commit(withoutLocks), { code: 'outcome-unknown' });
});

test('a coordinator that is away for a while after a lost answer is asked again', async () => {
  const push = await ready('a');
  let away = 5;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) => {
      if (isCommit(transaction)) {
        return async (run) => {
          await run();
          throw new QuorateError('outcome-unknown', 'lost');
        };
      }
      if (!isResolution(transaction) || away-- <= 0) return undefined;
      return () => Promise.reject(new QuorateError('unavailable', 'away'));
    }),
  );
  assert.equal(generationOf(await commit.commit(push)), 1);
});

test('a coordinator that is sure that nothing happened fails the push, and the next goes through', async () => {
  const [first, second] = [await ready('a'), await ready('b')];
  let times = 0;
  const commit = queue((inner) =>
    intercepting(inner, (transaction) =>
      isCommit(transaction) && times++ === 0
        ? () => Promise.reject(new QuorateError('unavailable', 'full'))
        : undefined,
    ),
  );
  await assert.rejects(commit.commit(first), { code: 'unavailable' });
  assert.equal(generationOf(await commit.commit(second)), 1);
  await assertChain(['b']);
});
