import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import type { Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { NewRepository, Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { permissivePipeline } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { obeyEvictions } from './evictions.js';
import { markNode } from './node-marks.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { listNodes } from './store-view.js';
import { intercepting, type Step } from './testing/fault-coordinator.js';
import { inRounds } from './testing/rounds.js';
import { SetScene } from './testing/set-scene.js';
import { openReplicaSet, type ReplicaSet, type TestStore } from './testing/replica-set.js';

let set: ReplicaSet;
let backend: ReplicatedBackend;
let repository: Repository;

beforeEach(async () => {
  set = await openReplicaSet(3);
  ({ backend } = await set.frontEnd());
  repository = await backend.repositories.create(described('team/app'));
});
afterEach(() => set.close());

function described(name: string): NewRepository {
  const access = { public: false, grants: {} };
  return { name, defaultBranch: 'main', objectFormat: 'sha1', settings: {}, access };
}

const makes = ({ success }: Transaction): boolean =>
  success.some(({ type, key }) => type === 'put' && key.startsWith(keys.names));

const buries = ({ success: [only, more] }: Transaction): boolean =>
  more === undefined && only?.type === 'put' && only.key.startsWith(keys.repos);

const frees = ({ success }: Transaction): boolean =>
  success.some(({ type, key }) => type === 'delete' && key.startsWith(keys.names));

/** A front-end whose records of its own being there are gone, as after a long pause, and whose last step waits. */
async function makerTakenForDead(step: Step): Promise<ReplicatedBackend> {
  const dead: Step = async (run) => {
    const key = keys.frontEnd('');
    await set.coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key, rangeEnd: prefixEnd(key) }],
      failure: [],
    });
    return step(run);
  };
  const front = await set.frontEnd({
    wrap: (coordinator) => intercepting(coordinator, (one) => (makes(one) ? dead : undefined)),
  });
  return front.backend;
}

function lost(): TestStore {
  const store = set.stores[2];
  assert.ok(store !== undefined);
  return store;
}

async function tombstones(): Promise<number> {
  const { entries } = await set.coordinator.range(keys.repos, { rangeEnd: prefixEnd(keys.repos) });
  return entries.length;
}

/** Deletes the repository, and sweeps as a server does at its start. */
async function deleted(): Promise<void> {
  await backend.repositories.delete(repository.id);
  await set.frontEnd();
}

test('a tombstone waits for a store that may come back', async () => {
  lost().down = true;
  await deleted();
  assert.equal(await tombstones(), 1);
  lost().down = false;
  await set.frontEnd();
  assert.equal(await tombstones(), 0);
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('a node that only tombstones wait for is listed, without copies', async () => {
  const { storeId } = lost();
  lost().down = true;
  await deleted();
  const listed = async () => {
    const found = (await listNodes(set)).find((node) => node.storeId === storeId);
    return found && { alive: found.alive, copies: found.copies };
  };
  assert.deepEqual(await listed(), { alive: false, copies: 0 });
  lost().down = false;
  await set.frontEnd();
  assert.deepEqual(await listed(), { alive: true, copies: 0 });
});

test('what could not be removed is tried again in one of the next rounds', async () => {
  const { clock, round } = inRounds();
  const { backend: front } = await set.frontEnd({ clock });
  // From the first on, which follows the start, all is calm.
  await round();
  await round();
  lost().down = true;
  await front.repositories.delete(repository.id);
  await until('the others to be asked', () =>
    set.stores.every((store) => store.down || !existsSync(store.gitDir(repository.id))),
  );
  await round();
  assert.equal(await tombstones(), 1);
  lost().down = false;
  for (let rounds = 0; rounds < 4 && (await tombstones()) > 0; rounds++) await round();
  // No round waits for what takes long.
  await until('it goes', async () => (await tombstones()) === 0);
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('files that are long in going keep nothing else that is to be removed', async () => {
  const other = await backend.repositories.create(described('team/other'));
  // Sweeps go by ids.
  const [slow, next] = [repository, other].sort((a, b) => (a.id < b.id ? -1 : 1));
  assert.ok(slow !== undefined && next !== undefined);
  const { clock, round } = inRounds();
  const { backend: front } = await set.frontEnd({ clock });
  lost().down = true;
  for (const { id } of [slow, next]) await front.repositories.delete(id);
  await until('the others to be asked', () =>
    set.stores.every((store) => store.down || !existsSync(store.gitDir(next.id))),
  );
  await round();
  assert.equal(await tombstones(), 2);
  // Somebody clones the one over a slow line.
  const events = new EventEmitter();
  const over = once(events, 'over');
  lost().interfere = async (call, go, id) => {
    if (call === 'destroy' && id === slow.id) await over;
    return go();
  };
  lost().down = false;
  for (let rounds = 0; rounds < 4 && (await tombstones()) > 1; rounds++) await round();
  await until('the other one goes', async () => (await tombstones()) === 1);
  assert.ok(existsSync(lost().gitDir(slow.id)));
  assert.ok(!existsSync(lost().gitDir(next.id)));
  events.emit('over');
  await until('it is gone', async () => (await tombstones()) === 0);
});

test('what is kept elsewhere about a deleted repository goes before its record, also when whoever deleted it dies', async () => {
  const gone: string[] = [];
  let broken = true;
  const pipeline = {
    ...permissivePipeline,
    repositoryGone: async ({ id, name }: Pick<Repository, 'id' | 'name'>) => {
      assert.equal(await tombstones(), 1);
      gone.push(`${name} ${id}`);
      if (broken) throw new Error('the coordinator does not answer');
    },
  };
  const { backend: dying } = await set.frontEnd({ pipeline });
  const deletion = await dying.repositories.delete(repository.id);
  assert.deepEqual(deletion, { isForgotten: false });
  await dying.close(60_000);
  assert.equal(await tombstones(), 1);
  broken = false;
  await set.frontEnd({ pipeline });
  assert.equal(await tombstones(), 0);
  const told = `team/app ${repository.id}`;
  // At once, with its files, and by the next front-end.
  assert.deepEqual(gone, [told, told, told]);
});

test('what is kept elsewhere goes at once, though the files have readers for hours', async () => {
  const gone: string[] = [];
  const pipeline = {
    ...permissivePipeline,
    repositoryGone: async ({ id }: Pick<Repository, 'id' | 'name'>) => void gone.push(id),
  };
  const { backend: front } = await set.frontEnd({ pipeline });
  const events = new EventEmitter();
  const over = once(events, 'over');
  lost().interfere = async (call, go) => {
    if (call === 'destroy') await over;
    return go();
  };
  assert.deepEqual(await front.repositories.delete(repository.id), { isForgotten: true });
  assert.deepEqual(gone, [repository.id]);
  events.emit('over');
  await until('the files are gone', async () => (await tombstones()) === 0);
});

test('who deletes what was never pushed to takes nothing along that is committed meanwhile', async () => {
  const main = 'refs/heads/main';
  const oid = await set.commit('one');
  const scene = new SetScene(set, backend, repository);
  let pushed = false;
  const push: Step = async (run) => {
    if (!pushed) assert.equal((await scene.push([create(main, oid)])).generation, 1);
    pushed = true;
    return run();
  };
  const { backend: front } = await set.frontEnd({
    wrap: (coordinator) => intercepting(coordinator, (one) => (frees(one) ? push : undefined)),
  });
  const unlessPushed = { unlessPushed: true };
  await assert.rejects(front.repositories.delete(repository.id, 'ann', unlessPushed), {
    code: 'failed-precondition',
  });
  assert.deepEqual(await scene.refsSeen(), { [main]: oid });
  // Another one goes, since nothing was pushed to it.
  const other = await backend.repositories.create(described('team/other'));
  await front.repositories.delete(other.id, 'ann', unlessPushed);
  assert.equal(await backend.repositories.get('team/other'), undefined);
});

test('a deletion whose answer is lost is one', async () => {
  const { backend: front } = await set.frontEnd({
    wrap: (coordinator) =>
      intercepting(coordinator, (one) =>
        frees(one)
          ? async (run) => {
              await run();
              throw new QuorateError('outcome-unknown', 'the answer was lost');
            }
          : undefined,
      ),
  });
  assert.deepEqual(await front.repositories.delete(repository.id), { isForgotten: true });
  await until('its files are gone', async () => (await tombstones()) === 0);
});

test('a tombstone does not wait for a node that was removed, and its store is told if it comes back', async () => {
  lost().down = true;
  await markNode(set.coordinator, 'node-2', 'removed');
  await deleted();
  assert.equal(await tombstones(), 0);
  assert.ok(existsSync(lost().gitDir(repository.id)));
  const { replica } = lost();
  await obeyEvictions({ coordinator: set.coordinator, replica, logger: silentLogger });
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('tombstones that wait for a node go in the round after it was removed', async () => {
  const { clock, round } = inRounds();
  const { backend: front } = await set.frontEnd({ clock });
  lost().down = true;
  await front.repositories.delete(repository.id);
  // By then the pauses between sweeps are long.
  for (let rounds = 0; rounds < 24; rounds++) await round();
  assert.equal(await tombstones(), 1);
  await markNode(set.coordinator, 'node-2', 'removed');
  await round();
  await until('it goes', async () => (await tombstones()) === 0);
});

test('a tombstone does not wait for a store in whose place there is another', async () => {
  lost().down = true;
  const alive = set.replicas.nodes();
  const another = alive.slice(0, 1).map((node) => ({ ...node, nodeId: 'node-2', storeId: 'new' }));
  set.replicas.nodes = () => [...alive, ...another];
  await deleted();
  assert.equal(await tombstones(), 0);
});

test('a removed node that answers is asked all the same', async () => {
  await markNode(set.coordinator, 'node-2', 'removed');
  await deleted();
  assert.equal(await tombstones(), 0);
  assert.ok(!existsSync(lost().gitDir(repository.id)));
});

test('a repository that was buried while it was made does not come to be', async () => {
  const maker = await makerTakenForDead(async (run) => {
    await set.frontEnd();
    return run();
  });
  await assert.rejects(maker.repositories.create(described('slow')), { code: 'aborted' });
  assert.equal(await backend.repositories.get('slow'), undefined);
  assert.equal(await tombstones(), 1);
});

test('a repository that came to be while somebody was about to bury it stays', async () => {
  const told = new EventEmitter();
  const [waits, goesOn] = [once(told, 'waits'), once(told, 'goes on')];
  const maker = await makerTakenForDead(async (run) => {
    told.emit('waits');
    await goesOn;
    return run();
  });
  const made = maker.repositories.create(described('slow'));
  await waits;
  const bury: Step = async (run) => {
    told.emit('goes on');
    await made;
    return run();
  };
  await set.frontEnd({
    wrap: (coordinator) => intercepting(coordinator, (one) => (buries(one) ? bury : undefined)),
  });
  const { id } = await made;
  assert.equal((await backend.repositories.get('slow'))?.id, id);
  assert.ok(set.stores.every(({ gitDir }) => existsSync(gitDir(id))));
});

test('a record that came back while files were being removed stays', async () => {
  const key = keys.repo(repository.id);
  const living = await set.coordinator.get(key);
  assert.ok(living);
  const asked = new EventEmitter();
  const begun = once(asked, 'destroy');
  lost().interfere = async (call, go) => {
    if (call !== 'destroy') return go();
    asked.emit('destroy');
    await once(asked, 'go');
    return go();
  };
  await backend.repositories.delete(repository.id);
  await begun;
  const success = [{ type: 'put' as const, key, value: living.value }];
  await set.coordinator.transaction({ compares: [], success, failure: [] });
  asked.emit('go');
  await backend.close(1000);
  assert.deepEqual((await set.coordinator.get(key))?.value, living.value);
});
