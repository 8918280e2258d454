import assert from 'node:assert/strict';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator, Operation, TransactionResult } from '../contract/coordinator.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { type ClusterIdentity, openClusterIdentity } from './cluster-identity.js';
import { openEmbeddedCoordinator } from './embedded/embedded-coordinator.js';
import { realRandom } from './etcd/testing/etcd-fixture.js';
import { guardCoordinator } from './guarded-coordinator.js';
import { silentLogger } from './test-environment.js';

let directory: string;
let store: Coordinator;
let identity: ClusterIdentity;
let guarded: Coordinator;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-guard-'));
  store = await open();
  const reached: Coordinator = {
    limits: store.limits,
    get: (key, options) => store.get(key, options),
    range: (key, options) => store.range(key, options),
    transaction: (transaction) => store.transaction(transaction),
    grantLease: (ttlMs) => store.grantLease(ttlMs),
    leaseLeft: (id) => store.leaseLeft(id),
    watch: (key, options) => store.watch(key, options),
    identity: () => store.identity(),
    ping: () => store.ping(),
    close: () => store.close(),
  };
  const file = join(directory, 'cluster.json');
  const around = { clock: systemClock, random: realRandom, logger: silentLogger };
  identity = await openClusterIdentity({ ...around, coordinator: reached, file });
  guarded = guardCoordinator(reached, identity);
});
afterEach(async () => {
  await identity.close();
  await store.close();
  await rm(directory, { recursive: true });
});

function open(): Promise<Coordinator> {
  const own = join(directory, 'store');
  return openEmbeddedCoordinator({ directory: own, clock: systemClock, logger: silentLogger });
}

const value = new Uint8Array();

/** A head that is put if nothing is in its way, as a commit does. */
function commit(key: string, inTheWay = 'nothing'): Promise<TransactionResult> {
  return guarded.transaction({
    compares: [{ key: inTheWay, target: 'createRevision', op: '=', operand: 0 }],
    success: [{ type: 'put', key, value }],
    failure: [{ type: 'get', key: inTheWay }],
    binding: true,
  });
}

const write = (...success: Operation[]): Promise<TransactionResult> =>
  store.transaction({ compares: [], success, failure: [] });

test('an older copy that has gone past what was seen is told by what was committed last', async () => {
  await write({ type: 'put', key: 'heads/unchanged', value });
  await commit('heads/a');
  await store.close();
  await cp(join(directory, 'store'), join(directory, 'backup'), { recursive: true });
  store = await open();
  await commit('heads/a');
  // Of a repository of which the copy knows nothing.
  const { revision } = await commit('heads/new');
  await store.close();
  await rm(join(directory, 'store'), { recursive: true });
  await cp(join(directory, 'backup'), join(directory, 'store'), { recursive: true });
  store = await open();
  for (let n = 0; n < 10; n++) await write({ type: 'put', key: 'alive', value });
  const before = await store.identity();
  assert.ok(before.revision > revision);
  await assert.rejects(commit('heads/unchanged'), {
    code: 'unavailable',
    message: /an older copy: what was done at revision \d+ is not there\. .*quorate recover/,
  });
  assert.equal(identity.frozen?.reason, 'went-back');
  assert.equal((await store.get('heads/unchanged'))?.version, 1, 'nothing was done');
});

test('what was committed last may change, and may be deleted', async () => {
  await commit('heads/a');
  await write({ type: 'put', key: 'heads/a', value });
  assert.ok((await commit('heads/b')).succeeded);
  await write({ type: 'delete', key: 'heads/b' });
  assert.ok((await commit('heads/c')).succeeded);
  assert.ok((await commit('heads/c')).succeeded);
  assert.equal(identity.frozen, undefined);
});

test('who fails is answered what was asked, and nothing else', async () => {
  await write({ type: 'put', key: 'lock', value });
  for (const gone of [false, true]) {
    await commit('heads/a');
    if (gone) await write({ type: 'delete', key: 'heads/a' });
    const { succeeded, results } = await commit('heads/b', 'lock');
    assert.equal(succeeded, false);
    assert.equal(results.length, 1);
    const [read] = results;
    assert.ok(read?.type === 'get' && read.entries[0]?.key === 'lock');
  }
  assert.equal(await store.get('heads/b'), undefined);
});
