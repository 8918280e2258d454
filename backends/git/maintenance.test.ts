import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { GitRunner } from './git-runner.js';
import {
  maintainRepository,
  needsMaintenance,
  removeLeftovers,
  repackObjects,
  type MaintainOptions,
  packRefs,
} from './maintenance.js';
import { linkObjects } from './link-objects.js';
import { borrowFrom } from './object-pool.js';
import { readObjectStoreStats, type ObjectStoreStats } from './repository-files.js';
import { createFixture, type Fixture } from './testing/indexer-fixture.js';

const DAY_MS = 86_400_000;
const signal = new AbortController().signal;

let fixture: Fixture;
let nowMs: number;
const clock: Clock = {
  nowMs: () => nowMs,
  monotonicMs: () => performance.now(),
  sleep: () => Promise.resolve(),
};

beforeEach(async () => {
  fixture = await createFixture();
  nowMs = Date.now();
});
afterEach(() => fixture.close());

function maintain(more: Partial<MaintainOptions> = {}) {
  return maintainRepository({
    git: fixture.git,
    gitDir: fixture.gitDir,
    signal,
    background: false,
    clock,
    holdRefs: (step) => step(),
    holdJudging: async (step) => {
      await step(signal);
      return true;
    },
    pinned: [],
    ...more,
  });
}

let serial = 0;

const packFiles = (): string[] => readdirSync(join(fixture.objectsDir, 'pack'));

/** A commit of its own content, in a pack of its own, as a promoted push leaves it; no ref names it yet. */
function promoteCommit(parents: readonly string[], keep = false): string {
  const blob = fixture.write('blob', `content ${(serial += 1)}`);
  const tree = fixture.run(['mktree'], `100644 blob ${blob}\tfile\n`).toString().trim();
  const options = parents.flatMap((parent) => ['-p', parent]);
  const commit = fixture
    .run(['commit-tree', tree, '-m', `commit ${serial}`, ...options])
    .toString()
    .trim();
  const prefix = join(fixture.packDir, 'pack');
  const hash = fixture
    .run(['pack-objects', '-q', prefix], [blob, tree, commit, ''].join('\n'))
    .toString()
    .trim();
  const target = join(fixture.objectsDir, 'pack', `pack-${hash}`);
  if (keep) writeFileSync(`${target}.keep`, '');
  for (const suffix of ['pack', 'idx'])
    renameSync(`${prefix}-${hash}.${suffix}`, `${target}.${suffix}`);
  for (const oid of [blob, tree, commit]) {
    rmSync(join(fixture.objectsDir, oid.slice(0, 2), oid.slice(2)), { force: true });
  }
  return commit;
}

function setRef(name: string, oid: string): void {
  fixture.run(['update-ref', name, oid]);
}

function exists(oid: string): boolean {
  return !fixture.run(['cat-file', '--batch-check'], `${oid}\n`).toString().includes('missing');
}

function fsck(): void {
  fixture.run(['fsck', '--strict', '--connectivity-only']);
}

function history(packs: number): string {
  let tip = promoteCommit([]);
  for (let i = 1; i < packs; i++) tip = promoteCommit([tip]);
  setRef('refs/heads/main', tip);
  return tip;
}

describe('repacking', () => {
  test('many packs become one with a bitmap, refs are packed, steps are reported', async () => {
    const tip = history(8);
    const steps: string[] = [];
    const report = await maintain({
      progress: ({ step, done, total }) => steps.push(`${step} ${done}/${total}`),
    });
    assert.equal(report.packsBefore, 8);
    assert.equal(report.packsAfter, 1);
    assert.ok(report.sizeBytesAfter > 0 && report.sizeBytesAfter < report.sizeBytesBefore);
    const stats = await readObjectStoreStats(fixture.objectsDir);
    assert.ok(stats.hasBitmap && stats.hasCommitGraph);
    assert.equal(needsMaintenance(stats), 'none');
    assert.ok(!readdirSync(join(fixture.gitDir, 'refs', 'heads')).includes('main'));
    assert.ok(exists(tip));
    assert.deepEqual(steps.at(0), 'clean 0/6');
    assert.deepEqual(steps.at(-1), 'done 6/6');
    fsck();
    assert.ok(!readdirSync(fixture.gitDir).some((name) => name.startsWith('quorate-view-')));
  });

  test('geometric: rolls small packs up and leaves the large one with its bitmap', async () => {
    history(40);
    await repackObjects({ git: fixture.git, gitDir: fixture.gitDir, signal }, 'full');
    const large = packFiles();
    assert.ok(large.some((name) => name.endsWith('.bitmap')));
    history(8);
    await repackObjects({ git: fixture.git, gitDir: fixture.gitDir, signal }, 'geometric');
    assert.ok(large.every((name) => packFiles().includes(name)));
    assert.equal((await readObjectStoreStats(fixture.objectsDir)).packCount, 2);
    fsck();
    await repackObjects({ git: fixture.git, gitDir: fixture.gitDir, signal }, 'full');
    assert.equal((await readObjectStoreStats(fixture.objectsDir)).packCount, 1);
    fsck();
  });

  for (const kind of ['geometric', 'full'] as const) {
    test(`${kind}: a promoted pack without refs stays, under .keep and without`, async () => {
      history(3);
      const kept = promoteCommit([], true);
      const bare = promoteCommit([]);
      await repackObjects({ git: fixture.git, gitDir: fixture.gitDir, signal }, kind);
      assert.ok(exists(kept) && exists(bare));
      setRef('refs/heads/kept', kept);
      setRef('refs/heads/bare', bare);
      fsck();
    });
  }

  test('pushes that are promoted meanwhile lose nothing', async () => {
    let tip = history(6);
    const tips: string[] = [];
    for (let round = 0; round < 3; round++) {
      const running = maintain();
      const state = { finished: false };
      const end = running.finally(() => (state.finished = true));
      do {
        tip = promoteCommit([tip], true);
        setRef('refs/heads/main', tip);
        const packs = join(fixture.objectsDir, 'pack');
        for (const name of readdirSync(packs)) {
          if (name.endsWith('.keep')) rmSync(join(packs, name));
        }
        tips.push(tip);
        await new Promise((resolve) => setImmediate(resolve));
      } while (!state.finished && tips.length < 12 * (round + 1));
      await end;
    }
    assert.ok(tips.length >= 3);
    assert.ok(tips.every(exists));
    fsck();
  });

  test('an abort stops git and is said to be one', async () => {
    history(3);
    const controller = new AbortController();
    const running = maintain({
      signal: controller.signal,
      progress: ({ step }) => step === 'objects' && controller.abort(),
    });
    await assert.rejects(running, { code: 'cancelled' });
    assert.equal(fixture.git.running, 0);
    fsck();
  });
});

const ownPacks = (): readonly string[] =>
  readdirSync(join(fixture.objectsDir, 'pack')).filter((name) => name.endsWith('.pack'));

test('what a stopped repack had written is in the way of nothing', async () => {
  history(3);
  const directory = join(fixture.objectsDir, 'pack');
  const [name = ''] = ownPacks();
  for (const suffix of ['.pack', '.idx']) {
    const written = name.replace(/\.pack$/, suffix);
    copyFileSync(join(directory, written), join(directory, `.tmp-7-${written}`));
  }
  const pool = join(fixture.root, 'pool', 'objects');
  mkdirSync(join(pool, 'pack'), { recursive: true });
  await linkObjects(fixture.objectsDir, pool);
  assert.ok(readdirSync(join(pool, 'pack')).every((linked) => linked.startsWith('pack-')));
  await maintain();
  assert.ok(readdirSync(directory).every((left) => !left.startsWith('.tmp-')));
  assert.equal(ownPacks().length, 1);
});

test('refs are packed when another git lets their lock go, also after git’s own patience of a second', async () => {
  const tip = history(1);
  const lock = join(fixture.gitDir, 'packed-refs.lock');
  writeFileSync(lock, '');
  const timer = setTimeout(() => rmSync(lock), 1_500);
  await packRefs({ git: fixture.git, gitDir: fixture.gitDir, signal, background: false });
  clearTimeout(timer);
  assert.ok(readFileSync(join(fixture.gitDir, 'packed-refs'), 'utf8').includes(tip));
});

test('a run that is stopped while it packs refs leaves no lock', async () => {
  const tip = history(1);
  const lock = join(fixture.gitDir, 'packed-refs.lock');
  const stopping = new AbortController();
  const killed: GitRunner['run'] = async () => {
    writeFileSync(lock, '');
    stopping.abort();
    throw new QuorateError('cancelled', 'the request was cancelled');
  };
  const context = { gitDir: fixture.gitDir, background: false };
  const git = { ...fixture.git, run: killed };
  await assert.rejects(packRefs({ ...context, git, signal: stopping.signal }), {
    code: 'cancelled',
  });
  assert.ok(!existsSync(lock));
  await packRefs({ ...context, git: fixture.git, signal });
  assert.ok(readFileSync(join(fixture.gitDir, 'packed-refs'), 'utf8').includes(tip));
});

test('a git that is killed while it packs refs leaves no lock, and one that fails leaves those of others', async () => {
  const tip = history(1);
  // It has one of each of the refs whose files it removes.
  const locks = ['packed-refs.lock', 'refs/heads/main.lock'];
  const paths = locks.map((name) => join(fixture.gitDir, name));
  const context = { gitDir: fixture.gitDir, background: false, signal };
  const ending = (exitCode: number | null): GitRunner['run'] => {
    return async () => {
      for (const path of paths) writeFileSync(path, '');
      const signal = exitCode === null ? 'SIGKILL' : null;
      return { exitCode, signal, stdout: Buffer.alloc(0), stderr: '' };
    };
  };
  for (const exitCode of [null, 128]) {
    const git = { ...fixture.git, run: ending(exitCode) };
    await assert.rejects(packRefs({ ...context, git }), { code: 'storage-failure' });
    for (const path of paths) assert.equal(existsSync(path), exitCode !== null, path);
  }
  for (const path of paths) rmSync(path);
  await packRefs({ ...context, git: fixture.git });
  assert.ok(readFileSync(join(fixture.gitDir, 'packed-refs'), 'utf8').includes(tip));
});

describe('who borrows objects', () => {
  let pool: string;
  let pooled: string;

  beforeEach(async () => {
    pool = join(fixture.root, 'pool', 'objects');
    mkdirSync(join(pool, 'pack'), { recursive: true });
    pooled = history(3);
    await linkObjects(fixture.objectsDir, pool);
    await borrowFrom(fixture.objectsDir, pool);
  });

  test('keeps only what the lender lacks, and nothing is copied from there', async () => {
    assert.equal(ownPacks().length, 3);
    await maintain();
    assert.deepEqual(ownPacks(), []);
    setRef('refs/heads/own', promoteCommit([pooled]));
    await maintain();
    assert.equal(ownPacks().length, 1);
    assert.equal(
      fixture
        .run(['count-objects', '-v'])
        .toString()
        .match(/in-pack: (\d+)/)?.[1],
      '3',
    );
    fsck();
  });

  test('packs that are to be kept stay, and nothing else is left beside them', async () => {
    const keepPacks = ownPacks();
    let tip = pooled;
    for (let count = 0; count < 4; count++) tip = promoteCommit([tip]);
    setRef('refs/heads/own', tip);
    await maintain({ keepPacks });
    const left = ownPacks();
    assert.equal(left.length, keepPacks.length + 1);
    assert.ok(keepPacks.every((name) => left.includes(name)));
    fsck();
  });

  test('loses its own unreachable objects in time, and nobody else loses any', async () => {
    const own = promoteCommit([pooled]);
    setRef('refs/heads/topic', own);
    await maintain();
    for (const ref of ['refs/heads/topic', 'refs/heads/main']) {
      fixture.run(['update-ref', '-d', ref]);
    }
    nowMs += DAY_MS;
    await maintain();
    nowMs += 14 * DAY_MS;
    await maintain();
    assert.ok(!exists(own));
    assert.ok(exists(pooled), "it is the pool's");
  });

  test('a promoted pack without refs stays, though it holds what the lender has', async () => {
    const promoted = promoteCommit([pooled]);
    await maintain();
    assert.ok(exists(promoted));
  });
});

describe('pruning', () => {
  let main: string;
  let deleted: string;

  beforeEach(async () => {
    main = history(2);
    deleted = promoteCommit([main]);
    setRef('refs/heads/topic', deleted);
    await maintain();
    fixture.run(['update-ref', '-d', 'refs/heads/topic']);
    nowMs += DAY_MS;
    await maintain();
    assert.ok(exists(deleted), 'it was reachable a day ago');
  });

  test('an object goes when it has been unreachable for the grace period', async () => {
    nowMs += 14 * DAY_MS;
    await maintain();
    assert.ok(!exists(deleted));
    assert.ok(exists(main));
    fsck();
  });

  test('not before, however old its pack is', async () => {
    nowMs += 13.5 * DAY_MS;
    await maintain();
    assert.ok(exists(deleted));
    nowMs += DAY_MS;
    await maintain();
    assert.ok(!exists(deleted));
  });

  test('a pinned object stays with all it reaches', async () => {
    nowMs += 14 * DAY_MS;
    await maintain({ pinned: [deleted, '12'.repeat(20)] });
    assert.ok(exists(deleted));
    setRef('refs/heads/topic', deleted);
    fsck();
  });

  test('nothing goes while a push is being judged', async () => {
    nowMs += 14 * DAY_MS;
    await maintain({ holdJudging: () => Promise.resolve(false) });
    assert.ok(exists(deleted));
  });

  test('a push that comes ends the prune, and the next run begins it again', async () => {
    nowMs += 14 * DAY_MS;
    await maintain({
      holdJudging: async (step) => {
        await assert.rejects(step(AbortSignal.abort()), { code: 'cancelled' });
        return false;
      },
    });
    assert.ok(exists(deleted));
    fsck();
    await maintain();
    assert.ok(!exists(deleted));
  });

  test('without records nothing goes', async () => {
    rmSync(join(fixture.gitDir, 'quorate-tips'), { recursive: true });
    nowMs += 100 * DAY_MS;
    await maintain();
    assert.ok(exists(deleted));
  });

  test('what came in the grace period stays, though no record knows it', async () => {
    nowMs = Date.now() + 13 * DAY_MS;
    const young = promoteCommit([main]);
    await maintain();
    assert.ok(exists(young));
  });
});

test('leftovers of killed gits go when they are old', async () => {
  const packs = join(fixture.objectsDir, 'pack');
  const graphs = join(fixture.objectsDir, 'info', 'commit-graphs');
  mkdirSync(graphs, { recursive: true });
  const tip = history(1);
  const left = [
    join(packs, 'tmp_pack_abcdef'),
    join(packs, '.tmp-123-pack-abc.pack'),
    join(packs, 'multi-pack-index.lock'),
    join(graphs, 'commit-graph-chain.lock'),
  ];
  for (const path of left) writeFileSync(path, '');
  assert.equal(await removeLeftovers(fixture.gitDir, { nowMs, olderThanMs: DAY_MS }), 0);
  const view = join(fixture.gitDir, 'quorate-view-abcdef');
  mkdirSync(view);
  const old = new Date(nowMs - 2 * DAY_MS);
  utimesSync(view, old, old);
  for (const path of left) utimesSync(path, old, old);
  assert.equal(await removeLeftovers(fixture.gitDir, { nowMs, olderThanMs: DAY_MS }), 4);
  assert.ok(!readdirSync(fixture.gitDir).includes('quorate-view-abcdef'));
  assert.ok(exists(tip));
});

describe('the policy', () => {
  const tidy: ObjectStoreStats = {
    packCount: 1,
    cruftPackCount: 0,
    keptPackCount: 0,
    looseObjectCount: 0,
    sizeBytes: 10_000_000,
    packBytes: 9_000_000,
    largestPackBytes: 9_000_000,
    hasBitmap: true,
    hasCommitGraph: true,
    borrows: false,
  };
  const gib = 2 ** 30;
  for (const [desc, change, expected] of [
    ['tidy', {}, 'none'],
    ['twenty packs', { packCount: 20 }, 'none'],
    ['twenty-one packs', { packCount: 21 }, 'geometric'],
    ['twenty-one packs, one kept', { packCount: 21, keptPackCount: 1 }, 'none'],
    ['twenty-one tiny packs', { packCount: 21, sizeBytes: 50_000 }, 'full'],
    ['no bitmap, since objects are borrowed', { hasBitmap: false, borrows: true }, 'none'],
    ['six large packs beside a pool', { packCount: 6, borrows: true, sizeBytes: 2 ** 32 }, 'full'],
    ['grown by less than a quarter', { packCount: 2, packBytes: 11_200_000 }, 'none'],
    ['grown by more than a quarter', { packCount: 2, packBytes: 11_300_000 }, 'full'],
    ['a small one grown by half', { packBytes: 900_000, largestPackBytes: 600_000 }, 'none'],
    [
      'a large one grown by less than half',
      { sizeBytes: gib, packBytes: 0.95 * gib, largestPackBytes: 0.65 * gib },
      'none',
    ],
    [
      'a large one grown by more than half',
      { sizeBytes: gib, packBytes: 0.95 * gib, largestPackBytes: 0.6 * gib },
      'full',
    ],
    ['many large packs', { packCount: 21, sizeBytes: gib }, 'geometric'],
    ['loose objects', { looseObjectCount: 501 }, 'geometric'],
    ['no bitmap', { hasBitmap: false }, 'full'],
    ['no bitmap, tiny', { hasBitmap: false, sizeBytes: 1000 }, 'none'],
    [
      'empty',
      { packCount: 0, hasBitmap: false, sizeBytes: 0, packBytes: 0, largestPackBytes: 0 },
      'none',
    ],
  ] as const) {
    test(desc, () => assert.equal(needsMaintenance({ ...tidy, ...change }), expected));
  }

  test('clones of everything that git had to pack make a full repack pay', () => {
    const pushed = { ...tidy, packCount: 2 };
    assert.equal(needsMaintenance(pushed, 4), 'none');
    assert.equal(needsMaintenance(pushed, 5), 'full');
    assert.equal(needsMaintenance({ ...pushed, sizeBytes: gib }, 5), 'none');
    assert.equal(needsMaintenance({ ...pushed, borrows: true }, 5), 'none');
  });
});
