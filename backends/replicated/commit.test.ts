import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { Repository } from '../contract/repository.js';
import { comeTo } from '../local/testing/come-to.js';
import { type LocalFixture, judging, startLocal, zeroOid } from '../local/testing/local-fixture.js';
import { intercepting, isCommit, isResolution, type Step } from './testing/fault-coordinator.js';
import { committedOf, pushOne } from './testing/one-push.js';

const signal = new AbortController().signal;

const lost = new QuorateError('outcome-unknown', 'the answer was lost');
const full = new QuorateError('outcome-unknown', 'full', { details: { answered: true } });

const lostAnswers: { desc: string; step: Step }[] = [
  {
    desc: 'the commit happened and its answer was lost',
    step: async (run) => {
      await run();
      throw lost;
    },
  },
  {
    desc: 'the commit did not happen and nobody said so',
    step: async () => {
      throw lost;
    },
  },
];

for (const { desc, step } of lostAnswers) {
  test(`a lost answer: ${desc}: the push is there exactly once`, async () => {
    let times = 0;
    const local = await startLocal({
      wrap: (coordinator) =>
        intercepting(coordinator, (transaction) =>
          isCommit(transaction) && times++ === 0 ? step : undefined,
        ),
    });
    try {
      const { repository, tip, result } = await pushOne(local, 'lost');
      assert.equal(result.refs[0]?.status, 'ok');
      assert.equal(result.generation, 1);
      assert.equal(await committedOf(local, repository), 1);
      const read = await local.backend.read(repository, signal);
      assert.equal(read.snapshot.find('refs/heads/main')?.oid, tip);
      read.release();
      assert.deepEqual(await local.backend.locks(), []);
    } finally {
      await local.remove();
    }
  });
}

const gone = new QuorateError('internal', 'gone for good');

function asksForLog({ success }: Transaction): boolean {
  return success.some(({ type, key }) => type === 'get' && key.startsWith('log/'));
}

test('a coordinator that takes no changes any more is asked what it took before', async () => {
  const local = await startLocal({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => async (run) => {
        if (isResolution(transaction)) throw gone;
        const result = await run();
        if (isCommit(transaction)) throw lost;
        return result;
      }),
  });
  try {
    const { result } = await pushOne(local, 'full');
    assert.deepEqual([result.refs[0]?.status, result.generation], ['ok', 1]);
  } finally {
    await local.remove();
  }
});

test('a push without locks that cannot be closed off is shut out by its fence, and the next has another', async () => {
  const fences: number[] = [];
  let losing = true;
  const local = await startLocal({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => async (run) => {
        const fence = transaction.compares.find(({ key }) => key.startsWith(keys.fence('')));
        if (isCommit(transaction)) {
          if (fence !== undefined) fences.push(Number(fence.operand));
          if (losing) throw lost;
        }
        // As of a coordinator that is full.
        const puts = transaction.success.some(({ type }) => type === 'put');
        if (isResolution(transaction) && puts) throw full;
        if (isResolution(transaction)) losing = false;
        return run();
      }),
  });
  try {
    const { result } = await pushOne(local, 'full');
    assert.deepEqual([result.refs[0]?.status, result.generation], ['ok', 1]);
    // Another repository, in whose way nobody seems to be.
    await pushOne(local, 'next');
    const [before = 0, after = 0] = fences;
    assert.ok(fences.length === 2 && after > before, fences.join());
  } finally {
    await local.remove();
  }
});

test('an answer that stays lost gives no verdict; the next start finds out', async () => {
  const local = await startLocal({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => async (run) => {
        if (isResolution(transaction) || asksForLog(transaction)) throw gone;
        if (!isCommit(transaction)) return run();
        await run();
        throw lost;
      }),
  });
  const quarantine = join(local.directory, 'store', 'quarantine');
  try {
    const repository = await local.create('silent');
    const tip = await local.commit('silent');
    const command = { ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip };
    await assert.rejects(local.push(repository, [command]), { code: 'outcome-unknown' });
    assert.equal(readdirSync(quarantine).length, 1);
    // The commit has deleted the lock; had it not happened, the lock would be there to say so.
    assert.deepEqual(await local.backend.locks(), []);
    await local.stop();
    const again = await startLocal({ directory: local.directory, source: local.source });
    const read = await again.backend.read(repository, signal);
    assert.equal(read.snapshot.find('refs/heads/main')?.oid, tip);
    read.release();
    await comeTo([], () => readdirSync(quarantine));
    await again.stop();
  } finally {
    await local.remove();
  }
});

function aborted(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal, 'abort');
}

/** A push to one ref is judged until it is let go: whoever pushes meanwhile takes locks. */
function holdingUp(): {
  readonly pipeline: PushPipeline;
  readonly begin: (local: LocalFixture, repository: Repository) => Promise<void>;
  readonly end: () => Promise<void>;
} {
  const ref = 'refs/heads/held-up';
  const entered = new AbortController();
  const over = new AbortController();
  let push: Promise<unknown> = Promise.resolve();
  return {
    pipeline: judging({
      preReceive: async ({ commands }) => {
        if (commands[0]?.ref !== ref) return undefined;
        entered.abort();
        await aborted(over.signal);
        return 'never mind';
      },
    }),
    begin: async (local, repository) => {
      const newOid = await local.commit('held up');
      push = local.push(repository, [{ ref, oldOid: zeroOid, newOid }]);
      await aborted(entered.signal);
    },
    end: async () => {
      over.abort();
      await push;
    },
  };
}

for (const takesLocks of [false, true]) {
  const what = takesLocks ? 'its locks and its quarantine' : 'its quarantine, and had no locks';
  test(`a commit of which nobody knows keeps ${what}`, async () => {
    const other = holdingUp();
    const local = await startLocal({
      pipeline: other.pipeline,
      wrap: (coordinator) =>
        intercepting(coordinator, (transaction) =>
          isCommit(transaction) || isResolution(transaction)
            ? () => Promise.reject(new QuorateError('internal', 'gone for good'))
            : undefined,
        ),
    });
    try {
      const repository = await local.create('unknown');
      if (takesLocks) await other.begin(local, repository);
      const command = {
        ref: 'refs/heads/main',
        oldOid: zeroOid,
        newOid: await local.commit('unknown'),
      };
      await assert.rejects(local.push(repository, [command]), { code: 'outcome-unknown' });
      await other.end();
      assert.deepEqual(
        (await local.backend.locks()).map(({ repository: name, ref, state }) => [name, ref, state]),
        takesLocks ? [['unknown', 'refs/heads/main', 'held']] : [],
      );
      assert.equal((await local.backend.status()).quarantines, 1);
      await local.stop();
      const again = await startLocal({ directory: local.directory, source: local.source });
      assert.deepEqual(readdirSync(join(local.directory, 'store', 'quarantine')), []);
      const retried = await again.push(repository, [command]);
      assert.equal(retried.generation, 1);
      await again.stop();
    } finally {
      await local.remove();
    }
  });
}

test('an answer that is lost before the commit leaves no lock and no quarantine', async () => {
  let times = 0;
  const local = await startLocal({
    // As of a front-end that has to announce itself anew, or of rules that are read in a transaction.
    pipeline: judging({
      preReceive: () => (times++ === 0 ? Promise.reject(lost) : Promise.resolve(undefined)),
    }),
  });
  try {
    const repository = await local.create('before');
    const newOid = await local.commit('before');
    const command = { ref: 'refs/heads/main', oldOid: zeroOid, newOid };
    await assert.rejects(local.push(repository, [command]), { code: 'unavailable' });
    assert.deepEqual(await local.backend.locks(), []);
    assert.equal((await local.backend.status()).quarantines, 0);
    assert.equal((await local.push(repository, [command])).generation, 1);
  } finally {
    await local.remove();
  }
});

test('a lock that is gone at the commit: judged again, committed once', async () => {
  let fixture: LocalFixture | undefined;
  let times = 0;
  const other = holdingUp();
  const local = await startLocal({
    pipeline: other.pipeline,
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => {
        if (!isCommit(transaction) || times++ > 0) return undefined;
        return async (run) => {
          const held = transaction.compares.find(({ key }) => key.startsWith(keys.allLocks));
          await fixture?.coordinator.transaction({
            compares: [],
            success: [{ type: 'delete', key: held?.key ?? '' }],
            failure: [],
          });
          return run();
        };
      }),
  });
  fixture = local;
  try {
    const repository = await local.create('fenced');
    await other.begin(local, repository);
    const newOid = await local.commit('fenced');
    const command = { ref: 'refs/heads/main', oldOid: zeroOid, newOid };
    const result = await local.push(repository, [command]);
    assert.equal(times, 2);
    assert.equal(result.refs[0]?.status, 'ok');
    assert.equal(await committedOf(local, repository), 1);
    await other.end();
  } finally {
    await local.remove();
  }
});

test('a push without locks that is overtaken by another is judged again, under locks', async () => {
  let fixture: LocalFixture | undefined;
  let judged = 0;
  let locked: readonly (string | undefined)[] = [];
  const compared: boolean[] = [];
  const local = await startLocal({
    pipeline: judging({
      preReceive: async ({ repository }) => {
        locked = (await fixture?.backend.locks())?.map(({ ref }) => ref) ?? [];
        if (++judged > 1) return undefined;
        // As another front-end's commit would: the head has another revision.
        const key = keys.head(repository.id);
        const value = (await fixture?.coordinator.get(key))?.value ?? Buffer.from('');
        await fixture?.coordinator.transaction({
          compares: [],
          success: [{ type: 'put', key, value }],
          failure: [],
        });
        return undefined;
      },
    }),
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => {
        if (!isCommit(transaction)) return undefined;
        compared.push(transaction.compares.some(({ key }) => key.startsWith(keys.frontEnd(''))));
        return undefined;
      }),
  });
  fixture = local;
  try {
    const { repository, tip, result } = await pushOne(local, 'overtaken');
    assert.equal(result.generation, 1);
    assert.deepEqual([judged, locked, compared], [2, ['refs/heads/main'], [true, false]]);
    // For a while others take locks there from the start.
    const command = { ref: 'refs/heads/next', oldOid: zeroOid, newOid: tip };
    assert.equal((await local.push(repository, [command], { have: [tip] })).generation, 2);
    assert.deepEqual([judged, locked], [3, ['refs/heads/next']]);
    assert.deepEqual(await local.backend.locks(), []);
  } finally {
    await local.remove();
  }
});

test('settings that change before the commit are judged by', async () => {
  let fixture: LocalFixture | undefined;
  const judgedBy: (string | undefined)[] = [];
  const local = await startLocal({
    pipeline: judging({
      update: async ({ repository }) => {
        judgedBy.push(repository.settings['receive.denyDeletes']);
        if (judgedBy.length > 1) return new Map([['refs/heads/main', 'by the new settings']]);
        await fixture?.backend.repositories.update(repository.id, () => ({
          settings: { 'receive.denyDeletes': 'true' },
        }));
        return new Map();
      },
    }),
  });
  fixture = local;
  try {
    const { repository, result } = await pushOne(local, 'settings');
    assert.deepEqual(judgedBy, [undefined, 'true']);
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'by the new settings' },
    ]);
    assert.equal(await committedOf(local, repository), 0);
  } finally {
    await local.remove();
  }
});

test('what one round refused is judged afresh in the next', async () => {
  let fixture: LocalFixture | undefined;
  let rounds = 0;
  const local = await startLocal({
    pipeline: judging({
      update: async ({ repository }) => {
        if (rounds++ > 0) return new Map();
        await fixture?.backend.repositories.update(repository.id, () => ({
          settings: { 'receive.denyDeletes': 'true' },
        }));
        return new Map([['refs/heads/b', 'not this time']]);
      },
    }),
  });
  fixture = local;
  try {
    const repository = await local.create('afresh');
    const newOid = await local.commit('afresh');
    const { refs } = await local.push(
      repository,
      ['refs/heads/a', 'refs/heads/b'].map((ref) => ({ ref, oldOid: zeroOid, newOid })),
    );
    assert.deepEqual(
      refs.map(({ status }) => status),
      ['ok', 'ok'],
    );
    assert.equal(rounds, 2);
  } finally {
    await local.remove();
  }
});

test('pre-receive refuses a push as a whole', async () => {
  let asked = false;
  const local = await startLocal({
    pipeline: judging({
      preReceive: async () => 'closed for repairs',
      update: async () => {
        asked = true;
        return new Map();
      },
    }),
  });
  try {
    const { repository, result } = await pushOne(local, 'closed');
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'closed for repairs' },
    ]);
    assert.equal(asked, false);
    assert.equal(await committedOf(local, repository), 0);
  } finally {
    await local.remove();
  }
});
