import assert from 'node:assert/strict';
import { access, chmod, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  create,
  createRepository,
  freshName,
  mustPush,
  never,
  push,
  reading,
  refsOf,
  rejectsWith,
  update,
  verdicts,
  type BackendSpace,
} from '../conformance/backend-harness.js';
import { createSourceRepository } from '../conformance/source-repository.js';
import type { Repository } from '../contract/repository.js';
import { type DirectoryFixture, startDirectory } from './directory-fixture.js';

// Repositories that other tools made, changed, moved or damaged while they are served.

const main = 'refs/heads/main';
let fixture: DirectoryFixture;
let space: BackendSpace;

before(async () => {
  fixture = await startDirectory();
  space = { backend: fixture.backend, source: await createSourceRepository() };
});
after(async () => {
  await space.source.remove();
  await fixture.dispose();
});

/** A repository made by plain git, with one commit on `main`. */
async function madeByGit(path: string, ...options: readonly string[]): Promise<string> {
  const directory = join(fixture.root, path);
  const { git } = space.source;
  await git(
    'init',
    '-q',
    '-b',
    'main',
    ...(options.length === 0 ? ['--bare'] : options),
    directory,
  );
  await git('push', '-q', directory, `${await space.source.commit(path)}:refs/heads/pushed`);
  return directory;
}

async function get(name: string): Promise<Repository> {
  const repository = await space.backend.repositories.get(name);
  assert.ok(repository !== undefined, `${name} is served`);
  return repository;
}

const quiet = '--quiet';

test('bare repositories with and without .git, and working trees, are served and listed', async () => {
  await madeByGit('there/with.git');
  await madeByGit('there/without');
  await madeByGit('there/tree', quiet);
  await mkdir(join(fixture.root, 'there/no-repository/empty'), { recursive: true });
  await mkdir(join(fixture.root, 'there/.hidden'), { recursive: true });
  await madeByGit('there/.hidden/x.git');
  const names = ['there/tree', 'there/with', 'there/without'];
  for (const name of names) {
    const refs = await refsOf(space, await get(name));
    assert.deepEqual(Object.keys(refs), ['refs/heads/pushed']);
  }
  const listed = await space.backend.repositories.list({ prefix: 'there/', limit: 10 });
  assert.deepEqual(
    listed.map(({ name }) => name),
    names,
  );
  assert.equal(await space.backend.repositories.get('there'), undefined);
  assert.equal(await space.backend.repositories.get('there/.hidden/x'), undefined);
  const [tree] = listed;
  assert.ok(tree !== undefined);
  await rejectsWith(space.backend.repositories.delete(tree.id), 'failed-precondition');
  await rejectsWith(
    space.backend.repositories.rename(tree.id, 'there/moved'),
    'failed-precondition',
  );
});

test('git-daemon-export-ok makes a repository public, until somebody says otherwise', async () => {
  const directory = await madeByGit('exported.git');
  assert.equal((await get('exported')).access.public, false);
  await writeFile(join(directory, 'git-daemon-export-ok'), '');
  const exported = await get('exported');
  assert.equal(exported.access.public, true);
  await space.backend.repositories.update(exported.id, () => ({
    access: { public: false, grants: {} },
  }));
  assert.equal((await get('exported')).access.public, false);
});

test('what others change is seen at the next request', async () => {
  const directory = await madeByGit('changed.git');
  const { git, commit } = space.source;
  const repository = await get('changed');
  assert.deepEqual(repository.settings, {});
  await git('-C', directory, 'config', 'receive.denyDeletes', 'yes');
  await git('-C', directory, 'config', '--add', 'transfer.hideRefs', 'refs/a');
  await git('-C', directory, 'config', '--add', 'transfer.hideRefs', 'refs/b');
  assert.deepEqual((await get('changed')).settings, {
    'receive.denyDeletes': 'yes',
    'transfer.hideRefs': 'refs/a,refs/b',
  });
  const tip = await commit('by hand');
  await git('push', '-q', directory, `${tip}:refs/heads/by-hand`);
  assert.equal((await refsOf(space, repository))['refs/heads/by-hand'], tip);
  await git('-C', directory, 'symbolic-ref', 'HEAD', 'refs/heads/by-hand');
  const head = await reading(space, repository, ({ snapshot }) => snapshot.head);
  assert.deepEqual(head, { symref: 'refs/heads/by-hand' });
  await rm(directory, { recursive: true });
  assert.equal(await space.backend.repositories.get('changed'), undefined);
  await rejectsWith(space.backend.read(repository, never()), 'not-found');
});

test('settings in an included file are seen although the including file does not change', async () => {
  const directory = await madeByGit('including.git');
  const included = join(directory, 'more');
  await space.source.git('-C', directory, 'config', 'include.path', 'more');
  await writeFile(included, '[receive]\n\tdenyDeletes = true\n');
  assert.equal((await get('including')).settings['receive.denyDeletes'], 'true');
  await writeFile(included, '[receive]\n\tdenyDeletes\n\tmaxRefs = 7\n');
  assert.deepEqual((await get('including')).settings, {
    'receive.denyDeletes': 'true',
    'receive.maxRefs': '7',
  });
});

test('a setting that git would not heed cannot be made, and one that is there can be taken away', async () => {
  const directory = await madeByGit('unheeded.git');
  const { id } = await get('unheeded');
  const set = (settings: Readonly<Record<string, string | null>>): Promise<unknown> =>
    space.backend.repositories.update(id, () => ({ settings }));
  for (const [key, value] of [
    ['receive.maxObjectSize', '1k'],
    ['receive.maxRefs', '7'],
    ['replication.consistency', 'strong'],
    ['replication.readConsistency', 'eventual'],
  ] as const) {
    await rejectsWith(set({ 'receive.denyDeletes': 'true', [key]: value }), 'failed-precondition');
    assert.deepEqual((await get('unheeded')).settings, {}, key);
  }
  await space.source.git('-C', directory, 'config', 'receive.maxRefs', '7');
  await set({ 'receive.maxRefs': null, 'receive.denyDeletes': 'true' });
  assert.deepEqual((await get('unheeded')).settings, { 'receive.denyDeletes': 'true' });
});

test("a repository's own hooks judge a push, know who pushes, and talk to the pusher", async () => {
  const directory = await madeByGit('hooked.git');
  const hooks = {
    'pre-receive': 'echo "hello $REMOTE_USER, option $GIT_PUSH_OPTION_0"',
    update: 'case "$1" in *bad*) exit 1;; esac',
  };
  await mkdir(join(directory, 'hooks'), { recursive: true });
  for (const [name, line] of Object.entries(hooks)) {
    const hook = join(directory, 'hooks', name);
    await writeFile(hook, `#!/bin/sh\n${line}\n`);
    await chmod(hook, 0o755);
  }
  const tip = await space.source.commit('hooked');
  let said = '';
  const result = await push(space, await get('hooked'), {
    commands: [create('refs/heads/good', tip), create('refs/heads/bad', tip)],
    pushOptions: ['please'],
    progress: (text) => (said += Buffer.from(text).toString()),
  });
  assert.deepEqual(verdicts(result), { 'refs/heads/good': 'ok', 'refs/heads/bad': 'refused' });
  assert.match(said, /hello ann, option please/);
});

test("a repository's own configuration rules over our defaults", async () => {
  const directory = await madeByGit('lax.git');
  await space.source.git('-C', directory, 'config', 'receive.fsckObjects', 'false');
  const text =
    'tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a> 1 +0000\ncommitter <a> 1 +0000\n\nx\n';
  await space.source.gitWithInput('', 'hash-object', '-w', '-t', 'tree', '--stdin');
  const made = await space.source.gitWithInput(
    text,
    'hash-object',
    '-w',
    '-t',
    'commit',
    '--literally',
    '--stdin',
  );
  await mustPush(space, await get('lax'), { commands: [create(main, made.toString().trim())] });
});

test('links that stay below the root are followed; those that leave it lead nowhere', async () => {
  const inside = await madeByGit('linked/real.git');
  await symlink(inside, join(fixture.root, 'linked', 'alias.git'));
  await symlink(space.source.directory, join(fixture.root, 'linked', 'outside.git'));
  await symlink('/', join(fixture.root, 'linked', 'top'));
  await symlink(join(fixture.root, 'linked'), join(fixture.root, 'linked', 'circle'));
  assert.deepEqual(
    await refsOf(space, await get('linked/alias')),
    await refsOf(space, await get('linked/real')),
  );
  assert.equal(await space.backend.repositories.get('linked/outside'), undefined);
  const listed = await space.backend.repositories.list({ prefix: 'linked/', limit: 10 });
  assert.deepEqual(
    listed.map(({ name }) => name),
    ['linked/alias', 'linked/real'],
  );
  const throughTop = { ...(await get('linked/real')), id: 'linked/top/tmp' };
  await rejectsWith(space.backend.read(throughTop, never()), 'not-found');
  const planted = `${tmpdir().slice(1)}/quorate-planted-${process.pid}`;
  await rejectsWith(
    createRepository(space, { name: `linked/top/${planted}/x` }),
    'invalid-argument',
  );
  await assert.rejects(access(`/${planted}`));
});

test('a ref that somebody else moves under a push is not overwritten', async () => {
  const directory = await madeByGit('moved.git');
  const one = await space.source.commit('moved one');
  const two = await space.source.commit('moved two', one);
  const theirs = await space.source.commit('moved by others', one);
  await space.source.git('push', '-q', directory, `${one}:${main}`);
  const repository = await get('moved');
  await space.source.git('push', '-q', directory, `${theirs}:${main}`);
  const result = await push(space, repository, { commands: [update(main, one, two)], have: [one] });
  assert.deepEqual(verdicts(result), { [main]: 'refused' });
  assert.equal((await refsOf(space, repository))[main], theirs);
});

test('a configuration that is locked by another git is not written to, and the lock stays', async () => {
  const directory = await madeByGit('locked.git');
  const lock = join(directory, 'config.lock');
  await writeFile(lock, '');
  const { id } = await get('locked');
  const change = { settings: { 'receive.denyDeletes': 'true' } };
  await rejectsWith(
    space.backend.repositories.update(id, () => change),
    'aborted',
  );
  await access(lock);
  await rm(lock);
  await space.backend.repositories.update(id, () => change);
  assert.deepEqual(
    (await readdir(directory)).filter((name) => name.endsWith('.lock')),
    [],
  );
});

test('a damaged configuration is an error of that repository alone', async () => {
  const directory = await madeByGit('damaged.git');
  await writeFile(join(directory, 'config'), '[core\nthis is no configuration');
  await rejectsWith(space.backend.repositories.get('damaged'), 'data-corrupt');
  await madeByGit('damages.git');
  const listed = await space.backend.repositories.list({ prefix: 'damage', limit: 10 });
  assert.deepEqual(
    listed.map(({ name }) => name),
    ['damages'],
  );
});

test('directories that were made for names go with the last repository in them, and no others', async () => {
  const own = await startDirectory();
  const { repositories } = own.backend;
  const { source } = space;
  let { backend } = own;
  const make = (name: string, changes = {}): Promise<Repository> =>
    createRepository({ backend, source }, { name, ...changes });
  const listed = async (path = ''): Promise<readonly string[]> =>
    (await readdir(join(own.root, path))).filter((name) => name !== '.quorate').sort();
  try {
    await mkdir(join(own.root, 'theirs'));
    for (const name of ['ours/deep/a', 'ours/b', 'theirs/deep/c', 'kept/d']) await make(name);
    await repositories.delete('ours/deep/a');
    assert.deepEqual(await listed('ours'), ['b.git']);
    await repositories.rename('ours/b', 'moved/b');
    await repositories.delete('theirs/deep/c');
    await writeFile(join(own.root, 'kept/file'), '');
    await repositories.delete('kept/d');
    assert.deepEqual(await listed(), ['kept', 'moved', 'theirs']);
    assert.deepEqual(await listed('theirs'), []);
    assert.deepEqual(await listed('kept'), ['file']);

    // Also after a restart, and of a repository that could not be made.
    backend = await own.reopen();
    await rejectsWith(make('failed/deep/e', { defaultBranch: 'no..branch' }), 'storage-failure');
    await backend.repositories.delete('moved/b');
    assert.deepEqual(await listed(), ['kept', 'theirs']);
  } finally {
    await own.dispose();
  }
});

test('a push leaves nothing of ours behind, and a restart removes what a crash left', async () => {
  const own = await startDirectory();
  const source = await createSourceRepository();
  try {
    const repository = await createRepository(
      { backend: own.backend, source },
      { name: freshName() },
    );
    const tip = await source.commit('tidy');
    await mustPush({ backend: own.backend, source }, repository, { commands: [create(main, tip)] });
    await own.backend.repositories.delete(repository.id);
    for (const left of ['trash/a/b', 'new/c', 'import/d', 'views/e']) {
      await mkdir(join(own.root, '.quorate', left), { recursive: true });
    }
    await own.reopen();
    assert.deepEqual(await readdir(own.root), []);
  } finally {
    await source.remove();
    await own.dispose();
  }
});
