import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator, WatchBatch } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../coordination/process-lease.js';
import { silentLogger } from '../coordination/test-environment.js';
import { silentMeter, systemClock } from '../local/testing/local-fixture.js';
import { stubReplica } from '../node/testing/stub-replica.js';
import { type NodeConnection, NodeDirectory } from './node-directory.js';
import { markNode } from './node-marks.js';
import { NodeMembership } from './node-membership.js';
import { intercepting } from './testing/fault-coordinator.js';
import type { NodeRecord } from './node-record.js';
import { reachable } from './voters.js';
import { until } from '../contract/testing/until.js';

let directory: string;
let coordinator: Coordinator;
const closing: (() => Promise<unknown>)[] = [];
let alive: NodeJS.Timeout;
beforeEach(async () => {
  // The clock's sleeps keep no process alive.
  alive = setInterval(() => undefined, 1_000);
  directory = await mkdtemp(join(tmpdir(), 'quorate-nodes-'));
  const options = { directory, clock: systemClock, logger: silentLogger };
  coordinator = await openEmbeddedCoordinator(options);
});
afterEach(async () => {
  clearInterval(alive);
  for (const close of closing.splice(0).toReversed()) await close();
  await coordinator.close();
  await rm(directory, { recursive: true });
});

const environment = { clock: systemClock, logger: silentLogger, meter: silentMeter };

function record(name: string, changes: Partial<NodeRecord> = {}): NodeRecord {
  return {
    nodeId: name,
    storeId: Buffer.from(name.padEnd(16, '.')).toString('hex'),
    address: `${name}:7420`,
    zone: 'z',
    weight: 1,
    capacityBytes: 100,
    usedBytes: 10,
    draining: false,
    version: '0',
    ...changes,
  };
}

async function announce(
  described: NodeRecord | (() => NodeRecord),
  clock = systemClock,
): Promise<NodeMembership> {
  const membership = new NodeMembership({
    ...environment,
    clock,
    coordinator,
    lease: createProcessLease({ ...environment, coordinator }),
    describe: () => Promise.resolve(typeof described === 'function' ? described() : described),
  });
  closing.push(() => membership.leave());
  await membership.join();
  return membership;
}

interface Fake extends NodeConnection {
  reachable: boolean;
  misfit: string | undefined;
  refused: boolean;
  running: number;
  closed: boolean;
}

async function open(
  watched: Coordinator = coordinator,
  refuses: (address: string) => boolean = () => false,
  marked: () => void = () => undefined,
  ownStoreId: () => string | undefined = () => undefined,
): Promise<{ readonly nodes: NodeDirectory; readonly connections: Map<string, Fake> }> {
  const connections = new Map<string, Fake>();
  const nodes = new NodeDirectory({
    ...environment,
    coordinator: watched,
    marked,
    ownStoreId,
    connect: ({ storeId, address }) => {
      const fake: Fake = {
        replica: stubReplica({}, storeId),
        reachable: !refuses(address),
        misfit: undefined,
        refused: refuses(address),
        running: 0,
        closed: false,
        asked: Promise.resolve(),
        close: () => {
          fake.closed = true;
          return Promise.resolve();
        },
      };
      connections.set(address, fake);
      return fake;
    },
  });
  closing.push(() => nodes.close());
  await nodes.start();
  return { nodes, connections };
}

const idsOf = (nodes: NodeDirectory): string[] =>
  nodes
    .nodes()
    .map(({ nodeId }) => nodeId)
    .sort();

test('a process that no node takes for a member does not start; one that some take does', async () => {
  await announce(record('one'));
  await announce(record('two'));
  await assert.rejects(
    open(coordinator, () => true),
    {
      code: 'failed-precondition',
      message:
        /^the storage node one at one:7420 has another cluster secret: .*--cluster-secret-file/,
    },
  );
  const { nodes } = await open(coordinator, (address) => address === 'one:7420');
  assert.deepEqual(idsOf(nodes), ['two']);
});

test('a process with which no other node takes part, for its credentials or theirs, knows it and why', async () => {
  const { nodes, connections } = await open();
  assert.equal(nodes.stranger, undefined, 'it is alone');
  await announce(record('a'));
  await announce(record('b'));
  await until('both', () => idsOf(nodes).length === 2);
  const [a, b] = [connections.get('a:7420'), connections.get('b:7420')];
  assert.ok(a !== undefined && b !== undefined);
  assert.equal(nodes.stranger, undefined);
  a.reachable = false;
  a.misfit = 'its certificate is not taken';
  assert.equal(nodes.troubleWith('a'), 'its certificate is not taken');
  assert.equal(nodes.stranger, undefined, 'the other takes part');
  b.reachable = false;
  assert.equal(nodes.troubleWith('b'), undefined);
  assert.equal(
    nodes.stranger,
    'no other storage node (a, b) takes part with this process: its certificate is not taken',
  );
  a.misfit = undefined;
  assert.equal(nodes.stranger, undefined, 'they may be gone');
});

test('nodes are found: those from before, those that come, until they go', async () => {
  const [a, b] = [record('a'), record('b')];
  await announce(a);
  const { nodes, connections } = await open();
  assert.deepEqual(idsOf(nodes), ['a']);
  const second = await announce(b);
  await until('b', () => idsOf(nodes).length === 2);
  assert.equal(nodes.find(b.storeId)?.storeId, b.storeId);
  const connection = connections.get(b.address);
  assert.ok(connection !== undefined);
  connection.running = 3;
  assert.equal(nodes.load(b.storeId), 3);
  connection.reachable = false;
  assert.deepEqual([idsOf(nodes), nodes.find(b.storeId)], [['a'], undefined]);
  connection.reachable = true;
  await second.leave();
  await until('b to go', () => idsOf(nodes).length === 1);
  assert.equal(connection.closed, false, 'what runs there may end');
});

test('a node that moves, or says something new, is known by what it says now', async () => {
  let says = record('a');
  const { nodes, connections } = await open();
  const membership = await announce(() => says);
  await until('a', () => idsOf(nodes).length === 1);
  says = { ...says, usedBytes: 90, draining: true };
  await membership.update();
  await until('the change', () => nodes.nodes()[0]?.usedBytes === 90);
  assert.deepEqual(nodes.place('some', 3), [], 'nothing new is put on a node that drains');
  assert.equal(connections.size, 1);
  await membership.leave();
  await announce(record('a', { address: 'elsewhere:1' }));
  await until('the new address', () => nodes.nodes()[0]?.address === 'elsewhere:1');
  assert.equal(connections.size, 2);
});

test('a node whose disk hangs, by its own word, is asked last for whatever others have, too', async () => {
  const { nodes, connections } = await open();
  const problem = 'the disk hangs';
  for (const name of ['a', 'b', 'c']) {
    await announce(record(name, name === 'b' ? { problem, hangs: true } : {}));
  }
  await until('all of them', () => idsOf(nodes).length === 3);
  const busy = connections.get('a:7420');
  assert.ok(busy !== undefined);
  busy.running = 5;
  const voters = ['a', 'b', 'c'].map((name) => ({ ...record(name), joinedEpoch: 1 }));
  const order = reachable(nodes, voters).map(({ storeId }) => storeId);
  assert.deepEqual(
    order,
    ['c', 'a', 'b'].map((name) => record(name).storeId),
  );
  assert.ok(!nodes.place('some', 2).some(({ nodeId }) => nodeId === 'b'));
});

test('no connection is made to the store of this process, though its record is heard of before it is known to be put', async () => {
  const [own, other] = [record('own'), record('other')];
  const { connections } = await open(coordinator, undefined, undefined, () => own.storeId);
  await announce(own);
  await announce(other);
  await until('the other', () => connections.has(other.address));
  assert.deepEqual([...connections.keys()], [other.address]);
});

test('marks are known, with their time, and a change of one is told', async () => {
  await markNode(coordinator, 'a', 'removed', 1);
  let told = 0;
  const { nodes } = await open(
    coordinator,
    () => false,
    () => told++,
  );
  assert.deepEqual(nodes.markOf('a'), { mark: 'removed', atMs: 1 });
  assert.equal(told, 1);
  await markNode(coordinator, 'a', undefined);
  await until('the mark to go', () => nodes.markOf('a') === undefined);
  assert.equal(told, 2);
});

test('a watch that breaks is followed by a list: nobody is missed, nobody stays who is gone', async () => {
  let broken: (() => void) | undefined;
  const breaking: Coordinator = {
    ...bound(coordinator),
    watch: (key, options) => {
      if (broken !== undefined) return coordinator.watch(key, options);
      const next = async (): Promise<IteratorResult<WatchBatch>> => {
        await new Promise<void>((resolve) => (broken = resolve));
        throw new QuorateError('failed-precondition', 'history is gone');
      };
      return { [Symbol.asyncIterator]: () => ({ next }) };
    },
  };
  const first = await announce(record('a'));
  const { nodes } = await open(breaking);
  await announce(record('b'));
  await first.leave();
  assert.deepEqual(idsOf(nodes), ['a'], 'the watch tells nothing');
  broken?.();
  await until('the list', () => idsOf(nodes).join() === 'b');
  await announce(record('c'));
  await until('the watch', () => idsOf(nodes).length === 2);
});

test('a record that is not understood hides no other node', async () => {
  await announce(record('a'));
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.node('odd'), value: Buffer.from('{"storeId":7}') }],
    failure: [],
  });
  const { nodes } = await open();
  assert.deepEqual(idsOf(nodes), ['a']);
});

test('twins are refused: a node id with another store, a store with another node id', async () => {
  await announce(record('a'));
  const hurried = { ...systemClock, monotonicMs: hurry() };
  const taken = { code: 'failed-precondition', message: /--node-id/ };
  await assert.rejects(announce(record('a', { storeId: '9'.repeat(32) }), hurried), taken);
  const copied = { code: 'failed-precondition', message: /is a copy of the one of node a/ };
  await assert.rejects(announce(record('b', { storeId: record('a').storeId }), hurried), copied);
  const twice = {
    code: 'failed-precondition',
    message: /is running at a:7420 already: one process/,
  };
  await assert.rejects(announce(record('a', { address: 'x:1' }), hurried), twice);
});

test('a node that is announced without an answer is announced again', async () => {
  for (const happened of [true, false]) {
    let lost = 0;
    const losing = intercepting(coordinator, () => async (run) => {
      if (lost++ > 0) return run();
      if (happened) await run();
      throw new QuorateError('outcome-unknown', 'the answer is lost');
    });
    const membership = new NodeMembership({
      ...environment,
      coordinator: losing,
      lease: createProcessLease({ ...environment, coordinator }),
      describe: () => Promise.resolve(record('a')),
    });
    await membership.join();
    assert.equal(lost, 2);
    await membership.leave();
  }
});

test('what an earlier process of the node left is waited for', async () => {
  const lease = createProcessLease({ ...environment, coordinator });
  const old = new NodeMembership({
    ...environment,
    coordinator,
    lease,
    describe: () => Promise.resolve(record('a', { address: 'before:1' })),
  });
  await old.join();
  setTimeout(() => void lease.close(), 200);
  const membership = await announce(record('a'));
  assert.equal(membership.record?.address, 'a:7420');
  await old.leave();
});

test('a replaced disk is announced at once where only this node can be at its address', async () => {
  const before = await announce(record('a'));
  const replaced = (isOwn: boolean): NodeMembership =>
    new NodeMembership({
      ...environment,
      clock: { ...systemClock, monotonicMs: hurry() },
      coordinator,
      lease: createProcessLease({ ...environment, coordinator }),
      describe: () => Promise.resolve(record('a', { storeId: '9'.repeat(32) })),
      isOwnAddress: () => Promise.resolve(isOwn),
    });
  await assert.rejects(replaced(false).join(), { code: 'failed-precondition' });
  const membership = replaced(true);
  await membership.join();
  const { nodes } = await open();
  assert.deepEqual(
    nodes.nodes().map(({ nodeId, storeId }) => [nodeId, storeId]),
    [['a', '9'.repeat(32)]],
  );
  // What is left of the old process takes nothing of it along.
  await before.leave();
  assert.notEqual(await coordinator.get(keys.node('a')), undefined);
  await membership.leave();
});

test('a lease that is lost is followed by a new record', async () => {
  const revokers: (() => Promise<void>)[] = [];
  const granting: Coordinator = {
    ...bound(coordinator),
    grantLease: async (ttlMs) => {
      const lease = await coordinator.grantLease(ttlMs);
      revokers.push(() => lease.revoke());
      return lease;
    },
  };
  const membership = new NodeMembership({
    ...environment,
    coordinator,
    lease: createProcessLease({ ...environment, coordinator: granting }),
    describe: () => Promise.resolve(record('a')),
  });
  closing.push(() => membership.leave());
  await membership.join();
  await revokers[0]?.();
  await until('a new lease', () => revokers.length === 2);
  const { nodes } = await open();
  await until('the node', () => idsOf(nodes).join() === 'a');
});

/** Its methods, so that some can be replaced. */
function bound(target: Coordinator): Coordinator {
  return {
    limits: target.limits,
    get: (key, options) => target.get(key, options),
    range: (key, options) => target.range(key, options),
    transaction: (transaction) => target.transaction(transaction),
    grantLease: (ttlMs) => target.grantLease(ttlMs),
    leaseLeft: (id) => target.leaseLeft(id),
    watch: (key, options) => target.watch(key, options),
    identity: () => target.identity(),
    ping: () => target.ping(),
    close: () => target.close(),
  };
}

/** A clock on which every look is ten seconds after the one before. */
function hurry(): () => number {
  let nowMs = 0;
  return () => (nowMs += 10_000);
}

test('what announced itself is known with its own word, whether it answers or not', async () => {
  await announce(record('full'));
  await announce(record('away', { problem: 'the disk was full, long ago' }));
  await markNode(coordinator, 'away', 'draining', 1);
  const { nodes, connections } = await open();
  Object.assign(connections.get('full:7420') ?? {}, { problem: 'the disk is full' });
  Object.assign(connections.get('away:7420') ?? {}, { reachable: false });
  const known = { zone: 'z' };
  assert.deepEqual(nodes.known(), [
    {
      ...known,
      nodeId: 'away',
      address: 'away:7420',
      mark: 'draining',
      answers: false,
      problem: undefined,
    },
    {
      ...known,
      nodeId: 'full',
      address: 'full:7420',
      mark: undefined,
      answers: true,
      problem: 'the disk is full',
    },
  ]);
});
