import assert from 'node:assert/strict';
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { GitRunner } from './git-runner.js';
import { maintainRepository, packRefs, removeAllLeftovers, repackObjects } from './maintenance.js';
import { createFixture, type Fixture } from './testing/indexer-fixture.js';
import { observeSyncs } from './testing/observe-syncs.js';

const signal = new AbortController().signal;

let fixture: Fixture;
let events: string[];

beforeEach(async () => {
  fixture = await createFixture();
  events = [];
});
afterEach(() => fixture.close());

/** Tells of each git that is run. */
function told(): GitRunner {
  const { git } = fixture;
  return {
    version: git.version,
    running: 0,
    conversations: git.conversations,
    run: async (command) => {
      events.push(`git ${command.args.join(' ')}`);
      const result = await git.run(command);
      events.push('done');
      return result;
    },
    stream: (command) => git.stream(command),
    converse: (command) => git.converse(command),
    program: (program) => git.program(program),
    close: () => git.close(),
  };
}

const synced = (path: string): number =>
  events.push(`sync ${basename(path.replace(fixture.gitDir, 'git'))}`);

function packs(directory = join(fixture.objectsDir, 'pack')): string[] {
  return readdirSync(directory).filter((name) => /\.(?:pack|idx)$/.test(name));
}

/** Some commits, each in a pack of its own, and one that is loose. */
function history(): string {
  let tip = '';
  for (let i = 0; i < 4; i++) {
    const tree = fixture.run(['mktree'], '').toString().trim();
    const parents = tip === '' ? [] : ['-p', tip];
    tip = fixture
      .run(['commit-tree', tree, '-m', `${i}`, ...parents])
      .toString()
      .trim();
    fixture.run(['update-ref', 'refs/heads/main', tip]);
    if (i < 3) fixture.run(['repack', '-q', '-d']);
  }
  return tip;
}

test('loose refs go when packed-refs is on disk under its name', async () => {
  history();
  await observeSyncs(synced, () => packRefs({ git: told(), gitDir: fixture.gitDir, signal }));
  assert.deepEqual(events, [
    'git pack-refs --all --no-prune',
    'done',
    'sync git',
    'git pack-refs --all --prune',
    'done',
  ]);
  assert.deepEqual(readdirSync(join(fixture.gitDir, 'refs', 'heads')), []);
});

test('what a repack removes has another name on disk until the new packs have theirs', async () => {
  const tip = history();
  const kept = join(fixture.gitDir, 'quorate-kept');
  const before = packs().toSorted();
  const git: GitRunner = {
    ...told(),
    run: async (command) => {
      assert.deepEqual(packs(join(kept, 'pack')).toSorted(), before);
      events.push('git');
      const result = await fixture.git.run(command);
      assert.ok(existsSync(kept));
      events.push('done');
      return result;
    },
  };
  await observeSyncs(synced, () => repackObjects({ git, gitDir: fixture.gitDir, signal }, 'full'));
  const [start, end] = [events.indexOf('git'), events.indexOf('done')];
  // Its packs, its loose objects, and its own name.
  for (const name of ['pack', 'quorate-kept', 'git']) {
    assert.ok(events.slice(0, start).includes(`sync ${name}`), name);
  }
  assert.deepEqual(events.slice(end + 1), ['sync pack']);
  assert.ok(!existsSync(kept));
  assert.equal(packs().length, 2);
  fixture.run(['rev-list', '--objects', tip]);
});

test('what a repack removed that could not read all is brought back', async () => {
  const tip = history();
  const { gitDir, objectsDir, git } = fixture;
  const short: GitRunner = {
    ...told(),
    run: async (command) => {
      const result = await git.run(command);
      // What it could not open it took for absent, and went on.
      for (const name of packs()) rmSync(join(objectsDir, 'pack', name));
      return { ...result, stderr: 'error: unable to open ./pack: Too many open files\n' };
    },
  };
  const repack = repackObjects({ git: short, gitDir, signal }, 'full');
  await assert.rejects(repack, { code: 'storage-failure' });
  fixture.run(['rev-list', '--objects', tip]);
  assert.ok(!existsSync(join(gitDir, 'quorate-kept')));
});

test('removals of a repack that outlived its new packs are undone at the next start', async () => {
  const tip = history();
  const before = packs().toSorted();
  const { gitDir, objectsDir, git } = fixture;
  const lost: GitRunner = {
    ...told(),
    run: async (command) => {
      const result = await git.run(command);
      // As a power cut may leave it: the process is gone, and so is what it renamed into place.
      const made = packs().filter((name) => !before.includes(name));
      for (const name of made) rmSync(join(objectsDir, 'pack', name));
      renameSync(join(objectsDir, 'pack'), join(objectsDir, 'away'));
      return result;
    },
  };
  await assert.rejects(repackObjects({ git: lost, gitDir, signal }, 'full'), { code: 'ENOENT' });
  renameSync(join(objectsDir, 'away'), join(objectsDir, 'pack'));
  assert.throws(() => fixture.run(['rev-list', '--objects', tip]));
  await removeAllLeftovers(gitDir);
  fixture.run(['rev-list', '--objects', tip]);
  assert.deepEqual(packs().toSorted(), before);
  assert.ok(!existsSync(join(gitDir, 'quorate-kept')));
});

test('what an earlier run could not clear away is in the way of nothing', async () => {
  const tip = history();
  const { gitDir, git } = fixture;
  const stuck: GitRunner = {
    ...told(),
    run: async (command) => {
      const result = await git.run(command);
      if (command.args[0] === 'repack') renameSync(join(gitDir, 'quorate-kept'), join(gitDir, 'x'));
      return result;
    },
  };
  await repackObjects({ git: stuck, gitDir, signal }, 'full');
  renameSync(join(gitDir, 'x'), join(gitDir, 'quorate-kept'));
  await maintainRepository({
    git,
    gitDir,
    signal,
    background: false,
    clock: { nowMs: () => Date.now(), monotonicMs: () => 0, sleep: () => Promise.resolve() },
    holdRefs: (step) => step(),
    holdJudging: () => Promise.resolve(false),
    pinned: [],
  });
  assert.equal(packs().length, 2);
  fixture.run(['rev-list', '--objects', tip]);
});
