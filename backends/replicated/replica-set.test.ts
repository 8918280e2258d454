import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { silentLogger } from '../coordination/test-environment.js';
import type { Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { RefCommand } from '../contract/objects.js';
import type { Repository } from '../contract/repository.js';
import {
  packOf,
  permissivePipeline,
  pushRequest,
  runGit,
  silentMeter,
  zeroOid,
} from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { decodeRepository, encodeRecord } from './records.js';
import { applyEverywhere } from './replicate.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { settleQuarantines } from './settle-quarantines.js';
import {
  away,
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';
import { until } from '../contract/testing/until.js';
import { inRounds } from './testing/rounds.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let set: ReplicaSet;
let backend: ReplicatedBackend;
let repository: Repository;
beforeEach(async () => {
  set = await openReplicaSet();
  ({ backend } = await set.frontEnd());
  repository = await createRepository();
});
afterEach(async () => {
  await set.close();
});

function createRepository(
  through = backend,
  name = 'team/app',
  settings: Repository['settings'] = {},
): Promise<Repository> {
  return through.repositories.create({
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings,
    access: { public: false, grants: {} },
  });
}

async function push(
  commands: readonly RefCommand[],
  more: {
    through?: ReplicatedBackend;
    have?: string[];
    options?: string[];
    pack?: Buffer;
    slowly?: boolean;
  } = {},
): Promise<{ readonly generation?: number; readonly unpack: string; readonly reasons: string[] }> {
  const { through = backend, have = [], options = [], slowly = false } = more;
  const wants = commands.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
  const pack =
    more.pack ?? (wants.length === 0 ? undefined : await packOf(set.source, wants, have));
  const request = { ...pushRequest(commands, { pack, slowly }), pushOptions: options };
  const { refs, ...result } = await through.push(repository, request);
  const reasons = refs.flatMap((ref) => (ref.status === 'refused' ? [ref.reason] : []));
  return { ...result, reasons };
}

async function leftInLog(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const prefix of [keys.allLogs, keys.outboxes, keys.allLocks]) {
    const { entries } = await set.coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
    found.push(...entries.map(({ key }) => key));
  }
  return found;
}

async function assertConverged(stores: readonly TestStore[] = set.stores): Promise<void> {
  const head = await set.coordinator.get(keys.head(repository.id));
  const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
  for (const { replica, gitDir, root } of stores) {
    await replica.apply(repository.id, generation);
    assert.deepEqual(await replica.state(repository.id), { generation, digest });
    await runGit(gitDir(repository.id), ['fsck', '--full', '--strict']);
    // A judgement that nobody waited for may still be running.
    await until('no quarantine is left', async () => {
      const { coordinator } = set;
      const { quarantines } = replica;
      await settleQuarantines({ coordinator, replica, quarantines, logger: silentLogger });
      return readdirSync(join(root, 'quarantine')).length === 0;
    });
  }
}

async function refsSeen(through = backend): Promise<Record<string, string>> {
  const read = await through.read(repository, signal);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

test('a push and a read of the moment in which nodes come back are served', async () => {
  const oid = await set.commit('first');
  const again = await set.commit('second', oid);
  for (const store of set.stores) store.down = true;
  const pushing = push([{ ref: main, oldOid: zeroOid, newOid: oid }]);
  const reading = backend.read(repository, signal);
  // Both have looked by then.
  await setTimeout(150);
  for (const store of set.stores) store.down = false;
  assert.deepEqual((await pushing).reasons, []);
  (await reading).release();

  // One of three is no quorum yet.
  for (const store of set.stores.slice(1)) store.down = true;
  const next = push([{ ref: main, oldOid: oid, newOid: again }], { have: [oid] });
  const deleting = push([{ ref: 'refs/heads/none', oldOid: again, newOid: zeroOid }]);
  await setTimeout(150);
  for (const store of set.stores) store.down = false;
  assert.deepEqual((await next).reasons, []);
  await deleting;
  await assertConverged();
});

test('nodes that stay away are waited for in vain, and the refusal says so', async () => {
  for (const store of set.stores) store.down = true;
  await assert.rejects(backend.read(repository, signal), {
    code: 'unavailable',
    message: /^no storage node with this repository answers; try again/,
  });
});

test('a push is on every store, its entry names those that prepared it, and is trimmed', async () => {
  const one = await set.commit('one');
  const { generation, reasons } = await push([create(main, one), create('refs/tags/v1', one)]);
  assert.deepEqual([generation, reasons], [1, []]);
  await until('the log is empty', async () => (await leftInLog()).length === 0);
  for (const { replica } of set.stores) {
    assert.equal((await replica.state(repository.id))?.generation, 1);
  }
  await push([{ ref: 'refs/tags/v1', oldOid: one, newOid: zeroOid }]);
  assert.deepEqual(await refsSeen(), { [main]: one });
  await assertConverged();
});

for (const readConsistency of ['strong', 'eventual'] as const) {
  test(`what no push has made yet is refused to ${readConsistency} reads, and nobody is to try again`, async () => {
    repository = await createRepository(backend, 'team/ci', {
      'replication.readConsistency': readConsistency,
    });
    await push([create(main, await set.commit('one'))]);
    const read = await backend.read(repository, signal, { atLeast: 1 });
    assert.equal(read.snapshot.generation, 1);
    read.release();
    await assert.rejects(backend.read(repository, signal, { atLeast: 2 }), {
      code: 'failed-precondition',
      message: /at generation 1; 2 was asked for, which no push has made yet/,
    });
  });
}

test('who is to push is shown what is committed, also where reads are eventual', async () => {
  repository = await createRepository(backend, 'team/ci', {
    'replication.readConsistency': 'eventual',
  });
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  third.down = true;
  const one = await set.commit('one');
  await push([create(main, one)]);
  await until('only the entry is left', async () => (await leftInLog()).length === 1);
  first.down = true;
  second.down = true;
  third.down = false;
  assert.deepEqual(await refsSeen(), {}, 'a fetch sees what this store has');
  await assert.rejects(backend.read(repository, signal, { strong: true }), { code: 'unavailable' });
  first.down = false;
  second.down = false;
  const read = await backend.read(repository, signal, { strong: true });
  assert.deepEqual(
    read.snapshot.refs.map(({ oid }) => oid),
    [one],
  );
  read.release();
});

for (const call of ['upload', 'prepare', 'apply', 'storeUpdates'] as const) {
  for (const index of [0, 1, 2]) {
    test(`store ${index} is lost at ${call}: the push is accepted by the others`, async () => {
      const store = set.stores[index];
      assert.ok(store !== undefined);
      store.interfere = (name, go) => (name === call ? away() : go());
      const one = await set.commit('one');
      // What is uploaded by itself is streamed.
      const slowly = call === 'upload';
      assert.deepEqual((await push([create(main, one)], { slowly })).reasons, []);
      assert.deepEqual(await refsSeen(), { [main]: one });
      store.interfere = undefined;
      await assertConverged();
    });
  }
}

test('a store that was away is not waited for, and gets the push when it is back', async () => {
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  const one = await set.commit('one');
  assert.deepEqual((await push([create(main, one)])).reasons, []);
  await until('only the entry is left', async () => (await leftInLog()).length === 1);
  assert.equal((await third.replica.state(repository.id))?.generation, 0);
  third.down = false;
  await until('the log is empty', async () => (await leftInLog()).length === 0);
  await assertConverged();
});

test('without a majority nothing is accepted, and nothing is left', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  second.interfere = (name, go) => (name === 'prepare' ? away() : go());
  third.down = true;
  const one = await set.commit('one');
  await assert.rejects(push([create(main, one)]), {
    code: 'unavailable',
    message: /^not accepted: 1 of 3 .* too few for quorum, without node-1 .*, node-2; nothing/,
  });
  first.down = true;
  await assert.rejects(push([create(main, one)]), /1 of 3 storage nodes can take it/);
  for (const store of set.stores) {
    store.down = false;
    store.interfere = undefined;
    assert.deepEqual(readdirSync(join(store.root, 'quarantine')), []);
  }
  assert.deepEqual(await leftInLog(), []);
  assert.deepEqual(await refsSeen(), {});
  assert.equal((await push([create(main, one)])).generation, 1);
});

test('who could not take a push is named, with what it said, and the refusal is counted', async () => {
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  const counted: unknown[] = [];
  const count: Meter['count'] = (...what) => what[0] === 'quorum_failures' && counted.push(what[1]);
  const { backend: counting } = await set.frontEnd({ meter: { ...silentMeter, count } });
  third.interfere = (name, go) =>
    name === 'prepare'
      ? Promise.reject(new QuorateError('storage-failure', 'the disk is full; nothing changed'))
      : go();
  const one = await set.commit('one');
  const options = ['consistency=strong'];
  await assert.rejects(push([create(main, one)], { options, through: counting }), {
    code: 'unavailable',
    message:
      'not accepted: 2 of 3 storage nodes can take it, too few for strong, without node-2 (the disk is full); nothing changed, it is safe to push again',
  });
  assert.deepEqual(counted, [{ consistency: 'strong' }]);
});

test('strong waits for every voter, eventual for one; a push may choose', async () => {
  const [, second, third] = set.stores;
  assert.ok(second !== undefined && third !== undefined);
  third.down = true;
  const one = await set.commit('one');
  const commands = [create(main, one)];
  const strong = ['consistency=strong'];
  await assert.rejects(push(commands, { options: strong }), /too few for strong/);
  const { backend: strict } = await set.frontEnd({ consistency: 'strong' });
  await assert.rejects(push(commands, { through: strict }), { code: 'unavailable' });
  second.down = true;
  await assert.rejects(push(commands), { code: 'unavailable' });
  const { reasons } = await push(commands, { options: ['consistency=eventual'] });
  assert.deepEqual(reasons, []);
  const [odd] = (await push(commands, { options: ['consistency=often'] })).reasons;
  assert.match(odd ?? '', /wants eventual, quorum or strong/);
  second.down = false;
  third.down = false;
  await assertConverged();
});

for (const slowly of [false, true]) {
  const [way, call] = slowly ? ['streamed', 'upload'] : ['at once', 'prepare'];

  test(`a bad pack is refused once, and no store keeps anything of it: ${way}`, async () => {
    const one = await set.commit('one');
    const pack = await packOf(set.source, [one], []);
    pack[pack.length - 1] = (pack.at(-1) ?? 0) ^ 0xff;
    const { unpack, generation, reasons } = await push([create(main, one)], { pack, slowly });
    assert.match(unpack, /checksum|pack/);
    assert.deepEqual([generation, reasons], [undefined, ['unpacker error']]);
    assert.deepEqual(await leftInLog(), []);
    await assertConverged();
  });

  test(`what one store cannot take, others may: its disk lacks something, or it is behind: ${way}`, async () => {
    const [first, second] = set.stores;
    assert.ok(first !== undefined && second !== undefined);
    const { backend: through } = await set.frontEnd({ clock: unhurried });
    const lacking = new QuorateError('invalid-argument', 'pack has 1 unresolved delta', {
      details: { pack: true },
    });
    first.interfere = (name, go) => (name === call ? Promise.reject(lacking) : go());
    const one = await set.commit('one');
    const made = await push([create(main, one)], { through, slowly });
    assert.deepEqual([made.generation, made.unpack, made.reasons], [1, 'ok', []]);
    // Two of three: then it is the pack.
    second.interfere = first.interfere;
    const more = [create('refs/heads/bad', await set.commit('bad'))];
    const bad = await push(more, { through, slowly });
    assert.deepEqual([bad.unpack, bad.reasons], [lacking.message, ['unpacker error']]);
    first.interfere = undefined;
    // Behind, and gets a thin pack that builds on what it has not applied.
    second.interfere = (name, go) => (name === 'apply' ? away() : go());
    const content = Array.from({ length: 300 }, (_, line) => `line ${line}`).join('\n');
    const two = await set.commit(content, one);
    await push([{ ref: main, oldOid: one, newOid: two }], { through, have: [one] });
    const three = await set.commit(`${content}more`, two);
    const taken: (number | 'failed')[] = [];
    second.interfere = async (name, go) => {
      if (name !== call) return go();
      try {
        const result = await go();
        taken.push(1);
        return result;
      } catch (error) {
        taken.push('failed');
        throw error;
      }
    };
    const last = [{ ref: main, oldOid: two, newOid: three }];
    const thin = await push(last, { through, have: [two], slowly });
    assert.deepEqual([thin.generation, taken], [3, [1]]);
  });
}

test('a push that is judged again sends its pack only to stores that lack it', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  const sent: string[] = [];
  let rounds = 0;
  for (const [index, store] of set.stores.entries()) {
    store.interfere = async (name, go, request) => {
      if (name !== 'prepare') return go();
      sent.push(`${index}: ${hasPack(request) ? 'with' : 'without'}`);
      if (index === 2 && sent.length <= 3) return away();
      const prepared = await go();
      if (index === 0 && ++rounds === 1) {
        await backend.repositories.update(repository.id, () => ({
          settings: { 'receive.maxRefs': '100' },
        }));
      }
      return prepared;
    };
  }
  const one = await set.commit('one');
  const { generation, reasons } = await push([create(main, one)]);
  assert.deepEqual([generation, reasons], [1, []]);
  assert.deepEqual(sent.slice(0, 3).sort(), ['0: with', '1: with', '2: with']);
  assert.deepEqual(sent.slice(3).sort(), ['0: without', '1: without', '2: with']);
  await assertConverged();
});

function hasPack(request: unknown): boolean {
  return typeof request === 'object' && request !== null && 'pack' in request;
}

test('a store that takes nothing is left behind', async () => {
  const [, second] = set.stores;
  assert.ok(second !== undefined);
  const releasing = new AbortController();
  const held = new Promise<void>((resolve) => {
    releasing.signal.addEventListener('abort', () => resolve());
  });
  second.interfere = async (name, go) => {
    if (name === 'upload') await held;
    return go();
  };
  const one = await set.commit('one');
  assert.deepEqual((await push([create(main, one)], { slowly: true })).reasons, []);
  assert.deepEqual(await refsSeen(), { [main]: one });
  releasing.abort();
  second.interfere = undefined;
});

test('a read goes on at another store', async () => {
  const one = await set.commit('one');
  await push([create(main, one)]);
  for (const store of set.stores.slice(0, 2)) {
    store.interfere = (name, go) => (name === 'read' ? away() : go());
  }
  assert.deepEqual(await refsSeen(), { [main]: one });
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  await assert.rejects(refsSeen(), { code: 'unavailable' });
});

test('a read that meets a store behind the head is answered by one that is not', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  first.down = true;
  const one = await set.commit('one');
  await push([create(main, one)]);
  first.down = false;
  assert.deepEqual(await refsSeen(), { [main]: one });
  await until('the first has caught up', async () => {
    return (await first.replica.state(repository.id))?.generation === 1;
  });
});

test('two front-ends: one winner for each ref, and both see every push', async () => {
  const { backend: other } = await set.frontEnd();
  const one = await set.commit('one');
  const rivals = await Promise.all([set.commit('two', one), set.commit('three', one)]);
  await push([create(main, one)]);
  const results = await Promise.all(
    rivals.map((newOid, index) =>
      push([{ ref: main, oldOid: one, newOid }], {
        through: index === 0 ? backend : other,
        have: [one],
      }),
    ),
  );
  const winners = rivals.filter((_, index) => results[index]?.reasons.length === 0);
  assert.equal(winners.length, 1);
  assert.deepEqual(await refsSeen(), { [main]: winners[0] });
  assert.deepEqual(await refsSeen(other), { [main]: winners[0] });
  await assertConverged();
});

test('a front-end that dies after the commit point: another finishes its work', async () => {
  const told: string[] = [];
  const { backend: dying } = await set.frontEnd({
    pipeline: {
      ...permissivePipeline,
      postReceive: ({ signal: closing }) =>
        new Promise((resolve) => closing.addEventListener('abort', () => resolve())),
    },
  });
  const { backend: other } = await set.frontEnd({
    pipeline: {
      ...permissivePipeline,
      postReceive: async ({ entry }) => {
        told.push(entry.pushId);
      },
    },
  });
  const one = await set.commit('one');
  await push([create(main, one)], { through: dying });
  const { entries } = await set.coordinator.range('frontEnds/', {
    rangeEnd: prefixEnd('frontEnds/'),
  });
  const outbox = await set.coordinator.range(keys.outboxes, { rangeEnd: prefixEnd(keys.outboxes) });
  const [item] = outbox.entries;
  assert.ok(item !== undefined);
  const { frontEnd } = JSON.parse(new TextDecoder().decode(item.value));
  const alive = entries.find(({ key }) => key === keys.frontEnd(frontEnd));
  assert.ok(alive !== undefined, 'an outbox record names a front-end that lives');
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'delete', key: alive.key }],
    failure: [],
  });
  await other.takeOver();
  await until('it is told', () => told.length === 1);
});

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
}

test('what a front-end that is gone left in the log, since a voter lacked it, another trims', async () => {
  const { clock, round } = inRounds();
  await set.frontEnd({ clock });
  const { backend: leaving } = await set.frontEnd();
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  await push([create(main, await set.commit('one'))], { through: leaving });
  const entry = keys.logEntry(repository.id, 1);
  await until('it is only left to be trimmed', async () => (await leftInLog()).join() === entry);
  await leaving.close(1_000);
  third.down = false;
  await round();
  await until('it is trimmed', async () => (await leftInLog()).length === 0);
  await assertConverged();
});

test('a committed push is reported when another store has applied it than the one whose disk hangs', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  const hangs = new AbortController();
  first.interfere = async (call, go) => {
    if (call === 'apply') await aborted(hangs.signal);
    return go();
  };
  const { generation } = await push([create(main, await set.commit('one'))]);
  assert.equal(generation, 1);
  assert.equal(hangs.signal.aborted, false);
  hangs.abort();
  await until('nothing is left to do', async () => (await leftInLog()).length === 0);
  await assertConverged();
});

test('who leaves is not kept by stores whose disks hang, nor are his locks', async () => {
  const hangs = new AbortController();
  let asked = 0;
  for (const store of set.stores) {
    store.interfere = async (call, go) => {
      if (call === 'prepare') {
        asked++;
        await aborted(hangs.signal);
      }
      return go();
    };
  }
  const one = await set.commit('one');
  const leaving = new AbortController();
  const request = pushRequest([create(main, one)], { pack: await packOf(set.source, [one], []) });
  // Beside another one it takes locks.
  const pushes = ['a', 'b'].map((name) => {
    const commands = [create(`${main}-${name}`, one)];
    return backend.push(repository, {
      ...request,
      commands,
      pushId: `push-of-${name}`,
      signal: leaving.signal,
    });
  });
  await until('all are asked by both', () => asked === 2 * set.stores.length);
  leaving.abort();
  await Promise.all(pushes.map((pushing) => assert.rejects(pushing, { code: 'cancelled' })));
  assert.deepEqual(await leftInLog(), []);
  hangs.abort();
});

test('a refused push is reported though a store whose disk hangs keeps what it has of it', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  const hangs = new AbortController();
  first.interfere = async (call, go) => {
    if (call === 'abort') await aborted(hangs.signal);
    return go();
  };
  const moved = { ref: main, oldOid: 'a'.repeat(40), newOid: await set.commit('one') };
  const { reasons } = await push([moved]);
  assert.equal(reasons.length, 1);
  await assert.rejects(backend.repositories.setHead(repository.id, 'refs/heads/a..b'));
  assert.equal(hangs.signal.aborted, false);
  hangs.abort();
});

test('a change of HEAD is as consistent as its repository wants it', async () => {
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  const strong = await createRepository(backend, 'team/strong', {
    'replication.consistency': 'strong',
  });
  third.down = true;
  await backend.repositories.setHead(repository.id, 'refs/heads/other');
  await assert.rejects(backend.repositories.setHead(strong.id, 'refs/heads/other'), {
    code: 'unavailable',
  });
  third.down = false;
  await backend.repositories.setHead(strong.id, 'refs/heads/other');
});

test('files that are long in going hold up no start, and nothing that the dead left', async () => {
  const [, second] = set.stores;
  assert.ok(second !== undefined);
  // Somebody clones what was deleted, over a slow line.
  const cloned = new AbortController();
  second.interfere = async (call, go) => {
    if (call === 'destroy') await aborted(cloned.signal);
    return go();
  };
  const other = await createRepository(backend, 'team/other');
  await backend.repositories.delete(other.id);
  await backend.close(100);
  const { clock, round } = inRounds();
  const told: string[] = [];
  const { backend: started } = await set.frontEnd({
    clock,
    pipeline: {
      ...permissivePipeline,
      postReceive: async ({ entry }) => {
        told.push(entry.pushId);
      },
    },
  });
  await push([create(main, await set.commit('one'))], { through: started });
  const entry = { pushId: 'of-the-dead', updates: [], prepared: [], digest: '', actor: 'a' };
  const value = encodeRecord({ ...entry, generation: 1, atMs: 1 });
  const left = encodeRecord({ generation: 1, frontEnd: 'dead' });
  await set.coordinator.transaction({
    compares: [],
    success: [
      { type: 'put', key: keys.logEntry(repository.id, 1), value },
      { type: 'put', key: keys.outbox(repository.id, entry.pushId), value: left },
    ],
    failure: [],
  });
  await round();
  await until('it is told', () => told.includes(entry.pushId));
  cloned.abort();
  for (let rounds = 0; (await set.coordinator.get(keys.repo(other.id))) !== undefined; rounds++) {
    assert.ok(rounds < 4, 'it stays');
    await round();
  }
});

test('the life of a push names each voter when it has applied it', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  await push([create(main, await set.commit('one'))]);
  third.down = true;
  const record = await set.coordinator.get(keys.repo(repository.id));
  assert.ok(record !== undefined);
  const told: unknown[] = [];
  const { everywhere } = await applyEverywhere(
    { replicas: set.replicas, logger: silentLogger },
    decodeRepository(record),
    { generation: 1, done: first.storeId, trace: { note: (...note) => void told.push(note) } },
  );
  assert.equal(await everywhere, false);
  const nodeId = decodeRepository(record).voters.find(
    ({ storeId }) => storeId === second.storeId,
  )?.nodeId;
  assert.deepEqual(told, [['applied', { nodeId }]]);
});
