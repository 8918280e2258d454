import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import type { Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { awaited, until } from '../contract/testing/until.js';
import { comeTo } from '../local/testing/come-to.js';
import { packOf, silentMeter, zeroOid } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { decodeRepository } from './records.js';
import { applyEverywhere } from './replicate.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { ComingBack } from './testing/coming-back.js';
import { intercepting, isCommit, isResolution } from './testing/fault-coordinator.js';
import { away, type Interference, type ReplicaSet, unhurried } from './testing/replica-set.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let scene: SetScene;
let set: ReplicaSet;
let backend: ReplicatedBackend;
beforeEach(async () => {
  scene = await openSetScene();
  ({ set, backend } = scene);
});
afterEach(async () => {
  await scene.close();
});

test('a push and a read of the moment in which nodes come back are served', async () => {
  const coming = new ComingBack();
  const { backend: through } = await set.frontEnd({ clock: coming.clock });
  const oid = await set.commit('first');
  const again = await set.commit('second', oid);
  for (const store of set.stores) store.down = true;
  const pushing = scene.push([create(main, oid)], { through });
  const reading = through.read(scene.repository, signal);
  await coming.back(set.stores, 2);
  assert.deepEqual((await awaited('the push', pushing)).reasons, []);
  (await awaited('the read', reading)).release();

  // One of three is no quorum yet.
  for (const store of set.stores.slice(1)) store.down = true;
  const change = { ref: main, oldOid: oid, newOid: again };
  const next = scene.push([change], { through, have: [oid] });
  const deleting = scene.push([{ ref: 'refs/heads/none', oldOid: again, newOid: zeroOid }], {
    through,
  });
  await coming.back(set.stores, 2);
  assert.deepEqual((await awaited('the next push', next)).reasons, []);
  await awaited('the deletion', deleting);
  await scene.assertConverged();
});

test('nodes that stay away are waited for in vain, and the refusal says so', async () => {
  for (const store of set.stores) store.down = true;
  await assert.rejects(backend.read(scene.repository, signal), {
    code: 'unavailable',
    message: /^no storage node with this repository answers; try again/,
  });
});

test('a push is on every store, its entry names those that prepared it, and is trimmed', async () => {
  const one = await set.commit('one');
  const { generation, reasons } = await scene.push([
    create(main, one),
    create('refs/tags/v1', one),
  ]);
  assert.deepEqual([generation, reasons], [1, []]);
  await until('the log is empty', async () => (await scene.leftInLog()).length === 0);
  for (const { replica } of set.stores) {
    assert.equal((await replica.state(scene.repository.id))?.generation, 1);
  }
  await scene.push([{ ref: 'refs/tags/v1', oldOid: one, newOid: zeroOid }]);
  assert.deepEqual(await scene.refsSeen(), { [main]: one });
  await scene.assertConverged();
});

for (const readConsistency of ['strong', 'eventual'] as const) {
  test(`what no push has made yet is refused to ${readConsistency} reads, and nobody is to try again`, async () => {
    scene.repository = await scene.createRepository(backend, 'team/ci', {
      'replication.readConsistency': readConsistency,
    });
    await scene.push([create(main, await set.commit('one'))]);
    const read = await backend.read(scene.repository, signal, { atLeast: 1 });
    assert.equal(read.snapshot.generation, 1);
    read.release();
    await assert.rejects(backend.read(scene.repository, signal, { atLeast: 2 }), {
      code: 'failed-precondition',
      message: /at generation 1; 2 was asked for, which no push has made yet/,
    });
  });
}

test('who is to push is shown what is committed, also where reads are eventual', async () => {
  scene.repository = await scene.createRepository(backend, 'team/ci', {
    'replication.readConsistency': 'eventual',
  });
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  third.down = true;
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  await until('only the entry is left', async () => (await scene.leftInLog()).length === 1);
  first.down = true;
  second.down = true;
  third.down = false;
  assert.deepEqual(await scene.refsSeen(), {}, 'a fetch sees what this store has');
  await assert.rejects(backend.read(scene.repository, signal, { strong: true }), {
    code: 'unavailable',
  });
  first.down = false;
  second.down = false;
  const read = await backend.read(scene.repository, signal, { strong: true });
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
      assert.deepEqual((await scene.push([create(main, one)], { slowly })).reasons, []);
      assert.deepEqual(await scene.refsSeen(), { [main]: one });
      store.interfere = undefined;
      await scene.assertConverged();
    });
  }
}

test('a store that was away is not waited for, and gets the push when it is back', async () => {
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  const one = await set.commit('one');
  assert.deepEqual((await scene.push([create(main, one)])).reasons, []);
  await until('only the entry is left', async () => (await scene.leftInLog()).length === 1);
  assert.equal((await third.replica.state(scene.repository.id))?.generation, 0);
  third.down = false;
  await until('the log is empty', async () => (await scene.leftInLog()).length === 0);
  await scene.assertConverged();
});

test('without a majority nothing is accepted, and nothing is left', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  second.interfere = (name, go) => (name === 'prepare' ? away() : go());
  third.down = true;
  const one = await set.commit('one');
  await assert.rejects(scene.push([create(main, one)]), {
    code: 'unavailable',
    message: /^not accepted: 1 of 3 .* too few for quorum, without node-1 .*, node-2; nothing/,
  });
  first.down = true;
  await assert.rejects(scene.push([create(main, one)]), /1 of 3 storage nodes can take it/);
  for (const store of set.stores) {
    store.down = false;
    store.interfere = undefined;
    // A refusal does not wait for more than some seconds until a store has dropped what it had of it.
    await comeTo([], () => readdirSync(join(store.root, 'quarantine')));
  }
  assert.deepEqual(await scene.leftInLog(), []);
  assert.deepEqual(await scene.refsSeen(), {});
  assert.equal((await scene.push([create(main, one)])).generation, 1);
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
  await assert.rejects(scene.push([create(main, one)], { options, through: counting }), {
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
  await assert.rejects(scene.push(commands, { options: strong }), /too few for strong/);
  const { backend: strict } = await set.frontEnd({ consistency: 'strong' });
  await assert.rejects(scene.push(commands, { through: strict }), { code: 'unavailable' });
  second.down = true;
  await assert.rejects(scene.push(commands), { code: 'unavailable' });
  const { reasons } = await scene.push(commands, { options: ['consistency=eventual'] });
  assert.deepEqual(reasons, []);
  const [odd] = (await scene.push(commands, { options: ['consistency=often'] })).reasons;
  assert.match(odd ?? '', /wants eventual, quorum or strong/);
  second.down = false;
  third.down = false;
  await scene.assertConverged();
});

/** A store that says so of each pack that it is asked to take. */
function refusing(
  call: string,
  code: 'storage-failure' | 'invalid-argument',
  message: string,
): Interference {
  const error = new QuorateError(code, message, { details: { pack: true } });
  return (name, go) => (name === call ? Promise.reject(error) : go());
}

for (const slowly of [false, true]) {
  const [way, call] = slowly ? ['streamed', 'upload'] : ['at once', 'prepare'];

  test(`a bad pack is refused once, and no store keeps anything of it: ${way}`, async () => {
    const one = await set.commit('one');
    const pack = await packOf(set.source, [one], []);
    pack[pack.length - 1] = (pack.at(-1) ?? 0) ^ 0xff;
    const { unpack, generation, reasons } = await scene.push([create(main, one)], { pack, slowly });
    assert.match(unpack, /checksum|pack/);
    assert.deepEqual([generation, reasons], [undefined, ['unpacker error']]);
    assert.deepEqual(await scene.leftInLog(), []);
    await scene.assertConverged();
  });

  test(`a disk that is full is told of with the name of its node, and is no fault of the pack: ${way}`, async () => {
    const [first, second, third] = set.stores;
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    third.interfere = refusing(call, 'storage-failure', 'the disk is full; nothing changed');
    const commands = [create(main, await set.commit('one'))];
    const strong = ['consistency=strong'];
    await assert.rejects(scene.push(commands, { options: strong, slowly }), {
      code: 'unavailable',
      message:
        'not accepted: 2 of 3 storage nodes can take it, too few for strong, without node-2 (the disk is full); nothing changed, it is safe to push again',
    });
    first.interfere = refusing(call, 'invalid-argument', 'a bad pack');
    second.interfere = first.interfere;
    const bad = await scene.push(commands, { slowly });
    assert.deepEqual([bad.unpack, bad.reasons], ['a bad pack', ['unpacker error']]);
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
    const made = await scene.push([create(main, one)], { through, slowly });
    assert.deepEqual([made.generation, made.unpack, made.reasons], [1, 'ok', []]);
    // Two of three: then it is the pack.
    second.interfere = first.interfere;
    const more = [create('refs/heads/bad', await set.commit('bad'))];
    const bad = await scene.push(more, { through, slowly });
    assert.deepEqual([bad.unpack, bad.reasons], [lacking.message, ['unpacker error']]);
    first.interfere = undefined;
    // Behind, and gets a thin pack that builds on what it has not applied.
    second.interfere = (name, go) => (name === 'apply' ? away() : go());
    const content = Array.from({ length: 300 }, (_, line) => `line ${line}`).join('\n');
    const two = await set.commit(content, one);
    await scene.push([{ ref: main, oldOid: one, newOid: two }], { through, have: [one] });
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
    const thin = await scene.push(last, { through, have: [two], slowly });
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
        await backend.repositories.update(scene.repository.id, () => ({
          settings: { 'receive.maxRefs': '100' },
        }));
      }
      return prepared;
    };
  }
  const one = await set.commit('one');
  const { generation, reasons } = await scene.push([create(main, one)]);
  assert.deepEqual([generation, reasons], [1, []]);
  assert.deepEqual(sent.slice(0, 3).sort(), ['0: with', '1: with', '2: with']);
  assert.deepEqual(sent.slice(3).sort(), ['0: without', '1: without', '2: with']);
  await scene.assertConverged();
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
  assert.deepEqual((await scene.push([create(main, one)], { slowly: true })).reasons, []);
  assert.deepEqual(await scene.refsSeen(), { [main]: one });
  releasing.abort();
  second.interfere = undefined;
});

test('a read goes on at another store', async () => {
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  for (const store of set.stores.slice(0, 2)) {
    store.interfere = (name, go) => (name === 'read' ? away() : go());
  }
  assert.deepEqual(await scene.refsSeen(), { [main]: one });
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  third.down = true;
  await assert.rejects(scene.refsSeen(), { code: 'unavailable' });
});

test('a read that meets a store behind the head is answered by one that is not', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  first.down = true;
  const one = await set.commit('one');
  await scene.push([create(main, one)]);
  first.down = false;
  assert.deepEqual(await scene.refsSeen(), { [main]: one });
  await until('the first has caught up', async () => {
    return (await first.replica.state(scene.repository.id))?.generation === 1;
  });
});

test('a change of HEAD is as consistent as its repository wants it', async () => {
  const [, , third] = set.stores;
  assert.ok(third !== undefined);
  const strong = await scene.createRepository(backend, 'team/strong', {
    'replication.consistency': 'strong',
  });
  third.down = true;
  await backend.repositories.setHead(scene.repository.id, 'refs/heads/other');
  await assert.rejects(backend.repositories.setHead(strong.id, 'refs/heads/other'), {
    code: 'unavailable',
  });
  third.down = false;
  await backend.repositories.setHead(strong.id, 'refs/heads/other');
});

test('a change of HEAD of which the answer was lost is left to who waits for it, and found out', async () => {
  let lost = 0;
  let taken = 0;
  const { backend: through } = await set.frontEnd({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) => {
        if (isCommit(transaction) && lost++ === 0) {
          return async (run) => {
            await run();
            throw new QuorateError('outcome-unknown', 'lost');
          };
        }
        if (isResolution(transaction)) {
          return async (run) => {
            await through.takeOver();
            return run();
          };
        }
        const reads = transaction.success.filter(
          ({ type, key }) => type === 'get' && key.startsWith(keys.outboxes),
        );
        taken += reads.length;
        return undefined;
      }),
  });
  await scene.push([create(main, await set.commit('one'))], { through });
  lost = 0;
  await through.repositories.setHead(scene.repository.id, 'refs/heads/next', 'ann');
  const read = await through.read(scene.repository, signal);
  read.release();
  assert.deepEqual(read.snapshot.head, { symref: 'refs/heads/next' });
  assert.equal(taken, 0, 'nobody else looked at its record');
});

test('the life of a push names each voter when it has applied it', async () => {
  const [first, second, third] = set.stores;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  await scene.push([create(main, await set.commit('one'))]);
  third.down = true;
  const record = await set.coordinator.get(keys.repo(scene.repository.id));
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
