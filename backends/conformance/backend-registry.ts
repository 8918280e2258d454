import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  create,
  createRepository,
  freshName,
  mustPush,
  never,
  newRepository,
  push,
  reading,
  refsOf,
  rejectsWith,
  type BackendSpace,
} from './backend-harness.js';

/** Names, records, and what becomes of the content with them. */
export function defineBackendRegistry(space: () => BackendSpace): void {
  test('a repository is found under its name, as it was made', async () => {
    const { backend } = space();
    const wanted = newRepository({
      name: `${freshName()}/deep/er`,
      defaultBranch: 'trunk',
      settings: { 'receive.denyDeletes': 'true', 'transfer.hideRefs': 'refs/a,refs/b' },
      access: { public: true, grants: { ann: 'write', bob: 'read' } },
    });
    const made = await backend.repositories.create(wanted);
    assert.deepEqual(await backend.repositories.get(wanted.name), made);
    const { name, settings, access, objectFormat, epoch } = made;
    assert.deepEqual(
      { name, settings, access },
      {
        name: wanted.name,
        settings: wanted.settings,
        access: wanted.access,
      },
    );
    assert.equal(objectFormat, 'sha1');
    assert.ok(epoch >= 1);
    const head = await reading(space(), made, ({ snapshot }) => snapshot.head);
    assert.deepEqual(head, { symref: 'refs/heads/trunk' });
    assert.equal(await backend.repositories.get(freshName()), undefined);
  });

  test('an empty repository reads as empty, with an unborn branch', async () => {
    const repository = await createRepository(space());
    await reading(space(), repository, ({ snapshot }) => {
      assert.deepEqual(snapshot.refs, []);
      assert.deepEqual(snapshot.head, { symref: 'refs/heads/main' });
      assert.equal(snapshot.find('refs/heads/main'), undefined);
      assert.deepEqual(snapshot.prefixRange('refs/'), [0, 0]);
    });
    const stats = await space().backend.repositories.stats(repository.id);
    assert.deepEqual([stats.refCount, stats.packCount, stats.looseObjectCount], [0, 0, 0]);
    assert.deepEqual(stats.head, { symref: 'refs/heads/main' });
  });

  test('sha256 repositories are made and said to be such', async () => {
    const repository = await createRepository(space(), { objectFormat: 'sha256' });
    assert.equal(repository.objectFormat, 'sha256');
    assert.equal((await space().backend.repositories.get(repository.name))?.objectFormat, 'sha256');
  });

  test('a name is taken once, and names do not nest', async () => {
    const { repositories } = space().backend;
    const outer = freshName();
    await repositories.create(newRepository({ name: `${outer}/a/b` }));
    for (const name of [
      `${outer}/a/b`,
      `${outer}/a`,
      outer,
      `${outer}/a/b/c`,
      `${outer}/a/b/c/d`,
    ]) {
      await rejectsWith(repositories.create(newRepository({ name })), 'already-exists');
    }
    // Whoever asks may not know what there is below.
    await assert.rejects(
      repositories.create(newRepository({ name: outer })),
      (error: Error) => !error.message.includes('/a'),
    );
    await repositories.create(newRepository({ name: `${outer}/a/bc` }));
    await repositories.create(newRepository({ name: `${outer}/a-b` }));
  });

  test('of many who create one name at once, one wins', async () => {
    const name = freshName();
    const attempts = Array.from({ length: 8 }, () =>
      space().backend.repositories.create(newRepository({ name })),
    );
    const settled = await Promise.allSettled(attempts);
    assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const each of settled) {
      if (each.status === 'rejected')
        await rejectsWith(Promise.reject(each.reason), 'already-exists', 'aborted');
    }
  });

  for (const name of ['..', '../outside', 'a/../../outside', '/etc', '.git', 'a//b', 'a\0b', '']) {
    test(`no name leads out of the root: ${JSON.stringify(name)}`, async () => {
      const { repositories } = space().backend;
      assert.equal(await repositories.get(name), undefined);
    });
  }

  test('lists are sorted, paged, and cut by prefix', async () => {
    const { repositories } = space().backend;
    const group = freshName();
    const names = ['b', 'a', 'a-b', 'a.b', 'c/d', 'c-d'].map((name) => `${group}/${name}`);
    for (const name of names) await repositories.create(newRepository({ name }));
    const sorted = [...names].sort();
    const prefix = `${group}/`;
    const all = await repositories.list({ prefix, limit: 100 });
    assert.deepEqual(
      all.map(({ name }) => name),
      sorted,
    );
    const paged: string[] = [];
    for (;;) {
      const after = paged.at(-1);
      const page = await repositories.list({
        prefix,
        limit: 2,
        ...(after === undefined ? {} : { after }),
      });
      if (page.length === 0) break;
      assert.ok(page.length <= 2);
      paged.push(...page.map(({ name }) => name));
    }
    assert.deepEqual(paged, sorted);
    const part = await repositories.list({ prefix: `${group}/a`, limit: 100 });
    assert.deepEqual(
      part.map(({ name }) => name),
      sorted.filter((name) => name.startsWith(`${group}/a`)),
    );
  });

  test('an update changes what it names, and advances the epoch', async () => {
    const { repositories } = space().backend;
    const { id, name, epoch } = await createRepository(space(), {
      settings: { 'receive.denyDeletes': 'true', 'receive.maxCommands': '5' },
    });
    const settings = {
      'receive.denyDeletes': null,
      'receive.maxInputSize': '10m',
      'transfer.hideRefs': 'refs/hidden,!refs/hidden/but',
    };
    const changed = await repositories.update(id, () => ({ settings }));
    assert.deepEqual(changed.settings, {
      'receive.maxCommands': '5',
      'receive.maxInputSize': '10m',
      'transfer.hideRefs': 'refs/hidden,!refs/hidden/but',
    });
    assert.ok(changed.epoch > epoch);
    await repositories.update(id, () => ({ access: { public: true, grants: { ann: 'admin' } } }));
    const again = await repositories.get(name);
    assert.deepEqual(again?.access, { public: true, grants: { ann: 'admin' } });
    assert.deepEqual(again?.settings, changed.settings);
  });

  test('updates at the same time all take effect', async () => {
    const { repositories } = space().backend;
    const { id, name } = await createRepository(space());
    const users = Array.from({ length: 10 }, (_, index) => `user-${index}`);
    await Promise.all(
      users.map((user) =>
        repositories.update(id, ({ access }) => ({
          access: { ...access, grants: { ...access.grants, [user]: 'read' } },
        })),
      ),
    );
    const grants = (await repositories.get(name))?.access.grants ?? {};
    assert.deepEqual(Object.keys(grants).sort(), users);
  });

  test('a rename keeps content and access; the old name is free', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space(), {
      access: { public: false, grants: { ann: 'write' } },
    });
    const tip = await source.commit('renamed');
    await mustPush(space(), repository, { commands: [create('refs/heads/main', tip)] });
    const name = `${freshName()}/below`;
    const renamed = await backend.repositories.rename(repository.id, name);
    assert.equal(renamed.name, name);
    assert.deepEqual(renamed.access.grants, { ann: 'write' });
    assert.deepEqual(await refsOf(space(), renamed), { 'refs/heads/main': tip });
    assert.equal(await backend.repositories.get(repository.name), undefined);
    const successor = await createRepository(space(), { name: repository.name });
    assert.deepEqual(await refsOf(space(), successor), {});
    assert.deepEqual(successor.access.grants, {});
    await rejectsWith(backend.repositories.rename(successor.id, name), 'already-exists');
    await rejectsWith(
      backend.repositories.rename(successor.id, `${name}/nested`),
      'already-exists',
    );
    assert.deepEqual(await refsOf(space(), successor), {});
  });

  test('a deleted repository is gone at once, and its name free for an empty one', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space(), {
      access: { public: true, grants: { ann: 'write' } },
    });
    const tip = await source.commit('deleted');
    await mustPush(space(), repository, { commands: [create('refs/heads/main', tip)] });
    await backend.repositories.delete(repository.id);
    assert.equal(await backend.repositories.get(repository.name), undefined);
    await rejectsWith(backend.read(repository, never()), 'not-found');
    await rejectsWith(
      push(space(), repository, { commands: [create('refs/heads/x', tip)] }),
      'not-found',
    );
    await rejectsWith(
      backend.repositories.update(repository.id, () => ({})),
      'not-found',
    );
    await rejectsWith(backend.repositories.stats(repository.id), 'not-found');
    const successor = await createRepository(space(), { name: repository.name });
    assert.deepEqual(await refsOf(space(), successor), {});
    assert.deepEqual(successor.access, { public: false, grants: {} });
  });

  test('HEAD goes to branches, born or not, and nowhere else', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const tip = await source.commit('head');
    await mustPush(space(), repository, { commands: [create('refs/heads/born', tip)] });
    for (const branch of ['refs/heads/born', 'refs/heads/un/born']) {
      await backend.repositories.setHead(repository.id, branch);
      const head = await reading(space(), repository, ({ snapshot }) => snapshot.head);
      assert.deepEqual(head, { symref: branch });
    }
    for (const branch of ['refs/tags/x', 'main', 'refs/heads/a..b', 'refs/heads/', '-x', '']) {
      await rejectsWith(backend.repositories.setHead(repository.id, branch), 'invalid-argument');
    }
  });
}
