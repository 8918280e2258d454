import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import {
  openEtcd,
  type OpenEtcd,
  patientLeaseMs,
} from '../coordination/etcd/testing/etcd-fixture.js';
import { type LocalFixture, startLocal, zeroOid } from '../local/testing/local-fixture.js';
import { intercepting, isCommit, type Step } from './testing/fault-coordinator.js';

let etcd: OpenEtcd;
let local: LocalFixture;
let atCommit: Step | undefined;
/** What commits compared to be as it was. */
let insistedOn: Set<string>;

beforeEach(async () => {
  // Enough for its own pages, and for some records.
  etcd = await openEtcd({ extraArguments: [`--quota-backend-bytes=${2 * 1024 * 1024}`] });
  atCommit = undefined;
  insistedOn = new Set();
  local = await startLocal({
    leaseMs: patientLeaseMs,
    wrap: () =>
      intercepting(etcd.coordinator, (one) => {
        if (!isCommit(one)) return undefined;
        for (const compare of one.compares) {
          if (compare.target !== 'createRevision' || compare.operand === 0) continue;
          if (/^(fences|locks)\//.test(compare.key))
            insistedOn.add(compare.key.split('/')[0] ?? '');
        }
        return atCommit;
      }),
  });
});
afterEach(async () => {
  await local.remove();
  await etcd.close();
});

/** Puts what there is room for, and one more; returns the error of that. */
async function fill(coordinator: Coordinator): Promise<QuorateError> {
  const value = new Uint8Array(64 * 1024);
  for (let n = 0; ; n++) {
    const success = [{ type: 'put', key: `filling/${n}`, value } as const];
    try {
      await coordinator.transaction({ compares: [], success, failure: [] });
    } catch (error) {
      const full = asQuorateError(error);
      assert.deepEqual([full.code, full.details['answered']], ['outcome-unknown', true]);
      return full;
    }
  }
}

test('a push to an etcd that is full is refused, and says what to do', async () => {
  const repository = await local.create('full');
  await fill(etcd.coordinator);
  const tip = await local.commit('one');
  // One of those that run side by side goes without locks.
  const pushes = ['refs/heads/one', 'refs/heads/two'].map((ref) =>
    assert.rejects(local.push(repository, [{ ref, oldOid: zeroOid, newOid: tip }]), (error) => {
      const { code, message } = asQuorateError(error);
      assert.equal(code, 'unavailable', message);
      assert.match(message, /is full .*compact .*defrag.* disarm .*; nothing changed, .*safe/);
      return true;
    }),
  );
  await Promise.all(pushes);
  assert.equal((await local.backend.status()).quarantines, 0);
});

test('the commit by which etcd becomes full, and which is done, is known to be done', async () => {
  const repository = await local.create('crossing');
  atCommit = async (run) => {
    await run();
    // What etcd says of the one that crosses its quota.
    throw await fill(etcd.coordinator);
  };
  const tip = await local.commit('one');
  const command = { ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip };
  const { refs, generation } = await local.push(repository, [command]);
  assert.deepEqual([refs[0]?.status, generation], ['ok', 1]);
});

test('a commit whose answer is lost while etcd is full has a verdict, under locks and without', async () => {
  const repository = await local.create('lost');
  atCommit = async () => {
    await fill(etcd.coordinator);
    throw new QuorateError('outcome-unknown', 'the answer was lost');
  };
  const tip = await local.commit('one');
  const pushes = ['refs/heads/one', 'refs/heads/two'].map((ref) =>
    assert.rejects(local.push(repository, [{ ref, oldOid: zeroOid, newOid: tip }]), (error) => {
      const { code, message } = asQuorateError(error);
      assert.equal(code, 'unavailable', message);
      assert.match(message, /is full .*; nothing changed, .*safe/);
      return true;
    }),
  );
  await Promise.all(pushes);
  assert.deepEqual(insistedOn, new Set(['fences', 'locks']));
  assert.equal((await local.backend.status()).quarantines, 0);
  assert.deepEqual(await local.backend.locks(), []);
});
