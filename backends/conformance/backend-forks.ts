import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../contract/backend.js';
import type { NewFork, Repository } from '../contract/repository.js';
import { allRefs, refsWithout } from '../contract/visible-refs.js';
import {
  type BackendSpace,
  create,
  createRepository,
  fetchPack,
  freshName,
  mustPush,
  never,
  reading,
  refsOf,
  rejectsWith,
  remove,
  update,
} from './backend-harness.js';

const main = 'refs/heads/main';

function newFork(changes: Partial<NewFork> = {}): NewFork {
  return {
    name: freshName(),
    access: { public: false, grants: { bob: 'admin' } },
    visible: allRefs,
    ...changes,
  };
}

function fork(backend: Backend, source: Repository): Promise<Repository> {
  return backend.repositories.fork(source, newFork());
}

/** Objects that a clone of a commit gets. */
function closureSize(space: BackendSpace, repository: Repository, tip: string): Promise<number> {
  return reading(space, repository, async (session) =>
    (await fetchPack(session, [tip])).readUInt32BE(8),
  );
}

/** Forks: refs and objects of another repository, and a life of their own. */
export function defineBackendForks(space: () => BackendSpace, offered: boolean): void {
  if (!offered) {
    test('where forks are not offered, they are refused with a reason', async () => {
      const source = await createRepository(space());
      await rejectsWith(fork(space().backend, source), 'unimplemented');
    });
    return;
  }

  test('a fork has the refs of its source, and goes its own way', async () => {
    const { backend, source } = space();
    const parent = await createRepository(space(), { settings: { 'receive.denyDeletes': 'true' } });
    const first = await source.commit('fork 1');
    await mustPush(space(), parent, {
      commands: [create(main, first), create('refs/tags/v1', first)],
    });
    const wanted = newFork();
    const forked = await backend.repositories.fork(parent, wanted);
    assert.deepEqual(await backend.repositories.get(wanted.name), forked);
    assert.deepEqual([forked.access, forked.settings], [wanted.access, {}]);
    assert.deepEqual(await refsOf(space(), forked), { [main]: first, 'refs/tags/v1': first });

    const [mine, theirs] = [
      await source.commit('mine', first),
      await source.commit('theirs', first),
    ];
    await mustPush(space(), forked, { commands: [update(main, first, mine)], have: [first] });
    await mustPush(space(), parent, { commands: [update(main, first, theirs)], have: [first] });
    await mustPush(space(), forked, { commands: [remove('refs/tags/v1', first)] });
    assert.deepEqual(await refsOf(space(), forked), { [main]: mine });
    assert.deepEqual(await refsOf(space(), parent), { [main]: theirs, 'refs/tags/v1': first });
    assert.equal(await closureSize(space(), forked, mine), 6);
    assert.equal(await closureSize(space(), parent, theirs), 6);
  });

  test('hidden refs are not forked, nor a HEAD that names one', async () => {
    const { backend, source } = space();
    const parent = await createRepository(space(), { defaultBranch: 'secret/trunk' });
    const tip = await source.commit('hidden');
    await mustPush(space(), parent, {
      commands: [create('refs/heads/secret/trunk', tip), create('refs/heads/open', tip)],
    });
    const visible = refsWithout(['refs/heads/secret']);
    const forked = await backend.repositories.fork(parent, newFork({ visible }));
    assert.deepEqual(await refsOf(space(), forked), { 'refs/heads/open': tip });
    const head = await reading(space(), forked, ({ snapshot }) => snapshot.head);
    assert.deepEqual(head, { symref: main });
  });

  test('an empty repository can be forked, in its object format', async () => {
    const { backend } = space();
    const parent = await createRepository(space(), {
      defaultBranch: 'trunk',
      objectFormat: 'sha256',
    });
    const forked = await fork(backend, parent);
    assert.equal(forked.objectFormat, 'sha256');
    const head = await reading(space(), forked, ({ snapshot }) => snapshot.head);
    assert.deepEqual(head, { symref: 'refs/heads/trunk' });
  });

  test('a fork needs a free name and a source', async () => {
    const { backend } = space();
    const { repositories } = backend;
    const parent = await createRepository(space());
    for (const name of [parent.name, `${parent.name}/fork`]) {
      await rejectsWith(repositories.fork(parent, newFork({ name })), 'already-exists');
    }
    await repositories.delete(parent.id);
    await rejectsWith(fork(backend, parent), 'not-found');
  });

  test('of forks made at once under one name, one is made', async () => {
    const { backend, source } = space();
    const parent = await createRepository(space());
    const tip = await source.commit('at once');
    await mustPush(space(), parent, { commands: [create(main, tip)] });
    const wanted = newFork();
    const made = await Promise.allSettled(
      Array.from({ length: 5 }, () => backend.repositories.fork(parent, wanted)),
    );
    assert.equal(made.filter(({ status }) => status === 'fulfilled').length, 1);
    const forked = await backend.repositories.get(wanted.name);
    assert.ok(forked !== undefined);
    assert.equal(await closureSize(space(), forked, tip), 3);
  });

  test('forks live on when their source, and then theirs, is deleted and collected', async () => {
    const { backend, source } = space();
    const first = await createRepository(space());
    let tip = await source.commit('lives on');
    await mustPush(space(), first, { commands: [create(main, tip)] });
    let last = first;
    for (let length = 2; length < 5; length += 1) {
      const next = await fork(backend, last);
      await backend.repositories.delete(last.id);
      const after = await source.commit(`lives on ${length}`, tip);
      await mustPush(space(), next, { commands: [update(main, tip, after)], have: [tip] });
      tip = after;
      await backend.maintain(next, { signal: never() });
      assert.equal(await closureSize(space(), next, tip), 3 * length);
      last = next;
    }
  });

  test('forking, pushing, deleting and maintenance go on beside each other', async () => {
    const { backend, source } = space();
    const parent = await createRepository(space());
    let tip = await source.commit('busy');
    await mustPush(space(), parent, { commands: [create(main, tip)] });
    const over = new AbortController();
    const kept: { repository: Repository; tip: string }[] = [];
    const maintaining = (async () => {
      while (!over.signal.aborted) await backend.maintain(parent, { signal: never() });
    })();
    const forking = (async () => {
      for (let count = 0; count < 6; count += 1) {
        const repository = await fork(backend, parent);
        const at = (await refsOf(space(), repository))[main];
        assert.ok(at !== undefined);
        if (count % 2 === 0) await backend.repositories.delete(repository.id);
        else kept.push({ repository, tip: at });
      }
    })();
    let commits = 1;
    for (; commits < 12; commits += 1) {
      const next = await source.commit(`busy ${commits}`, tip);
      await mustPush(space(), parent, { commands: [update(main, tip, next)], have: [tip] });
      tip = next;
    }
    await forking;
    over.abort();
    await maintaining;
    assert.equal(await closureSize(space(), parent, tip), 3 * commits);
    for (const { repository, tip: forkedTip } of kept) {
      await backend.maintain(repository, { signal: never() });
      assert.equal((await closureSize(space(), repository, forkedTip)) % 3, 0);
    }
  });

  test('what is shared is said, and by how many', async () => {
    const { backend, source } = space();
    const parent = await createRepository(space());
    const tip = await source.commit('shared');
    await mustPush(space(), parent, { commands: [create(main, tip)] });
    const alone = await backend.repositories.stats(parent.id);
    assert.deepEqual([alone.sharedBytes, alone.sharedBy], [0, undefined]);
    const forks = [await fork(backend, parent), await fork(backend, parent)];
    for (const { id } of [parent, ...forks]) {
      const { sizeBytes, sharedBytes, sharedBy } = await backend.repositories.stats(id);
      assert.equal(sizeBytes, 0);
      assert.ok(sharedBytes >= alone.sizeBytes * 0.9, `${sharedBytes} of ${alone.sizeBytes}`);
      assert.equal(sharedBy, 3);
    }
  });
}
