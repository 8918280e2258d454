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
/** Another process, or the same one after it was started again. */
let openIdentity: (name?: string) => Promise<ClusterIdentity>;

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
  openIdentity = (name = 'cluster.json') => {
    const file = join(directory, name);
    const around = { clock: systemClock, random: realRandom, logger: silentLogger };
    return openClusterIdentity({ ...around, coordinator: reached, file });
  };
  identity = await openIdentity();
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

async function backUp(): Promise<void> {
  await store.close();
  await cp(join(directory, 'store'), join(directory, 'backup'), { recursive: true });
  store = await open();
}

/** The copy is further than what it was copied from has ever been. */
async function putBack(): Promise<void> {
  const { revision } = await store.identity();
  await store.close();
  await rm(join(directory, 'store'), { recursive: true });
  await cp(join(directory, 'backup'), join(directory, 'store'), { recursive: true });
  store = await open();
  for (let now = 0; now <= revision; now = (await store.identity()).revision) {
    await write({ type: 'put', key: 'alive', value });
  }
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
  await backUp();
  await commit('heads/a');
  // Of a repository of which the copy knows nothing.
  await commit('heads/new');
  await putBack();
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

test('once one process has said that it is an older copy, no other commits', async () => {
  const other = await openIdentity('other.json');
  try {
    await commit('heads/a');
    other.missing(1_000);
    await other.check();
    await assert.rejects(commit('heads/a'), { code: 'unavailable', message: /an older copy/ });
    assert.equal(identity.frozen?.reason, 'went-back');
    assert.equal((await store.get('heads/a'))?.version, 1, 'nothing was done');
  } finally {
    await other.close();
  }
});

test('once one process has said that it is an older copy, no other drops anything by its word', async () => {
  const other = await openIdentity('other.json');
  try {
    other.missing(1_000);
    await other.check();
    const success = [{ type: 'get', key: 'log/a/1' } as const];
    const reading = guarded.transaction({ compares: [], success, failure: [], binding: true });
    await assert.rejects(reading, { code: 'unavailable', message: /an older copy/ });
  } finally {
    await other.close();
  }
});

test("a change of the cluster's record that freezes nobody keeps nobody from committing", async () => {
  const record = await store.get('cluster/identity');
  assert.ok(record !== undefined);
  await write({ type: 'put', key: record.key, value: record.value });
  assert.ok((await commit('heads/a')).succeeded);
  assert.equal((await store.get('heads/a'))?.version, 1);
  await write({ type: 'put', key: record.key, value: record.value });
  await write({ type: 'put', key: 'lock', value });
  assert.equal((await commit('heads/b', 'lock')).results.length, 1);
});

const readings = {
  head: () => guarded.get('heads/b'),
  'entry of the log': () => guarded.range('log/b/1', { rangeEnd: 'log/b/2', linearizable: false }),
  'head in a transaction': () =>
    guarded.transaction({ compares: [], success: [{ type: 'get', key: 'heads/b' }], failure: [] }),
};

for (const [desc, read] of Object.entries(readings)) {
  test(`an older copy is told by who has seen what it lacks, without a commit: ${desc}`, async () => {
    await write({ type: 'put', key: 'heads/b', value });
    await backUp();
    // By another process. Here it is only read.
    await write({ type: 'put', key: 'heads/b', value }, { type: 'put', key: 'log/b/1', value });
    await read();
    await putBack();
    await identity.check();
    assert.equal(identity.frozen?.reason, 'went-back');
  });

  test(`an older copy that lacks what was seen takes nothing, whatever was read there: ${desc}`, async () => {
    await write({ type: 'put', key: 'heads/b', value });
    await backUp();
    await write({ type: 'put', key: 'heads/b', value }, { type: 'put', key: 'log/b/1', value });
    await read();
    await identity.check();
    await putBack();
    await write({ type: 'put', key: 'heads/c', value });
    // That is later than all that was seen before.
    await guarded.get('heads/c');
    await assert.rejects(commit('heads/a'), { code: 'unavailable', message: /an older copy/ });
    assert.equal(await store.get('heads/a'), undefined);
  });
}

test('what was seen is looked for by the next process on the same disk, until people go on', async () => {
  await write({ type: 'put', key: 'heads/b', value });
  await backUp();
  await write({ type: 'put', key: 'heads/b', value });
  await guarded.get('heads/b');
  await identity.check();
  await identity.close();
  await putBack();
  identity = await openIdentity();
  assert.equal(identity.frozen?.reason, 'went-back');
  await identity.accept();
  await identity.close();
  identity = await openIdentity();
  assert.equal(identity.frozen, undefined);
});

test('what was seen and is deleted since is no older copy', async () => {
  await write({ type: 'put', key: 'heads/b', value });
  await guarded.get('heads/b');
  await identity.check();
  await write({ type: 'delete', key: 'heads/b' });
  await identity.check();
  assert.equal(identity.frozen, undefined);
});
