import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Oid, RefCommand } from '../contract/objects.js';
import { until } from '../contract/testing/until.js';
import { takeFileSteps, type TakeFileSteps } from './file-steps.js';
import type { GitConversation, GitRunner } from './git-runner.js';
import { removeStaleLocks } from './ref-files.js';
import { createRefTransactions, type RefTransactions } from './ref-transaction.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, realClock, TestRepository, zero } from './testing/repository.js';

describe('ref transactions', () => {
  let git: GitRunner;
  let repository: TestRepository;
  let refs: RefTransactions;
  let one: Oid;
  let two: Oid;

  before(async () => {
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  });
  after(() => git.close());
  beforeEach(() => {
    repository = new TestRepository();
    refs = createRefTransactions({ git, clock: realClock });
    one = repository.commit();
    two = repository.commit([one]);
  });
  afterEach(async () => {
    await refs.close();
    repository.remove();
  });

  const create = (ref: string, newOid: Oid = one): RefCommand => ({ ref, oldOid: zero, newOid });

  it('creates, updates, deletes and verifies in one transaction', async () => {
    const { gitDir } = repository;
    await refs.commitEither(gitDir, [
      create('refs/heads/a'),
      create('refs/heads/b'),
      create('refs/heads/c'),
    ]);
    await refs.commitEither(gitDir, [
      { ref: 'refs/heads/a', oldOid: one, newOid: two },
      { ref: 'refs/heads/b', oldOid: one, newOid: zero },
      { ref: 'refs/heads/c', oldOid: one, newOid: one },
      create('refs/heads/deep/er/d'),
    ]);
    assert.deepEqual(repository.refs(), [
      `refs/heads/a ${two}`,
      `refs/heads/c ${one}`,
      `refs/heads/deep/er/d ${one}`,
    ]);
  });

  it('puts the names of refs on disk, of directories that never go once', async () => {
    const { gitDir } = repository;
    const synced: string[] = [];
    const files: TakeFileSteps = async (steps) => {
      for (const step of steps) if (step.do === 'sync') synced.push(relative(gitDir, step.path));
      await takeFileSteps(steps);
    };
    const observed = createRefTransactions({ git, clock: realClock, files });
    const syncedBy = async (...updates: RefCommand[]): Promise<readonly string[]> => {
      await observed.commitEither(gitDir, updates);
      return synced.splice(0).toSorted();
    };
    const heads = 'refs/heads';
    const gone = { ref: `${heads}/gone`, oldOid: one, newOid: zero };
    repository.git(['update-ref', gone.ref, one]);
    assert.deepEqual(await syncedBy(gone), ['', 'refs', heads]);
    assert.deepEqual(await syncedBy(create(`${heads}/a`)), ['refs', heads]);
    assert.deepEqual(await syncedBy(create(`${heads}/b`)), [heads]);
    assert.deepEqual(await syncedBy(create(`${heads}/d/e`)), [heads, `${heads}/d`]);
    assert.deepEqual(await syncedBy(create('refs/tags/a')), ['refs', 'refs/tags']);
    for (const name of ['x', 'y']) {
      const others = await syncedBy(create(`refs/notes/${name}`));
      assert.deepEqual(others, ['refs', 'refs/notes']);
    }
    const done = join(gitDir, 'done');
    for (const [oldOid, newOid] of [
      [one, two],
      [two, one],
    ] as const) {
      // The second one finds its work done, as after a crash.
      for (const already of [false, true]) {
        const update = { ref: `${heads}/a`, oldOid, newOid };
        const after = [{ do: 'write', path: done, text: `${newOid} ${already}` }] as const;
        await observed.commitEither(gitDir, [update], { restarted: false, after });
        assert.deepEqual(synced.splice(0), [heads]);
        assert.equal(readFileSync(done, 'utf8'), `${newOid} ${already}`);
      }
    }
    await assert.rejects(
      observed.commitEither(gitDir, [{ ref: `${heads}/a`, oldOid: two, newOid: two }], {
        restarted: false,
        after: [{ do: 'unlink', path: done }],
      }),
      { code: 'failed-precondition' },
    );
    assert.ok(existsSync(done));
    await observed.release(gitDir);
    assert.deepEqual(await syncedBy(create(`${heads}/c`)), ['refs', heads]);
    await observed.close();
  });

  it('changes nothing when one old value is wrong, and names the ref', async () => {
    await refs.commitEither(repository.gitDir, [create('refs/heads/a')]);
    await assert.rejects(
      refs.commitEither(repository.gitDir, [
        create('refs/heads/new'),
        { ref: 'refs/heads/a', oldOid: two, newOid: zero },
        create('refs/heads/other'),
      ]),
      { code: 'failed-precondition', details: { refs: ['refs/heads/a'] } },
    );
    assert.deepEqual(repository.refs(), [`refs/heads/a ${one}`]);
    // The process that said no is gone; the next one works.
    await refs.commitEither(repository.gitDir, [create('refs/heads/new')]);
  });

  it('takes names as data: none becomes a command', async () => {
    await refs.commitEither(repository.gitDir, [create('refs/heads/keep')]);
    for (const ref of [
      `refs/heads/x\ndelete refs/heads/keep`,
      `refs/heads/x ${one} ${zero}\ncommit\nstart\ndelete refs/heads/keep\n`,
      'refs/heads/"x',
      'refs/heads/x y',
    ]) {
      const failures = await refs.dryRun({ gitDir: repository.gitDir, updates: [create(ref)] });
      if (!/[\s]/.test(ref)) assert.equal(failures.size, 0);
      else assert.deepEqual([...failures], [[ref, 'refused']]);
      if (failures.size > 0)
        await assert.rejects(refs.commitEither(repository.gitDir, [create(ref)]));
    }
    for (const ref of ['refs/heads/x\0delete refs/heads/keep\0', 'HEAD', 'main', '']) {
      await assert.rejects(refs.commitEither(repository.gitDir, [create(ref)]), {
        code: 'invalid-argument',
      });
      const failures = await refs.dryRun({ gitDir: repository.gitDir, updates: [create(ref)] });
      assert.equal(failures.get(ref), 'refused');
    }
    assert.deepEqual(repository.refs(), [`refs/heads/keep ${one}`]);
  });

  it('changes the ref that it is told, not the one that a symbolic ref names', async () => {
    const { gitDir } = repository;
    await refs.commitEither(gitDir, [create('refs/heads/main'), create('refs/heads/x')]);
    repository.git(['symbolic-ref', 'refs/heads/link', 'refs/heads/main']);
    await refs.commitEither(gitDir, [{ ref: 'refs/heads/link', oldOid: one, newOid: two }]);
    assert.deepEqual(repository.refs(), [
      `refs/heads/link ${two}`,
      `refs/heads/main ${one}`,
      `refs/heads/x ${one}`,
    ]);
  });

  it('takes only object ids', async () => {
    for (const oid of ['main', `${one}\0`, '', '-x', one.toUpperCase()]) {
      await assert.rejects(refs.commitEither(repository.gitDir, [create('refs/heads/a', oid)]), {
        code: 'invalid-argument',
      });
    }
  });

  it('completes what was half applied, any number of times', async () => {
    const { gitDir } = repository;
    await refs.commitEither(gitDir, [create('refs/heads/a'), create('refs/heads/gone')]);
    const entry: RefCommand[] = [
      { ref: 'refs/heads/a', oldOid: one, newOid: two },
      create('refs/heads/b'),
      { ref: 'refs/heads/gone', oldOid: one, newOid: zero },
    ];
    repository.git(['update-ref', 'refs/heads/b', one]);
    await refs.commitEither(gitDir, entry);
    await refs.commitEither(gitDir, entry);
    const applied = [`refs/heads/a ${two}`, `refs/heads/b ${one}`];
    assert.deepEqual(repository.refs(), applied);

    repository.git(['update-ref', 'refs/heads/b', two]);
    await assert.rejects(refs.commitEither(gitDir, entry), {
      code: 'failed-precondition',
      details: { refs: ['refs/heads/b'] },
    });
  });

  it('removes after a restart a ref of which only packed-refs is left, with an older value', async () => {
    const { gitDir } = repository;
    await refs.commitEither(gitDir, [create('refs/heads/gone'), create('refs/heads/a')]);
    repository.git(['pack-refs', '--all', '--prune']);
    // Its file, with `two`, went; the packed-refs without it did not come to the disk.
    const deletion = [{ ref: 'refs/heads/gone', oldOid: two, newOid: zero }];
    const stale = { code: 'failed-precondition', details: { refs: ['refs/heads/gone'] } };
    await assert.rejects(refs.commitEither(gitDir, deletion), stale);
    await refs.commitEither(gitDir, deletion, { restarted: true });
    await refs.commitEither(gitDir, deletion, { restarted: true });
    assert.deepEqual(repository.refs(), [`refs/heads/a ${one}`]);
    const update = [{ ref: 'refs/heads/a', oldOid: two, newOid: two }];
    await assert.rejects(refs.commitEither(gitDir, update, { restarted: true }), {
      code: 'failed-precondition',
    });
  });

  it('reports what it cannot know as a storage failure when git dies on the way', async () => {
    const dying: GitRunner = {
      ...delegate(git),
      converse: async (command) => killedAfterPrepare(await git.converse(command)),
    };
    const broken = createRefTransactions({ git: dying, clock: realClock });
    await assert.rejects(broken.commitEither(repository.gitDir, [create('refs/heads/a')]), {
      code: 'storage-failure',
    });
    await broken.close();
    await refs.commitEither(repository.gitDir, [create('refs/heads/a')]);
    assert.deepEqual(repository.refs(), [`refs/heads/a ${one}`]);
  });

  it('serialises transactions of one repository and runs others beside them', async () => {
    const other = new TestRepository();
    const foreign = other.commit();
    await Promise.all(
      Array.from({ length: 20 }, (_, index) => [
        refs.commitEither(repository.gitDir, [create(`refs/heads/n${index}`)]),
        refs.commitEither(other.gitDir, [create(`refs/heads/n${index}`, foreign)]),
      ]).flat(),
    );
    assert.equal(repository.refs().length, 20);
    assert.equal(other.refs().length, 20);
    await refs.release(other.gitDir);
    other.remove();
  });

  it('keeps a bounded number of processes', async () => {
    const small = createRefTransactions({ git, clock: realClock, maxOpen: 2 });
    const others = Array.from({ length: 5 }, () => new TestRepository());
    await Promise.all(
      others.map((each) =>
        small.commitEither(each.gitDir, [create('refs/heads/a', each.commit())]),
      ),
    );
    for (const each of others) {
      assert.equal(each.refs().length, 1);
      await small.commitEither(each.gitDir, [{ ...create('refs/heads/b'), newOid: each.commit() }]);
    }
    // Those that gave way are just ending.
    await until('the others to end', () => git.running <= 3);
    await small.close();
    for (const each of others) each.remove();
  });

  it('creates thousands of refs at once', async () => {
    const updates = Array.from({ length: 3_000 }, (_, index) => create(`refs/tags/t${index}`));
    assert.equal((await refs.dryRun({ gitDir: repository.gitDir, updates })).size, 0);
    await refs.commitEither(repository.gitDir, updates);
    assert.equal(repository.refs().length, 3_000);
  });

  it('points HEAD at a branch, born or not, and at nothing else', async () => {
    const { gitDir } = repository;
    await refs.setHead(gitDir, 'refs/heads/unborn/ü');
    assert.equal(readFileSync(join(gitDir, 'HEAD'), 'utf8'), 'ref: refs/heads/unborn/ü\n');
    assert.equal(existsSync(join(gitDir, 'HEAD.lock')), false);
    for (const branch of [
      'main',
      'refs/tags/x',
      'refs/heads/',
      'refs/heads/a\nb',
      'refs/heads/../x',
      'refs/heads/.x',
      'refs/heads/a.lock',
      'refs/heads/a.lock/b',
      'refs/heads/a/',
      'refs/heads/a//b',
      'refs/heads/a@{b',
    ]) {
      await assert.rejects(refs.setHead(gitDir, branch), { code: 'invalid-argument' }, branch);
    }
  });

  it('leaves HEAD alone when the branch that it names moves', async () => {
    for (const format of ['sha1', 'sha256'] as const) {
      const other = new TestRepository(format);
      const commit = other.commit();
      const old = '0'.repeat(commit.length);
      writeFileSync(join(other.gitDir, 'HEAD.lock'), '');
      const update = { ref: 'refs/heads/main', oldOid: old, newOid: commit };
      const judgingDirectory = join(other.directory, 'judging');
      const dryRun = { gitDir: other.gitDir, updates: [update], judgingDirectory };
      assert.deepEqual(await refs.dryRun(dryRun), new Map());
      await refs.commitEither(other.gitDir, [update]);
      assert.equal(other.git(['rev-parse', 'HEAD']), commit);
      await refs.release(other.gitDir);
      other.remove();
    }
  });

  it('writes names that are of each working tree where all others are', async () => {
    const { gitDir } = repository;
    const names = ['refs/bisect/a', 'refs/heads/b', 'refs/rewritten/c', 'refs/worktree/d'];
    await refs.commitEither(gitDir, [create('refs/heads/main')]);
    await refs.commitEither(
      gitDir,
      names.map((name) => create(name)),
    );
    for (const name of names) {
      assert.equal(readFileSync(join(gitDir, name), 'utf8').trim(), one);
      await refs.commitEither(gitDir, [{ ref: name, oldOid: one, newOid: two }]);
      assert.equal(readFileSync(join(gitDir, name), 'utf8').trim(), two);
    }
  });

  it('waits for a lock that is held, and removes those of a killed git on recovery', async () => {
    const { gitDir } = repository;
    await refs.commitEither(gitDir, [create('refs/heads/main'), create('refs/heads/x')]);
    mkdirSync(join(gitDir, 'refs/heads/dir'));
    for (const name of [
      'HEAD.lock',
      'packed-refs.lock',
      'refs/heads/x.lock',
      'refs/heads/dir/y.lock',
    ]) {
      writeFileSync(join(gitDir, name), '');
    }
    assert.equal(await removeStaleLocks(gitDir), 4);
    assert.equal(await removeStaleLocks(gitDir), 0);
    await refs.commitEither(gitDir, [{ ref: 'refs/heads/x', oldOid: one, newOid: zero }]);

    writeFileSync(join(gitDir, 'refs/heads/main.lock'), '');
    const waiting = refs.commitEither(gitDir, [
      { ref: 'refs/heads/main', oldOid: one, newOid: two },
    ]);
    // Meanwhile another repository is served; then the holder lets go.
    await git.run({ args: ['version'] });
    await removeStaleLocks(gitDir);
    await waiting;
    assert.deepEqual(repository.refs(), [`refs/heads/main ${two}`]);
  });

  describe('dry run', () => {
    const cases: {
      desc: string;
      updates: (known: { one: Oid; two: Oid; tree: Oid }) => RefCommand[];
      failures: Record<string, string>;
    }[] = [
      { desc: 'nothing', updates: () => [], failures: {} },
      {
        desc: 'all fine',
        updates: ({ two }) => [create('refs/heads/n', two)],
        failures: {},
      },
      {
        desc: 'stale values',
        updates: ({ one, two }) => [
          { ref: 'refs/heads/a', oldOid: two, newOid: one },
          create('refs/heads/a2', one),
          create('refs/heads/b', one),
          { ref: 'refs/heads/none', oldOid: one, newOid: zero },
        ],
        failures: { 'refs/heads/a': 'stale', 'refs/heads/b': 'stale', 'refs/heads/none': 'stale' },
      },
      {
        desc: 'a name below a ref, and one above',
        updates: ({ one }) => [
          create('refs/heads/a/x', one),
          create('refs/heads/dir', one),
          create('refs/heads/fine', one),
        ],
        failures: { 'refs/heads/a/x': 'name-conflict', 'refs/heads/dir': 'name-conflict' },
      },
      {
        desc: 'delete a and create a/b in one',
        updates: ({ one }) => [
          { ref: 'refs/heads/a', oldOid: one, newOid: zero },
          create('refs/heads/a/b', one),
        ],
        failures: { 'refs/heads/a/b': 'name-conflict' },
      },
      {
        desc: 'two new names of which one is the directory of the other',
        updates: ({ one }) => [create('refs/heads/q', one), create('refs/heads/q/r', one)],
        failures: { 'refs/heads/q': 'name-conflict', 'refs/heads/q/r': 'name-conflict' },
      },
      {
        desc: 'what git does not take',
        updates: ({ one, tree }) => [
          create('refs/heads/ok', one),
          create('refs/heads/tree', tree),
          create('refs/heads/missing', '1'.repeat(40)),
          create('refs/heads/bad..name', one),
          create('refs/heads/x.lock', one),
          create('refs/tags/tree', tree),
        ],
        failures: {
          'refs/heads/tree': 'refused',
          'refs/heads/missing': 'refused',
          'refs/heads/bad..name': 'refused',
          'refs/heads/x.lock': 'refused',
        },
      },
      {
        desc: 'a ref given twice',
        updates: ({ one, two }) => [
          create('refs/heads/twice', one),
          create('refs/heads/twice', two),
          create('refs/heads/once', two),
        ],
        failures: { 'refs/heads/twice': 'refused' },
      },
    ];
    for (const { desc, updates, failures } of cases) {
      it(desc, async () => {
        const { gitDir, tree } = repository;
        const existing = ['refs/heads/a', 'refs/heads/b', 'refs/heads/dir/sub'];
        await refs.commitEither(
          gitDir,
          existing.map((ref) => create(ref)),
        );
        const commands = updates({ one, two, tree });
        const found = await refs.dryRun({ gitDir, updates: commands });
        assert.deepEqual(Object.fromEntries(found), failures);
        assert.equal(repository.refs().length, existing.length);
        assert.equal(await removeStaleLocks(gitDir), 0);
        // What it let pass does apply, all together.
        await refs.commitEither(
          gitDir,
          commands.filter(({ ref }) => !found.has(ref)),
        );
      });
    }

    it('sees the objects of a quarantine, and only there', async () => {
      const quarantine = join(repository.directory, 'quarantine "x": y');
      mkdirSync(quarantine);
      const secret = repository.commit([], repository.tree, {
        GIT_OBJECT_DIRECTORY: quarantine,
        GIT_ALTERNATE_OBJECT_DIRECTORIES: repository.objectsDir,
      });
      const updates = [create('refs/heads/a', secret), create('refs/heads/b', one)];
      const { gitDir } = repository;
      const inside = await refs.dryRun({ gitDir, updates, objectDirectory: quarantine });
      assert.equal(inside.size, 0);
      const alternates = [quarantine, repository.objectsDir];
      assert.equal((await refs.dryRun({ gitDir, updates, alternates })).size, 0);
      const outside = await refs.dryRun({ gitDir, updates });
      assert.deepEqual([...outside], [['refs/heads/a', 'refused']]);
    });
  });
});

function delegate(git: GitRunner): GitRunner {
  return {
    version: git.version,
    running: git.running,
    conversations: git.conversations,
    run: (command) => git.run(command),
    stream: (command) => git.stream(command),
    converse: (command) => git.converse(command),
    program: (command) => git.program(command),
    close: () => git.close(),
  };
}

/** Lets `commit` not reach git, as if it had died after `prepare`. */
function killedAfterPrepare(conversation: GitConversation): GitConversation {
  return {
    stdout: conversation.stdout,
    exited: conversation.exited,
    left: conversation.left,
    kill: () => conversation.kill(),
    end: () => conversation.end(),
    write: async (bytes) => {
      await conversation.write(String(Buffer.from(bytes)).replace('commit\0start\0', 'prepare\0'));
      conversation.stdout.on('data', (chunk) => {
        if (String(chunk).includes('prepare: ok')) conversation.kill();
      });
    },
  };
}
