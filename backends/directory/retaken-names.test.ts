import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { access, mkdir, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, test } from 'node:test';
import {
  create,
  createRepository,
  mustPush,
  never,
  push,
  refsOf,
  rejectsWith,
  type BackendSpace,
} from '../conformance/backend-harness.js';
import { createSourceRepository, type SourceRepository } from '../conformance/source-repository.js';
import type { Repository } from '../contract/repository.js';
import type { GitCommand } from '../git/git-runner.js';
import { type DirectoryFixture, startDirectory } from './directory-fixture.js';

// Who opened a repository does nothing to another one that has its name by now; and what is deleted unless it was
// pushed to takes no push along.

const main = 'refs/heads/main';
let fixture: DirectoryFixture;
let source: SourceRepository;
let space: BackendSpace;
/** Called around every git that the backend runs, once with each point in time. */
let atGit: (command: GitCommand, when: 'before' | 'after') => Promise<void>;

beforeEach(async () => {
  atGit = () => Promise.resolve();
  fixture = await startDirectory({
    aroundGit: async (command, run) => {
      await atGit(command, 'before');
      const result = await run();
      await atGit(command, 'after');
      return result;
    },
  });
  source = await createSourceRepository();
  space = { backend: fixture.backend, source };
});
afterEach(async () => {
  await source.remove();
  await fixture.dispose();
});

/** A repository that was opened, and lost its name to another one of somebody else. */
async function retaken(): Promise<{ opened: Repository; other: Repository }> {
  const { repositories } = fixture.backend;
  const opened = await createRepository(space, { name: 'team/app' });
  await repositories.delete(opened.id);
  const other = await createRepository(space, {
    name: 'team/app',
    access: { public: false, grants: { eve: 'admin' } },
  });
  return { opened, other };
}

test('who opened a repository changes, reads and removes nothing of the next one of its name', async () => {
  const { opened, other } = await retaken();
  const { backend } = fixture;
  const { repositories } = backend;
  const tip = await source.commit('one');
  await mustPush(space, other, { commands: [create(main, tip)] });
  let written = false;
  const tries: Readonly<Record<string, () => Promise<unknown>>> = {
    update: () => repositories.update(opened, () => ({ access: { public: true, grants: {} } })),
    rename: () => repositories.rename(opened, 'team/taken'),
    delete: () => repositories.delete(opened),
    setHead: () => repositories.setHead(opened, 'refs/heads/other'),
    stats: () => repositories.stats(opened),
    whileNamed: () => repositories.whileNamed(opened, async () => (written = true)),
    read: () => backend.read(opened, never()),
    push: () => push(space, opened, { commands: [create('refs/heads/x', tip)] }),
    maintain: () => backend.maintain(opened, { signal: never() }),
  };
  for (const [desc, attempt] of Object.entries(tries)) {
    await assert.rejects(attempt(), { code: 'not-found' }, desc);
  }
  assert.equal(written, false);
  const now = await repositories.get('team/app');
  assert.deepEqual(now, other);
  assert.deepEqual(await refsOf(space, other), { [main]: tip });
});

const at = (name: string): string => join(fixture.root, 'team', name);

for (const when of ['before', 'after'] as const) {
  test(`a push goes to no other repository that gets the name right ${when} its git starts`, async () => {
    const opened = await createRepository(space, { name: 'team/app' });
    const other = await createRepository(space, { name: 'team/other' });
    atGit = async ({ args }, point) => {
      if (args[0] !== 'receive-pack' || point !== when) return;
      await rename(at('app.git'), at('before.git'));
      await rename(at('other.git'), at('app.git'));
    };
    const tip = await source.commit('one');
    await rejectsWith(push(space, opened, { commands: [create(main, tip)] }), 'not-found');
    const [now, before] = await Promise.all(
      ['team/app', 'team/before'].map((name) => fixture.backend.repositories.get(name)),
    );
    assert.ok(now !== undefined && before !== undefined);
    assert.equal(now.directory, other.directory);
    assert.deepEqual(await refsOf(space, now), {});
    assert.deepEqual(await refsOf(space, before), {});
  });
}

const unlessPushed = { unlessPushed: true };

test('what is being pushed to is not deleted as if it never was', async () => {
  const repository = await createRepository(space, { name: 'team/app' });
  const { repositories } = fixture.backend;
  const tip = await source.commit('one');
  const bytes = await source.pack([tip]);
  let deletion: Promise<unknown> | undefined;
  const pack = async function* (): AsyncGenerator<Uint8Array> {
    deletion = rejectsWith(
      repositories.delete(repository, 'ann', unlessPushed),
      'failed-precondition',
    );
    await deletion;
    yield bytes;
  };
  await mustPush(space, repository, {
    commands: [create(main, tip)],
    pack: Readable.from(pack()),
  });
  await deletion;
  assert.deepEqual(await refsOf(space, repository), { [main]: tip });
});

test('a push that comes while it is found out that there was none waits, and finds nothing', async () => {
  const repository = await createRepository(space, { name: 'team/app' });
  const tip = await source.commit('one');
  let pushed: Promise<unknown> | undefined;
  atGit = async ({ args }, point) => {
    if (args[0] !== 'upload-pack' || point !== 'after') return;
    pushed ??= rejectsWith(push(space, repository, { commands: [create(main, tip)] }), 'not-found');
    await Promise.resolve();
  };
  await fixture.backend.repositories.delete(repository, 'ann', unlessPushed);
  assert.ok(pushed !== undefined);
  await pushed;
  assert.equal(await fixture.backend.repositories.get('team/app'), undefined);
});

test('what another tool pushes while it is found out that there was no push stays', async () => {
  const repository = await createRepository(space, { name: 'team/app' });
  const tip = await source.commit('one');
  let asked = 0;
  atGit = async ({ args }, point) => {
    if (args[0] !== 'upload-pack' || point !== 'after') return;
    asked += 1;
    if (asked > 1) return;
    await source.git('push', '-q', join(fixture.root, 'team/app.git'), `${tip}:${main}`);
  };
  await rejectsWith(
    fixture.backend.repositories.delete(repository, 'ann', unlessPushed),
    'failed-precondition',
  );
  assert.deepEqual(await refsOf(space, repository), { [main]: tip });
  assert.deepEqual(await readdir(join(fixture.root, '.quorate/trash')), []);
});

test('a quarantine of another tool is a push as well', async () => {
  const repository = await createRepository(space, { name: 'team/app' });
  const objects = join(fixture.root, 'team/app.git/objects');
  await mkdir(join(objects, `tmp_objdir-incoming-${randomBytes(3).toString('hex')}`));
  await rejectsWith(
    fixture.backend.repositories.delete(repository, 'ann', unlessPushed),
    'failed-precondition',
  );
  await access(objects);
});
