import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { ClusterControl } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { silentLogger } from '../coordination/test-environment.js';
import { createClusterControl } from './cluster-control.js';
import { encodeNode } from './node-record.js';
import { listNodes } from './store-view.js';
import { intercepting } from './testing/fault-coordinator.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';

interface Scene {
  readonly set: ReplicaSet;
  readonly cluster: ClusterControl;
  readonly mark: (nodeId: string) => Promise<unknown>;
}

const nowMs = Date.UTC(2026, 0, 2, 3, 4);

async function open(
  t: TestContext,
  seenAs: (coordinator: Coordinator) => Coordinator = (coordinator) => coordinator,
): Promise<Scene> {
  const set = await openReplicaSet(4);
  t.after(() => set.close());
  const { backend, locks } = await set.frontEnd();
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const cluster = createClusterControl({
    coordinator: seenAs(set.coordinator),
    replicas: set.replicas,
    controller: { awayMs: () => 0 },
    replicationFactor: 3,
    repairAfterMs: 0,
    locks,
    clock,
    random: { bytes: (length) => Buffer.alloc(length) },
    logger: silentLogger,
  });
  const mark = async (nodeId: string): Promise<unknown> => {
    const node = (await listNodes(set)).find((one) => one.nodeId === nodeId);
    return [node?.mark, node?.markedAtMs];
  };
  return { set, cluster, mark };
}

/** Two nodes: one with a copy, and the one without. */
async function withAndWithout({ set }: Scene): Promise<readonly [string, string]> {
  const nodes = await listNodes(set);
  const full = nodes.find(({ copies }) => copies === 1);
  const empty = nodes.find(({ copies }) => copies === 0);
  assert.ok(full !== undefined && empty !== undefined);
  return [full.nodeId, empty.nodeId];
}

test('a node whose record is not understood hides no other, and is in the way of no decision', async (t) => {
  const { set, cluster, mark } = await open(t);
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.node('later'), value: Buffer.from('{"storeId":null}') }],
    failure: [],
  });
  const later = (await listNodes(set)).find(({ nodeId }) => nodeId === 'later');
  assert.deepEqual([later?.alive, later?.silent], [false, true]);
  assert.match(String(later?.problem), /may run a later version; upgrade/);
  await cluster.mark('node-0', 'draining');
  assert.deepEqual(await mark('node-0'), ['draining', nowMs]);
});

test('a node that lives is removed when it was drained and is empty, or when somebody insists', async (t) => {
  const scene = await open(t);
  const { cluster, mark } = scene;
  const [full, empty] = await withAndWithout(scene);
  const refusedAs = (nodeId: string, message: RegExp) =>
    assert.rejects(cluster.remove(nodeId, { force: false }), {
      code: 'failed-precondition',
      message,
    });
  await refusedAs(full, /is alive and has 1 copy: quorate node drain node-\d .*; or .*--force/);
  await refusedAs(empty, /is alive and takes repositories: quorate node drain node-\d /);
  assert.deepEqual(
    [await mark(full), await mark(empty)],
    [
      [undefined, undefined],
      [undefined, undefined],
    ],
  );
  for (const nodeId of [full, empty]) await cluster.mark(nodeId, 'draining');
  assert.deepEqual(await mark(full), ['draining', nowMs]);
  await refusedAs(full, /is alive and still has 1 copy: wait until quorate node list shows none/);
  await cluster.remove(empty, { force: false });
  await cluster.remove(full, { force: true });
  assert.deepEqual(
    [await mark(full), await mark(empty)],
    [
      ['removed', nowMs],
      ['removed', nowMs],
    ],
  );
  // Said twice, or of one that runs again: nothing is asked any more.
  await cluster.remove(full, { force: false });
  await assert.rejects(cluster.mark(full, 'draining'), {
    code: 'failed-precondition',
    message: /was removed: quorate node undrain node-\d takes it back first/,
  });
  await cluster.mark(full, undefined);
  assert.deepEqual(await mark(full), [undefined, undefined]);
});

test('a node that does not answer is asked about while it announces itself, and not when it is away', async (t) => {
  const scene = await open(t);
  const { set, cluster, mark } = scene;
  const [full] = await withAndWithout(scene);
  const store = set.stores[Number(full.slice('node-'.length))];
  assert.ok(store !== undefined);
  store.down = true;
  await set.coordinator.transaction({
    compares: [],
    success: [
      {
        type: 'put',
        key: keys.node(full),
        value: encodeNode({
          nodeId: full,
          storeId: store.storeId,
          address: 'h:1',
          zone: '',
          weight: 1,
          capacityBytes: 1,
          usedBytes: 0,
          draining: false,
          version: '0',
        }),
      },
    ],
    failure: [],
  });
  await assert.rejects(cluster.remove(full, { force: false }), {
    message: /announces itself, though it does not answer this server, and has 1 copy: .*--force/,
  });
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'delete', key: keys.node(full) }],
    failure: [],
  });
  await cluster.remove(full, { force: false });
  assert.deepEqual(await mark(full), ['removed', nowMs]);
  await assert.rejects(cluster.remove('nowhere', { force: true }), { code: 'not-found' });
});

test('a target of a move that is not there is told from one that is away', async (t) => {
  const scene = await open(t);
  const { set, cluster } = scene;
  const { repositoryId } = await onlyRepository(set);
  const refused = (nodes: readonly string[], message: RegExp) =>
    assert.rejects(cluster.move(repositoryId, nodes), { code: 'invalid-argument', message });
  await refused(
    ['node-0', 'node-1', 'nod-2'],
    /^no storage node is named nod-2; alive, and taking repositories: node-0, node-1, node-2, node-3$/,
  );
  await cluster.mark('node-3', 'draining');
  await refused(
    ['node-0', 'node-1', 'node-3'],
    /^the storage node node-3 is draining; alive, and taking repositories: node-0, node-1, node-2$/,
  );
  const away = set.stores[2];
  assert.ok(away !== undefined);
  away.down = true;
  await refused(
    ['node-0', 'node-1', 'node-2'],
    /^the storage node node-2 is away; alive, and taking repositories: node-0, node-1$/,
  );
  await refused(['node-0', 'node-1'], /is on 3 storage nodes .*: node-0, node-1$/);
});

async function onlyRepository({
  coordinator,
}: ReplicaSet): Promise<{ readonly repositoryId: string }> {
  const { entries } = await coordinator.range(keys.repos, {
    rangeEnd: prefixEnd(keys.repos),
    limit: 1,
  });
  const [entry] = entries;
  assert.ok(entry !== undefined);
  return { repositoryId: entry.key.slice(keys.repos.length) };
}

test('nothing about nodes, or where repositories are to be, is decided in an older copy of the coordinator', async (t) => {
  let isOlder = false;
  const scene = await open(t, (coordinator) =>
    intercepting(coordinator, ({ binding }) =>
      isOlder && binding === true
        ? () => Promise.reject(new QuorateError('unavailable', 'it is an older copy'))
        : undefined,
    ),
  );
  const { set, cluster, mark } = scene;
  const [full, empty] = await withAndWithout(scene);
  const { repositoryId: id } = await onlyRepository(set);
  const before = await set.coordinator.get(keys.repo(id));
  const others = ['node-0', 'node-1', 'node-2', 'node-3'].filter((nodeId) => nodeId !== full);
  await cluster.mark(full, 'draining');
  isOlder = true;
  const decisions = [
    () => cluster.mark(empty, 'draining'),
    () => cluster.mark(full, undefined),
    () => cluster.remove(empty, { force: true }),
    () => cluster.move(id, others),
    () => cluster.move(id, undefined),
  ];
  for (const decide of decisions) await assert.rejects(decide(), { code: 'unavailable' });
  assert.deepEqual(
    [await mark(full), await mark(empty)],
    [
      ['draining', nowMs],
      [undefined, undefined],
    ],
  );
  assert.deepEqual(await set.coordinator.get(keys.repo(id)), before);
});
