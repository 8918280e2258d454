import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { asQuorateError } from '../contract/errors.js';
import { type ClusterIdentity, openClusterIdentity } from '../coordination/cluster-identity.js';
import {
  openEtcd,
  type OpenEtcd,
  patientLeaseMs,
  realRandom,
} from '../coordination/etcd/testing/etcd-fixture.js';
import { guardCoordinator } from '../coordination/guarded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import {
  type LocalFixture,
  startLocal,
  systemClock,
  zeroOid,
} from '../local/testing/local-fixture.js';
import { intercepting, isCommit, type Step } from './testing/fault-coordinator.js';

let directory: string;
let etcd: OpenEtcd;
let identity: ClusterIdentity;
let local: LocalFixture;
/** What happens when a commit is under way. */
let atCommit: Step | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-older-'));
  etcd = await openEtcd();
  const { coordinator } = etcd;
  const around = { clock: systemClock, random: realRandom, logger: silentLogger };
  const file = join(directory, 'cluster.json');
  identity = await openClusterIdentity({ ...around, coordinator, file });
  atCommit = undefined;
  local = await startLocal({
    leaseMs: patientLeaseMs,
    wrap: () => {
      const reached = intercepting(coordinator, (one) => (isCommit(one) ? atCommit : undefined));
      return guardCoordinator(reached, identity);
    },
  });
});
afterEach(async () => {
  await local.remove();
  await identity.close();
  await etcd.close();
  await rm(directory, { recursive: true });
});

test('a push whose commit is taken by an etcd that was just put back gets no verdict; the next is refused', async () => {
  const { cluster, coordinator } = etcd;
  const [repository, other] = [await local.create('kept'), await local.create('other')];
  const command = { ref: 'refs/heads/main', oldOid: zeroOid, newOid: await local.commit('one') };
  // The front-end has announced itself, and is in the copy.
  await local.push(other, [command]);
  const snapshot = join(directory, 'snapshot.db');
  await cluster.snapshot(snapshot);
  for (let n = 0; n < 20; n++) {
    const success = [{ type: 'put', key: 'later', value: Buffer.from(`${n}`) } as const];
    await guardCoordinator(coordinator, identity).transaction({
      compares: [],
      success,
      failure: [],
    });
  }
  atCommit = async (run) => {
    await cluster.restore(snapshot);
    const taken = await run();
    assert.ok(taken.succeeded, 'all that it compares is in the copy');
    return taken;
  };
  await assert.rejects(local.push(repository, [command]), { code: 'outcome-unknown' });
  atCommit = undefined;
  assert.equal(identity.frozen?.reason, 'went-back');
  await assert.rejects(local.push(other, [{ ...command, ref: 'refs/heads/next' }]), (error) => {
    const { code, message } = asQuorateError(error);
    assert.deepEqual([code, message], ['unavailable', identity.frozen?.message]);
    return true;
  });
});
