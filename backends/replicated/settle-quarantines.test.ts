import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { PrepareRequest } from '../contract/replica.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { encodeRecord, type RepositoryRecord } from './records.js';
import { settleQuarantines } from './settle-quarantines.js';
import { intercepting } from './testing/fault-coordinator.js';
import { plainRecord } from './testing/plain-record.js';

const store = 'store';

let directory: string;
let coordinator: Coordinator;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-settle-'));
  coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
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

interface Case {
  readonly desc: string;
  readonly id: string;
  /** Generation of the head; undefined: the repository is gone. */
  readonly head?: number;
  /** Undefined: the store has no copy of the repository. */
  readonly applied?: number;
  /** Generation of the push's entry in the log. */
  readonly entry?: number;
  /** Its lock: held by it, held by another, or gone. Undefined: it was never prepared. */
  readonly lock?: 'own' | 'other' | 'gone';
  /** Of a push without locks, whose lock is its front-end's key: whether the head is as it was. */
  readonly unlocked?: 'head stays' | 'head moved';
  /** As what the repository's record names this store; undefined: there is no record. */
  readonly named?: 'voters' | 'learners' | 'readers' | 'not at all';
  /** There is a word for this store by which what it has goes. */
  readonly evicted?: true;
  readonly dropped: boolean;
}

const cases: readonly Case[] = [
  { desc: 'never prepared', id: 'a', head: 3, applied: 3, dropped: true },
  { desc: 'its lock is held', id: 'b', head: 3, applied: 3, lock: 'own', dropped: false },
  { desc: 'its lock is gone', id: 'c', head: 3, applied: 3, lock: 'gone', dropped: true },
  { desc: 'its lock is now another’s', id: 'd', head: 3, applied: 3, lock: 'other', dropped: true },
  { desc: 'committed, not applied', id: 'e', head: 3, applied: 2, entry: 3, dropped: false },
  { desc: 'committed and applied', id: 'f', head: 3, applied: 3, entry: 3, dropped: true },
  {
    desc: 'committed under a lock that others hold now',
    id: 'g',
    head: 5,
    applied: 3,
    entry: 4,
    lock: 'other',
    dropped: false,
  },
  { desc: 'applied, others not yet', id: 'j', head: 5, applied: 4, entry: 4, dropped: true },
  { desc: 'the head is not applied', id: 'h', head: 3, applied: 2, lock: 'gone', dropped: false },
  { desc: 'the copy went elsewhere, and it was never prepared', id: 'k', head: 3, dropped: true },
  {
    desc: 'there is no copy and no record, and it was prepared',
    id: 'l',
    head: 3,
    lock: 'gone',
    dropped: false,
  },
  ...(['voters', 'learners', 'readers'] as const).map((named, index): Case => ({
    desc: `the copy was set aside, to be filled anew: one of the ${named}`,
    id: `filled-${index}`,
    head: 3,
    lock: 'gone',
    named,
    dropped: false,
  })),
  {
    desc: 'the copy went elsewhere',
    id: 'r',
    head: 3,
    lock: 'gone',
    named: 'not at all',
    dropped: true,
  },
  {
    desc: 'the copy went elsewhere, and its lock is held',
    id: 's',
    head: 3,
    lock: 'own',
    named: 'not at all',
    dropped: false,
  },
  {
    desc: 'the copy went elsewhere, and somebody has not applied it yet',
    id: 't',
    head: 3,
    entry: 2,
    lock: 'gone',
    named: 'not at all',
    dropped: false,
  },
  {
    desc: 'the copy goes elsewhere, and what it has prepared may be put aside',
    id: 'u',
    head: 3,
    lock: 'gone',
    named: 'not at all',
    evicted: true,
    dropped: false,
  },
  {
    desc: 'the copy went elsewhere; without locks, its front-end is gone',
    id: 'v',
    head: 3,
    lock: 'gone',
    unlocked: 'head stays',
    named: 'not at all',
    dropped: true,
  },
  {
    desc: 'the copy went elsewhere; without locks, it may be on its way',
    id: 'w',
    head: 3,
    lock: 'own',
    unlocked: 'head stays',
    named: 'not at all',
    dropped: false,
  },
  {
    desc: 'it is named no more, has a copy still, and has not applied the head',
    id: 'x',
    head: 3,
    applied: 2,
    lock: 'gone',
    named: 'not at all',
    dropped: false,
  },
  { desc: 'the repository is gone', id: 'i', applied: 0, lock: 'gone', dropped: true },
  {
    desc: 'without locks, its front-end lives and the head stays: it may be on its way',
    id: 'm',
    head: 3,
    applied: 3,
    lock: 'own',
    unlocked: 'head stays',
    dropped: false,
  },
  {
    desc: 'without locks, its front-end is gone',
    id: 'n',
    head: 3,
    applied: 3,
    lock: 'gone',
    unlocked: 'head stays',
    dropped: true,
  },
  {
    desc: 'without locks, and the head has moved: it may go on under locks',
    id: 'o',
    head: 3,
    applied: 3,
    lock: 'own',
    unlocked: 'head moved',
    dropped: false,
  },
  {
    desc: 'without locks, the head has moved, and not here',
    id: 'p',
    head: 3,
    applied: 2,
    lock: 'own',
    unlocked: 'head moved',
    dropped: false,
  },
  {
    desc: 'without locks, it is what moved the head',
    id: 'q',
    head: 3,
    applied: 2,
    entry: 3,
    lock: 'own',
    unlocked: 'head moved',
    dropped: false,
  },
];

/** The repository's record, which names this store in one list, or in none. */
function recordOf(name: string, named: Case['named']): Omit<RepositoryRecord, 'id'> {
  const here = { nodeId: 'here', storeId: store, joinedEpoch: 1 };
  const there = { nodeId: 'there', storeId: 'another', joinedEpoch: 1 };
  return {
    name,
    ...plainRecord,
    voters: named === 'voters' ? [here, there] : [there],
    learners: named === 'learners' ? [here] : [],
    ...(named === 'readers' ? { readers: [here] } : {}),
  };
}

type Prepared = Pick<PrepareRequest, 'lockRevisions' | 'headRevision'>;

test('a quarantine goes exactly when its push is over for certain', async () => {
  const revisions = new Map<string, Prepared>();
  for (const { id, head, entry, lock, unlocked, named, evicted } of cases) {
    if (named !== undefined) await put(keys.repo(id), recordOf(id, named));
    if (evicted === true) await put(keys.eviction(store, id), {});
    const at = head === undefined ? 0 : await put(keys.head(id), { generation: head, digest: '' });
    if (entry !== undefined) {
      const rest = { pushId: 'push', updates: [], prepared: [], digest: '', actor: 'a', atMs: 1 };
      await put(keys.logEntry(id, entry), { generation: entry, ...rest });
    }
    if (lock === undefined) continue;
    const key = keys.refLock(id, 'refs/heads/main');
    const held = lock === 'gone' ? 1 : await put(key, {});
    revisions.set(id, {
      lockRevisions: [{ key, createRevision: lock === 'own' ? held : held - 1 }],
      ...(unlocked === undefined ? {} : { headRevision: unlocked === 'head stays' ? at : at - 1 }),
    });
  }
  const dropped = new Set<string>();
  await settleQuarantines({
    coordinator,
    logger: silentLogger,
    quarantines: ['frozen', ...cases.map(({ id }) => id)].map((repositoryId) => ({
      repositoryId,
      pushId: 'push',
      attempt: 1,
    })),
    replica: {
      storeId: store,
      dropIfOver: async ({ repositoryId }, isOver) => {
        if (repositoryId === 'frozen') throw new QuorateError('data-corrupt', 'frozen');
        if (await isOver(revisions.get(repositoryId))) dropped.add(repositoryId);
      },
      applied: async (id) => {
        const applied = cases.find((one) => one.id === id)?.applied;
        if (applied === undefined) throw new QuorateError('not-found', 'no copy here');
        return applied;
      },
    },
  });
  assert.deepEqual(
    cases.map(({ desc, id }) => [desc, dropped.has(id)]),
    cases.map((one) => [one.desc, one.dropped]),
  );
  assert.ok(!dropped.has('frozen'));
});

test('a push that goes on while another is settled keeps its objects, which have no mark yet', async () => {
  const steps = new Map([
    ['first', 0],
    ['second', 0],
  ]);
  const dropped: string[] = [];
  await settleQuarantines({
    coordinator,
    logger: silentLogger,
    quarantines: [...steps.keys()].map((pushId) => ({ repositoryId: 'none', pushId, attempt: 1 })),
    replica: {
      storeId: store,
      // As a store does it.
      dropIfOver: async ({ pushId }, isOver, turn) => {
        const before = steps.get(pushId);
        await turn;
        const isSo = await isOver(undefined);
        if (pushId === 'first') steps.set('second', 1);
        if (isSo && steps.get(pushId) === before) dropped.push(pushId);
      },
      applied: () => Promise.resolve(0),
    },
  });
  assert.deepEqual(dropped, ['first']);
});

/** Settles one quarantine of a push that took no locks, at the head; tells whether it was dropped. */
async function settleUnlocked(
  prepared: Prepared,
  { idle, wrap = coordinator }: { readonly idle: boolean; readonly wrap?: Coordinator },
): Promise<boolean> {
  let dropped = false;
  await settleQuarantines({
    coordinator: wrap,
    logger: silentLogger,
    idle,
    quarantines: [{ repositoryId: 'r', pushId: 'push', attempt: 1 }],
    replica: {
      storeId: store,
      dropIfOver: async (_key, isOver) => {
        dropped = await isOver(prepared);
      },
      applied: async () => 3,
    },
  });
  return dropped;
}

test('a push without locks of which nothing is heard for long is shut out, and then over', async () => {
  const head = { generation: 3, digest: 'as it is' };
  const headRevision = await put(keys.head('r'), head);
  const key = keys.frontEnd('lives');
  const prepared = {
    lockRevisions: [{ key, createRevision: await put(key, {}) }],
    headRevision,
  };
  assert.equal(await settleUnlocked(prepared, { idle: false }), false);
  assert.equal((await coordinator.get(keys.head('r')))?.modRevision, headRevision);
  // Somebody else commits in between: whether it was this push has to be asked again.
  const raced = intercepting(coordinator, ({ success }) =>
    success.some(({ type }) => type === 'put')
      ? async (run) => {
          prepared.headRevision = await put(keys.head('r'), head);
          return run();
        }
      : undefined,
  );
  assert.equal(await settleUnlocked(prepared, { idle: true, wrap: raced }), false);
  const moved = { ...prepared, headRevision: headRevision - 1 };
  assert.equal(await settleUnlocked(moved, { idle: true, wrap: raced }), true);
  assert.equal(await settleUnlocked(prepared, { idle: true }), true);
  const now = await coordinator.get(keys.head('r'));
  assert.ok(now !== undefined && now.modRevision > prepared.headRevision);
  assert.deepEqual(JSON.parse(Buffer.from(now.value).toString('utf8')), head);
});

/** As a guarded coordinator that is an older copy: of what binds it does not answer what gets, or puts, anything. */
function refusing(what: 'get' | 'put'): Coordinator {
  return intercepting(coordinator, ({ binding, success }) =>
    binding === true && success.some(({ type }) => type === what)
      ? () => Promise.reject(new QuorateError('unavailable', 'it is an older copy'))
      : undefined,
  );
}

test('no quarantine goes by the word of an older copy of the coordinator', async () => {
  const headRevision = await put(keys.head('r'), { generation: 3, digest: '' });
  const key = keys.frontEnd('lives');
  const lives = { lockRevisions: [{ key, createRevision: await put(key, {}) }], headRevision };
  const gone = { lockRevisions: [{ key: keys.frontEnd('gone'), createRevision: 1 }], headRevision };
  assert.equal(await settleUnlocked(gone, { idle: false, wrap: refusing('get') }), false);
  assert.equal(await settleUnlocked(gone, { idle: false, wrap: refusing('put') }), true);
  assert.equal(await settleUnlocked(lives, { idle: true, wrap: refusing('put') }), false);
  assert.equal(await settleUnlocked(lives, { idle: true }), true);
});
