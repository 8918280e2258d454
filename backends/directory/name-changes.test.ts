import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { newRepository, rejectsWith } from '../conformance/backend-harness.js';
import { createSourceRepository } from '../conformance/source-repository.js';
import type { Backend } from '../contract/backend.js';
import type { Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import { until } from '../contract/testing/until.js';
import {
  intercepting,
  type Step as TransactionStep,
} from '../replicated/testing/fault-coordinator.js';
import { permissivePipeline } from '../local/testing/local-fixture.js';
import { type DirectoryFixture, startDirectory } from './directory-fixture.js';
import type { NameChange } from './name-changes.js';

// What is kept about a repository by its name: it follows the directory, whatever dies in between.

type Step = 'gone' | 'renaming' | 'renamed';

/** By id: branch rules, which are copied, and deploy keys, which are of one repository at a time. */
const rules = new Set<string>();
const deployKeys = new Set<string>();
let broken: Set<Step>;
/** What becomes of a transaction of the backend. */
let fault: (transaction: Transaction) => TransactionStep | undefined;
let fixture: DirectoryFixture;
let backend: Backend;

function need(step: Step): void {
  if (broken.has(step)) throw new Error('the coordinator does not answer');
}

const pipeline: PushPipeline = {
  ...permissivePipeline,
  repositoryGone: async ({ id }) => {
    need('gone');
    rules.delete(id);
    deployKeys.delete(id);
  },
  repositoryRenaming: async ({ from, to }) => {
    need('renaming');
    if (rules.has(from)) rules.add(to);
  },
  repositoryRenamed: async ({ from, to }) => {
    need('renamed');
    if (deployKeys.delete(from)) deployKeys.add(to);
  },
};

beforeEach(async () => {
  broken = new Set();
  fault = () => undefined;
  rules.clear();
  deployKeys.clear();
  fixture = await startDirectory({
    pipeline,
    coordinator: (coordinator) => intercepting(coordinator, (one) => fault(one)),
  });
  ({ backend } = fixture);
});
afterEach(async () => await fixture.dispose());

/** A repository that ann administers, with a rule and a deploy key. */
async function guarded(name: string): Promise<void> {
  const access = { public: false, grants: { ann: 'admin' as const } };
  await backend.repositories.create(newRepository({ name, access }));
  rules.add(name);
  deployKeys.add(name);
}

const kept = () => ({ rules: [...rules].sort(), deployKeys: [...deployKeys].sort() });
const nothing = { rules: [], deployKeys: [] };
const noted = async (name: string) => fixture.coordinator.get(keys.nameChange(name));

/** Made by another tool. */
async function madeByGit(name: string): Promise<void> {
  const source = await createSourceRepository();
  await source.git('init', '-q', '--bare', join(fixture.root, `${name}.git`));
  await source.remove();
}

async function grantsOf(name: string): Promise<unknown> {
  return (await backend.repositories.get(name))?.access.grants;
}

test('a new repository has nothing of one of its name that was deleted without being forgotten', async () => {
  await guarded('team/app');
  broken = new Set(['gone']);
  assert.deepEqual(await backend.repositories.delete('team/app'), { isForgotten: false });
  assert.equal(await backend.repositories.get('team/app'), undefined);
  await assert.rejects(backend.repositories.create(newRepository({ name: 'team/app' })));
  assert.equal(await backend.repositories.get('team/app'), undefined);
  broken.clear();
  await backend.repositories.create(newRepository({ name: 'team/app' }));
  assert.deepEqual(kept(), nothing);
  // Nor does what was late take anything away.
  rules.add('team/app');
  assert.equal(await noted('team/app'), undefined);
  backend = await fixture.reopen();
  assert.deepEqual(kept(), { rules: ['team/app'], deployKeys: [] });
});

test('what could not be forgotten is forgotten in the background', async () => {
  await guarded('team/app');
  broken = new Set(['gone']);
  await backend.repositories.delete('team/app');
  broken.clear();
  await until('it is forgotten', () => rules.size + deployKeys.size === 0);
  await until('nothing is left to be done', async () => (await noted('team/app')) === undefined);
});

test('whoever dies right after a deletion forgets at the next start', async () => {
  await guarded('team/app');
  broken = new Set(['gone']);
  await backend.repositories.delete('team/app');
  await backend.close(0);
  broken.clear();
  backend = await fixture.reopen();
  assert.deepEqual(kept(), nothing);
  // A repository that another tool makes now is nobody's.
  await madeByGit('team/app');
  assert.deepEqual(await grantsOf('team/app'), {});
});

test('what another tool made in the place of a deleted one before the next start has nothing of it', async () => {
  await guarded('team/app');
  await backend.close(0);
  const change = { from: 'team/app', trash: 'abcd' };
  await note(change);
  const trash = join(fixture.root, '.quorate/trash');
  await mkdir(trash, { recursive: true });
  await rename(join(fixture.root, 'team/app.git'), join(trash, change.trash));
  await madeByGit('team/app');
  backend = await fixture.reopen();
  assert.deepEqual(await grantsOf('team/app'), {});
  assert.deepEqual(kept(), nothing);
});

test('whoever dies right before a deletion has deleted nothing', async () => {
  await guarded('team/app');
  await backend.close(0);
  await note({ from: 'team/app', trash: 'abcd' });
  backend = await fixture.reopen();
  assert.deepEqual(await grantsOf('team/app'), { ann: 'admin' });
  assert.deepEqual(kept(), { rules: ['team/app'], deployKeys: ['team/app'] });
  assert.equal(await noted('team/app'), undefined);
});

test('a new repository has nothing of one that another tool removed', async () => {
  await guarded('team/app');
  await rm(join(fixture.root, 'team/app.git'), { recursive: true });
  await backend.repositories.create(newRepository({ name: 'team/app' }));
  assert.deepEqual(kept(), nothing);
});

test('a renamed repository keeps what is its own, and has nothing of who had the name before', async () => {
  await guarded('team/old');
  await guarded('team/app');
  deployKeys.delete('team/app');
  await rm(join(fixture.root, 'team/old.git'), { recursive: true });
  await backend.repositories.rename('team/app', 'team/old');
  assert.deepEqual(kept(), { rules: ['team/old'], deployKeys: [] });
  assert.deepEqual(await grantsOf('team/old'), { ann: 'admin' });
});

test('a rename is refused as a whole when the rules cannot be had under the new name', async () => {
  await guarded('team/app');
  broken = new Set(['renaming']);
  await assert.rejects(backend.repositories.rename('team/app', 'team/new'));
  assert.equal(await backend.repositories.get('team/new'), undefined);
  assert.deepEqual(await grantsOf('team/app'), { ann: 'admin' });
  assert.deepEqual(kept(), { rules: ['team/app'], deployKeys: ['team/app'] });
  assert.equal(await noted('team/app'), undefined);
});

for (const how of ['in the background', 'at the next start', 'before the old name is taken']) {
  test(`what did not follow a renamed repository follows ${how}`, async () => {
    await guarded('team/app');
    broken = new Set(['renamed']);
    await backend.repositories.rename('team/app', 'team/new');
    assert.deepEqual(kept(), { rules: ['team/app', 'team/new'], deployKeys: ['team/app'] });
    if (how === 'at the next start') {
      await backend.close(0);
      broken.clear();
      backend = await fixture.reopen();
    }
    broken.clear();
    if (how === 'before the old name is taken') {
      await backend.repositories.create(newRepository({ name: 'team/app' }));
    }
    await until('it follows', async () => (await noted('team/app')) === undefined);
    assert.deepEqual(kept(), { rules: ['team/new'], deployKeys: ['team/new'] });
    assert.deepEqual(await grantsOf('team/new'), { ann: 'admin' });
  });
}

test('whoever dies right before a rename has renamed nothing, and left nothing under the new name', async () => {
  await guarded('team/app');
  await backend.close(0);
  await note({ from: 'team/app', to: 'team/new' });
  rules.add('team/new');
  backend = await fixture.reopen();
  assert.deepEqual(kept(), { rules: ['team/app'], deployKeys: ['team/app'] });
  assert.deepEqual(await grantsOf('team/app'), { ann: 'admin' });
});

test('whoever dies while a repository is made leaves nothing to who has the name next', async () => {
  const place = join(fixture.root, 'team/app.git');
  await mkdir(join(place, 'in-the-way'), { recursive: true });
  let isDead = false;
  fault =
    ({ success }) =>
    async (run) => {
      if (isDead) throw new Error('the coordinator does not answer');
      const result = await run();
      isDead = success.some((each) => each.type === 'put' && each.key === keys.repo('team/app'));
      return result;
    };
  const access = { public: true, grants: { ann: 'admin' as const } };
  const creation = backend.repositories.create(newRepository({ name: 'team/app', access }));
  await assert.rejects(creation);
  assert.ok(isDead);
  await backend.close(0);
  fault = () => undefined;
  backend = await fixture.reopen();
  await rm(place, { recursive: true });
  await madeByGit('team/app');
  const found = await backend.repositories.get('team/app');
  assert.deepEqual(found?.access, { public: false, grants: {} });
  assert.equal(await noted('team/app'), undefined);
});

test('directories that a creation made go when it died', async () => {
  let isDead = false;
  fault =
    ({ success }) =>
    async (run) => {
      isDead ||= success.some(
        (each) => each.type === 'put' && each.key === keys.repo('team/deep/app'),
      );
      if (isDead) throw new Error('the coordinator does not answer');
      return run();
    };
  await assert.rejects(backend.repositories.create(newRepository({ name: 'team/deep/app' })));
  await backend.close(0);
  assert.deepEqual(await readdir(join(fixture.root, 'team')), ['deep']);
  fault = () => undefined;
  backend = await fixture.reopen();
  assert.deepEqual(await readdir(fixture.root), []);
});

test('what another tool makes in the place of one that is not forgotten yet is not served until it is', async () => {
  await guarded('team/app');
  broken = new Set(['gone']);
  await backend.repositories.delete('team/app');
  await madeByGit('team/app');
  await rejectsWith(backend.repositories.get('team/app'), 'unavailable');
  assert.deepEqual(await backend.repositories.list({ limit: 10 }), []);
  broken.clear();
  await until('it is forgotten', () => rules.size + deployKeys.size === 0);
  await until('nothing is left to be done', async () => (await noted('team/app')) === undefined);
  assert.deepEqual(await grantsOf('team/app'), {});
});

test('a deploy key of what took the name of a renamed repository stays there', async () => {
  await guarded('team/app');
  broken = new Set(['renamed']);
  await backend.repositories.rename('team/app', 'team/new');
  deployKeys.clear();
  await madeByGit('team/app');
  broken.clear();
  await until('it can be set', async () => {
    const opened = await backend.repositories.get('team/app').catch(() => undefined);
    if (opened === undefined) return false;
    await backend.repositories.whileNamed(opened, async () => deployKeys.add('team/app'));
    return true;
  });
  await until('nothing is left to be done', async () => (await noted('team/app')) === undefined);
  assert.deepEqual([...deployKeys], ['team/app']);
});

test('what did not move is not taken for what another tool put under the new name', async () => {
  await guarded('team/app');
  const { directory } = (await backend.repositories.get('team/app')) ?? {};
  await backend.close(0);
  await note({ from: 'team/app', to: 'team/new', directory });
  await madeByGit('team/new');
  backend = await fixture.reopen();
  assert.deepEqual(kept(), { rules: ['team/app'], deployKeys: ['team/app'] });
  assert.deepEqual(await grantsOf('team/app'), { ann: 'admin' });
  assert.deepEqual(await grantsOf('team/new'), {});
});

test('a rule that is set while the repository is renamed is refused, and is not left under the old name', async () => {
  await guarded('team/app');
  const opened = await backend.repositories.get('team/app');
  assert.ok(opened !== undefined);
  let setting: Promise<unknown> | undefined;
  fault = () => {
    setting ??= backend.repositories
      .whileNamed(opened, async () => rules.add('team/app'))
      .catch((error: unknown) => error);
    return undefined;
  };
  await backend.repositories.rename('team/app', 'team/new');
  assert.ok((await setting) instanceof QuorateError);
  assert.deepEqual(kept(), { rules: ['team/new'], deployKeys: ['team/new'] });
});

test('a change of settings and access that fails has changed neither', async () => {
  await guarded('team/app');
  const before = await backend.repositories.get('team/app');
  fault = () => () => Promise.reject(new Error('the coordinator does not answer'));
  await assert.rejects(
    backend.repositories.update('team/app', () => ({
      settings: { 'receive.denyDeletes': 'true' },
      access: { public: true, grants: {} },
    })),
  );
  fault = () => undefined;
  assert.deepEqual(await backend.repositories.get('team/app'), before);
  assert.ok(!(await readdir(join(fixture.root, 'team/app.git'))).includes('config.lock'));
});

async function note(change: NameChange): Promise<void> {
  const name = 'made' in change ? change.made : change.from;
  const value = Buffer.from(JSON.stringify(change));
  await fixture.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.nameChange(name), value }],
    failure: [],
  });
}
