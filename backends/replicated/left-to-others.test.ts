import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import {
  packOf,
  permissivePipeline,
  pushRequest,
  systemClock,
} from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { encodeRecord } from './records.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import type { ReplicaSet } from './testing/replica-set.js';
import { inRounds } from './testing/rounds.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

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

test('two front-ends: one winner for each ref, and both see every push', async () => {
  const { backend: other } = await set.frontEnd();
  const one = await set.commit('one');
  const rivals = await Promise.all([set.commit('two', one), set.commit('three', one)]);
  await scene.push([create(main, one)]);
  const results = await Promise.all(
    rivals.map((newOid, index) =>
      scene.push([{ ref: main, oldOid: one, newOid }], {
        through: index === 0 ? backend : other,
        have: [one],
      }),
    ),
  );
  const winners = rivals.filter((_, index) => results[index]?.reasons.length === 0);
  assert.equal(winners.length, 1);
  assert.deepEqual(await scene.refsSeen(), { [main]: winners[0] });
  assert.deepEqual(await scene.refsSeen(other), { [main]: winners[0] });
  await scene.assertConverged();
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
  await scene.push([create(main, one)], { through: dying });
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
  await scene.push([create(main, await set.commit('one'))], { through: leaving });
  const entry = keys.logEntry(scene.repository.id, 1);
  await until(
    'it is only left to be trimmed',
    async () => (await scene.leftInLog()).join() === entry,
  );
  await leaving.close(1_000);
  third.down = false;
  await round();
  await until('it is trimmed', async () => (await scene.leftInLog()).length === 0);
  await scene.assertConverged();
});

test('a committed push is reported when another store has applied it than the one whose disk hangs', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  const hangs = new AbortController();
  first.interfere = async (call, go) => {
    if (call === 'apply') await aborted(hangs.signal);
    return go();
  };
  const { generation } = await scene.push([create(main, await set.commit('one'))]);
  assert.equal(generation, 1);
  assert.equal(hangs.signal.aborted, false);
  hangs.abort();
  await until('nothing is left to do', async () => (await scene.leftInLog()).length === 0);
  await scene.assertConverged();
});

test('a committed push is reported though all disks hang', async () => {
  // What is waited for in seconds is over soon.
  const { backend: hurried } = await set.frontEnd({
    clock: {
      ...systemClock,
      sleep: (ms, signal) => systemClock.sleep(ms < 3_000 || ms > 30_000 ? ms : 50, signal),
    },
  });
  const hangs = new AbortController();
  for (const store of set.stores) {
    store.interfere = async (call, go) => {
      if (call === 'apply') await aborted(hangs.signal);
      return go();
    };
  }
  const { generation } = await scene.push([create(main, await set.commit('one'))], {
    through: hurried,
  });
  assert.equal(generation, 1);
  assert.equal(hangs.signal.aborted, false);
  hangs.abort();
  await until('nothing is left to do', async () => (await scene.leftInLog()).length === 0);
  await scene.assertConverged();
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
    return backend.push(scene.repository, {
      ...request,
      commands,
      pushId: `push-of-${name}`,
      signal: leaving.signal,
    });
  });
  await until('all are asked by both', () => asked === 2 * set.stores.length);
  leaving.abort();
  await Promise.all(pushes.map((pushing) => assert.rejects(pushing, { code: 'cancelled' })));
  assert.deepEqual(await scene.leftInLog(), []);
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
  const { reasons } = await scene.push([moved]);
  assert.equal(reasons.length, 1);
  await assert.rejects(backend.repositories.setHead(scene.repository.id, 'refs/heads/a..b'));
  assert.equal(hangs.signal.aborted, false);
  hangs.abort();
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
  const other = await scene.createRepository(backend, 'team/other');
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
  await scene.push([create(main, await set.commit('one'))], { through: started });
  const entry = { pushId: 'of-the-dead', updates: [], prepared: [], digest: '', actor: 'a' };
  const value = encodeRecord({ ...entry, generation: 1, atMs: 1 });
  const left = encodeRecord({ generation: 1, frontEnd: 'dead' });
  await set.coordinator.transaction({
    compares: [],
    success: [
      { type: 'put', key: keys.logEntry(scene.repository.id, 1), value },
      { type: 'put', key: keys.outbox(scene.repository.id, entry.pushId), value: left },
    ],
    failure: [],
  });
  await round();
  await until('it is told', () => told.includes(entry.pushId));
  cloned.abort();
  await until(
    'its record goes',
    async () => (await set.coordinator.get(keys.repo(other.id))) === undefined,
  );
});
