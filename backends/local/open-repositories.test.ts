import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import { emptyDigest } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import { createObjectReader } from '../git/object-reader.js';
import { createRefTransactions } from '../git/ref-transaction.js';
import { createRepositoryFiles } from '../git/repository-files.js';
import { createGitRunner } from '../git/runner.js';
import { Deferred } from '../git/spawner/deferred.js';
import { OpenRepositories } from './open-repositories.js';
import { createState } from './state-file.js';
import { Store } from './store.js';
import { silentMeter, systemClock } from './testing/local-fixture.js';
import { MemoryLog } from './testing/replica-scene.js';

let directory: string;
let git: GitRunner;
let store: Store;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-open-'));
  git = await createGitRunner({ logger: silentLogger, meter: silentMeter });
  store = await Store.open(directory, { bytes: (length) => randomBytes(length) });
});
afterEach(async () => {
  await git.close();
  await rm(directory, { recursive: true });
});

function openRepositories(limits: { repositories: number; refs: number }): OpenRepositories {
  return new OpenRepositories(
    {
      store,
      git,
      refs: createRefTransactions({ git, clock: systemClock }),
      objects: createObjectReader({ git, clock: systemClock }),
      log: new MemoryLog(),
      clock: systemClock,
      logger: silentLogger,
      quarantineOf: () => undefined,
      quarantineApplied: () => undefined,
    },
    limits,
  );
}

async function make(): Promise<string> {
  const id = randomBytes(16).toString('hex');
  const head = 'refs/heads/main';
  await store.makeRepositoryDirectory(id);
  await createRepositoryFiles({ git, gitDir: store.gitDirectory(id), objectFormat: 'sha1', head });
  const digest = emptyDigest({ symref: head });
  await createState(store.repositoryDirectory(id), { objectFormat: 'sha1', generation: 0, digest });
  return id;
}

test('one object for one repository, however many ask at once and while another is let go', async () => {
  const open = openRepositories({ repositories: 1, refs: 1000 });
  const [a, b] = [await make(), await make()];
  const first = await open.acquire(a);
  first.release();
  // While `b` takes the only place, `a` is wanted again.
  const [, ...users] = await Promise.all([open.acquire(b), open.acquire(a), open.acquire(a)]);
  assert.equal(users[0]?.repository, users[1]?.repository);
  const again = await open.acquire(a);
  assert.equal(again.repository, users[0]?.repository);
});

test('what is in use, or has a push between judgement and refs, is not let go', async () => {
  const open = openRepositories({ repositories: 1, refs: 1000 });
  const ids = [await make(), await make(), await make(), await make()];
  const [used, judging, idle, last] = await Promise.all(ids.map((id) => open.acquire(id)));
  const leave = await judging?.repository.pruneGate.enter();
  for (const user of [judging, idle, last]) user?.release();
  const other = await open.acquire(await make());
  other.release();
  const at = async (index: number) => (await open.acquire(ids[index] ?? '')).repository;
  assert.equal(await at(0), used?.repository);
  assert.equal(await at(1), judging?.repository);
  assert.notEqual(await at(2), idle?.repository);
  leave?.();
});

test('a repository that cannot be opened is asked for again by the next user', async () => {
  const open = openRepositories({ repositories: 1, refs: 1000 });
  const id = await make();
  const state = store.repositoryDirectory(id);
  await createState(state, { objectFormat: 'sha1', generation: 0, digest: 'wrong' });
  await assert.rejects(open.acquire(id), { code: 'data-corrupt' });
  const digest = emptyDigest({ symref: 'refs/heads/main' });
  await createState(state, { objectFormat: 'sha1', generation: 0, digest });
  const { repository } = await open.acquire(id);
  assert.equal(repository.generation, 0);
});

test('a release counts once', async () => {
  const open = openRepositories({ repositories: 10, refs: 1000 });
  const id = await make();
  const [one, two] = await Promise.all([open.acquire(id), open.acquire(id)]);
  one.release();
  one.release();
  let removed = false;
  const retired = open.retire(id, async () => {
    removed = true;
  });
  await new Promise(setImmediate);
  assert.equal(removed, false);
  two.release();
  await retired;
  assert.equal(removed, true);
});

test('nobody uses a copy while one who removes it is at it, though another has given up', async () => {
  const open = openRepositories({ repositories: 10, refs: 1000 });
  const id = await make();
  const { release } = await open.acquire(id);
  const stays = open.retire(id, () => Promise.reject(new QuorateError('aborted', 'it stays')));
  const removing = new Deferred<void>();
  const goes = open.retire(id, () => removing.promise);
  release();
  await assert.rejects(stays, { code: 'aborted' });
  await assert.rejects(open.acquire(id), { code: 'not-found' });
  removing.resolve();
  await goes;
  const again = await open.acquire(id);
  again.release();
});
