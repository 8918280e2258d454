import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { ApiScene, objectIn } from './testing/api-scene.js';

let scene: ApiScene;
let admin: string;

beforeEach(async () => {
  scene = await ApiScene.open();
  admin = await scene.token('root', { admin: true });
});
afterEach(async () => await scene.close());

test('whoever creates one administers it', async () => {
  const token = await scene.token('ann', { scope: 'admin' });
  const made = await scene.request('POST', '/repositories', {
    token,
    body: {
      name: 'team/app.git',
      defaultBranch: 'trunk',
      settings: { 'RECEIVE.denydeletes': 'true' },
    },
  });
  assert.equal(made.status, 201, made.text);
  const shown = await scene.request('GET', '/repositories/team%2Fapp.git', { token });
  const { createdAt: _, ...repository } = objectIn(shown.body, 'repository');
  const [{ id } = { id: '' }] = scene.backend.records.values();
  assert.deepEqual(repository, {
    id,
    name: 'team/app',
    public: false,
    objectFormat: 'sha1',
    epoch: 1,
    head: 'refs/heads/trunk',
    generation: 1,
    refCount: 0,
    packCount: 0,
    looseObjectCount: 0,
    sizeBytes: 1536,
    sharedBytes: 2048,
    sharedBy: 3,
    savedBytes: 4096,
    settings: { 'receive.denyDeletes': 'true' },
    grants: { ann: 'admin' },
  });
});

test('readers do not see grants and settings', async () => {
  await scene.createRepository('team/app', { public: true });
  const shown = await scene.request('GET', '/repositories/team%2Fapp');
  const repository = objectIn(shown.body, 'repository');
  assert.ok(!('grants' in repository) && !('settings' in repository));
});

test('settings are set and unset, visibility and grants kept', async () => {
  await scene.createRepository('team/app');
  await scene.token('ann');
  const change = (body: object) =>
    scene.request('PATCH', '/repositories/team%2Fapp', { token: admin, body });
  await scene.request('PUT', '/repositories/team%2Fapp/grants/ann', {
    token: admin,
    body: { level: 'read' },
  });
  await change({ settings: { 'receive.maxRefs': '10', 'receive.denyDeletes': 'true' } });
  const answer = await change({ settings: { 'receive.maxRefs': null }, public: true });
  const repository = objectIn(answer.body, 'repository');
  assert.deepEqual(repository['settings'], { 'receive.denyDeletes': 'true' });
  assert.deepEqual(repository['grants'], { root: 'admin', ann: 'read' });
  assert.equal(repository['public'], true);
});

test('a grant to nobody, and one that is not there', async () => {
  await scene.createRepository('team/app');
  const path = '/repositories/team%2Fapp/grants/constructor';
  const granted = await scene.request('PUT', path, { token: admin, body: { level: 'read' } });
  assert.equal(granted.status, 404);
  assert.equal((await scene.request('DELETE', path, { token: admin })).status, 404);
});

test('who deletes a repository is told that it is gone, and whether more is to go', async () => {
  for (const [isForgotten, cleanUp] of [
    [true, 'done'],
    [false, 'goes on'],
  ] as const) {
    await scene.createRepository('team/app');
    scene.backend.gone = async () => isForgotten;
    const path = '/repositories/team%2Fapp';
    const answer = await scene.request('DELETE', path, { token: admin });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(answer.body, { deleted: 'team/app', cleanUp });
    assert.equal((await scene.request('GET', path, { token: admin })).status, 404);
  }
});

test('a rename that happened is told, though the size could not be counted for its owner', async () => {
  await scene.createRepository('team/app');
  Object.assign(scene.backend.repositories, {
    stats: () => Promise.reject(new Error('no store answers')),
  });
  const answer = await scene.request('POST', '/repositories/team%2Fapp/rename', {
    token: admin,
    body: { name: 'other/app' },
  });
  assert.equal(answer.status, 200, answer.text);
  assert.equal(objectIn(answer.body, 'repository')['name'], 'other/app');
});

test('pages hold what the caller may read, and do not name the rest', async () => {
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    await scene.createRepository(`${name}/public`, { public: true });
    await scene.createRepository(`${name}/secret`);
  }
  const pages: unknown[] = [];
  let after = '';
  do {
    const page = await scene.request('GET', `/repositories?limit=2${after}`);
    assert.ok(!page.text.includes('secret'));
    pages.push(namesIn(page.body));
    const next = page.body?.['next'];
    after = typeof next === 'string' ? `&after=${encodeURIComponent(next)}` : '';
  } while (after !== '');
  assert.deepEqual(pages, [['a/public', 'b/public'], ['c/public', 'd/public'], ['e/public']]);
  const all = await scene.request('GET', '/repositories?prefix=b/', { token: admin });
  assert.deepEqual(namesIn(all.body), ['b/public', 'b/secret']);
});

test('a page of those that may all be read costs no more than it shows', async () => {
  for (const name of ['a', 'b', 'c']) await scene.createRepository(`team/${name}`);
  const before = scene.backend.namesAsked;
  const page = await scene.request('GET', '/repositories?limit=2', { token: admin });
  assert.deepEqual(namesIn(page.body), ['team/a', 'team/b']);
  assert.equal(page.body?.['next'], 'team/b');
  assert.equal(scene.backend.namesAsked - before, 3, 'one more, which tells that more follow');
});

test('pages reach over more hidden names than one batch of the registry', async () => {
  for (let index = 0; index < 1100; index += 1)
    await scene.createRepository(`hidden/${10_000 + index}`);
  await scene.createRepository('last/one', { public: true });
  assert.deepEqual(namesIn((await scene.request('GET', '/repositories')).body), ['last/one']);
});

test('who may read few of very many is led over the others page by page, and learns no name of them', async () => {
  const count = 250_000;
  await scene.createRepository('hidden/x', { public: true });
  const [shown] = scene.backend.records.values();
  assert.ok(shown !== undefined);
  let asked = 0;
  Object.assign(scene.backend.repositories, {
    list: async ({ after, limit }: { after?: string; limit: number }) => {
      asked += limit;
      const from = after === undefined ? 0 : Number(after.slice('hidden/1'.length)) + 1;
      const length = Math.min(limit, count - from);
      const access = { public: false, grants: {} };
      const page = Array.from({ length }, (_, n) => ({ ...shown, name: hidden(from + n), access }));
      return length < limit ? [...page, shown] : page;
    },
  });
  const pages: unknown[] = [];
  let after = '';
  do {
    asked = 0;
    const page = await scene.request('GET', `/repositories?limit=2${after}`);
    assert.equal(page.status, 200, page.text);
    assert.ok(!page.text.includes('hidden/1'), page.text);
    assert.ok(asked <= 101_000, `${asked} names`);
    pages.push(namesIn(page.body));
    const next = page.body?.['next'];
    after = typeof next === 'string' ? `&after=${encodeURIComponent(next)}` : '';
  } while (after !== '' && pages.length < 10);
  assert.deepEqual(pages, [[], [], ['hidden/x']]);
  for (const forged of ['~', '~AAAA', `~${'A'.repeat(80)}`]) {
    const refused = await scene.request('GET', `/repositories?after=${forged}`);
    assert.equal(refused.status, 400, refused.text);
    assert.match(refused.text, /after: is no place in this list/);
  }
});

/** In the order of the index. */
function hidden(index: number): string {
  return `hidden/${1_000_000 + index}`;
}

function namesIn(body: unknown): unknown[] {
  return Object.values(objectIn(body, 'repositories')).map(
    (row) => objectIn({ row }, 'row')['name'],
  );
}
