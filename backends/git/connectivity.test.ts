import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Oid } from '../contract/objects.js';
import { firstUnreachable, isFastForward } from './ancestry.js';
import { findUnconnected, isConnected } from './connectivity.js';
import type { GitRunner } from './git-runner.js';
import { createObjectReader, type ObjectReader } from './object-reader.js';
import { createGitRunner } from './runner.js';
import { limitGit } from './testing/limited-git.js';
import { noMeter, quietLogger, realClock, TestRepository } from './testing/repository.js';

let git: GitRunner;
let repository: TestRepository;
let objects: ObjectReader;
before(async () => {
  git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  repository = new TestRepository();
  objects = createObjectReader({ git, clock: realClock });
});
after(async () => {
  await objects.close();
  await git.close();
  repository.remove();
});

describe('connectivity', () => {
  it('walks new objects down to what is known', async () => {
    const base = repository.commit();
    const tip = repository.commit([base]);
    const { gitDir } = repository;
    const check = { git, gitDir, newOids: [tip], knownTips: [base] };
    assert.deepEqual(await findUnconnected(check), { connected: true, unconnected: [] });
    assert.equal((await findUnconnected({ ...check, newOids: [] })).connected, true);
  });

  it('walks once for who need not know what is at fault', async () => {
    const tips = [repository.commit(), 'a'.repeat(40), repository.commit(), 'b'.repeat(40)];
    let walks = 0;
    const counting: GitRunner = {
      ...git,
      run: (command) => {
        walks += 1;
        return git.run(command);
      },
    };
    const check = { git: counting, gitDir: repository.gitDir, newOids: tips, knownTips: [] };
    assert.equal(await isConnected(check), false);
    assert.equal(walks, 1);
    assert.deepEqual((await findUnconnected(check)).unconnected, [tips[1], tips[3]]);
    assert.equal(await isConnected({ ...check, newOids: [] }), true);
  });

  it('says nothing of objects that git had no memory, or no files, to read', async () => {
    const limited = limitGit();
    const short = await createGitRunner({ logger: quietLogger, meter: noMeter });
    try {
      const tip = repository.commit();
      const check = { git: short, gitDir: repository.gitDir, newOids: [tip], knownTips: [] };
      for (const limit of ['ulimit -v 1000', 'ulimit -n 3', 'kill -9 $$']) {
        limited.limit('rev-list', limit);
        await assert.rejects(findUnconnected(check), { code: 'storage-failure' }, limit);
      }
      limited.limit('rev-list');
      assert.equal((await findUnconnected(check)).connected, true);
    } finally {
      await short.close();
      limited.remove();
    }
  });

  it('does not take what is pushed for words of the machine', async () => {
    const content = `object ${repository.commit()}\ntype x: out of memory\ntag a\n\n`;
    const write = ['hash-object', '-t', 'tag', '-w', '--literally', '--stdin'];
    const tag = repository.git(write, content);
    const check = { git, gitDir: repository.gitDir, newOids: [tag], knownTips: [] };
    assert.equal((await findUnconnected(check)).connected, false);
  });

  const holes: { desc: string; make: () => { whole: Oid; broken: Oid; lost: Oid } }[] = [
    {
      desc: 'a missing blob',
      make: () => {
        const blob = repository.git(['hash-object', '-w', '--stdin'], 'lost blob');
        const tree = repository.git(['mktree'], `100644 blob ${blob}\tf\n`);
        return { whole: repository.commit(), broken: repository.commit([], tree), lost: blob };
      },
    },
    {
      desc: 'a missing tree',
      make: () => {
        const blob = repository.git(['hash-object', '-w', '--stdin'], 'kept blob');
        const tree = repository.git(['mktree'], `100644 blob ${blob}\tlost\n`);
        return { whole: repository.commit(), broken: repository.commit([], tree), lost: tree };
      },
    },
    {
      desc: 'a missing parent',
      make: () => {
        const parent = repository.commit();
        return { whole: repository.commit(), broken: repository.commit([parent]), lost: parent };
      },
    },
    {
      desc: 'a tag of a missing commit',
      make: () => {
        const commit = repository.commit();
        return { whole: repository.commit(), broken: repository.tag('x', commit), lost: commit };
      },
    },
    {
      desc: 'the new value itself',
      make: () => {
        const commit = repository.commit();
        return { whole: repository.commit(), broken: commit, lost: commit };
      },
    },
  ];
  for (const { desc, make } of holes) {
    it(`finds ${desc}, and whose it is`, async () => {
      const { whole, broken, lost } = make();
      const { gitDir } = repository;
      const check = { git, gitDir, newOids: [whole, broken], knownTips: [] };
      assert.equal((await findUnconnected(check)).connected, true);
      rmSync(join(repository.objectsDir, lost.slice(0, 2), lost.slice(2)));
      assert.deepEqual(await findUnconnected(check), { connected: false, unconnected: [broken] });
    });
  }

  it('looks into the quarantine that it is given', async () => {
    const quarantine = join(repository.directory, 'quarantine');
    mkdirSync(quarantine);
    const base = repository.commit();
    const tip = repository.commit([base], repository.tree, {
      GIT_OBJECT_DIRECTORY: quarantine,
      GIT_ALTERNATE_OBJECT_DIRECTORIES: repository.objectsDir,
    });
    const { gitDir } = repository;
    const check = { git, gitDir, newOids: [tip], knownTips: [base] };
    assert.equal(
      (await findUnconnected({ ...check, objectDirectory: quarantine })).connected,
      true,
    );
    assert.equal((await findUnconnected(check)).connected, false);
    const update = { git, gitDir, oldOid: base, newOid: tip };
    assert.equal(await isFastForward({ ...update, objectDirectory: quarantine }), true);
    assert.equal(await isFastForward(update), false);
  });

  it('takes only object ids', async () => {
    const { gitDir } = repository;
    for (const oid of ['--all', 'HEAD', `${'1'.repeat(40)}\n--all`]) {
      await assert.rejects(findUnconnected({ git, gitDir, newOids: [oid], knownTips: [] }), {
        code: 'invalid-argument',
      });
      await assert.rejects(
        findUnconnected({ git, gitDir, newOids: ['1'.repeat(40)], knownTips: [oid] }),
        {
          code: 'invalid-argument',
        },
      );
    }
  });
});

describe('ancestry', () => {
  it('judges fast-forwards', async () => {
    const base = repository.commit();
    const tip = repository.commit([base]);
    const other = repository.commit();
    const { gitDir, tree } = repository;
    const judge = (oldOid: Oid, newOid: Oid): Promise<boolean> =>
      isFastForward({ git, gitDir, oldOid, newOid });
    assert.deepEqual(
      await Promise.all([
        judge(base, tip),
        judge(tip, tip),
        judge(tip, base),
        judge(other, tip),
        judge(base, tree),
        judge(base, '1'.repeat(40)),
      ]),
      [true, true, false, false, false, false],
    );
  });

  it('finds the first want that no tip reaches', async () => {
    const { gitDir, tree } = repository;
    const base = repository.commit();
    const tip = repository.commit([base]);
    const loose = repository.commit([base]);
    const inner = repository.tag('inner', base);
    const outer = repository.tag('outer', inner, 'tag');
    const stray = repository.tag('stray', base);
    const first = (wants: Oid[], tips: Oid[]): Promise<Oid | undefined> =>
      firstUnreachable({ git, objects, gitDir, wants, tips });
    assert.equal(await first([], []), undefined);
    assert.equal(await first([base, tip], [tip]), undefined);
    assert.equal(await first([base, loose, tip], [tip]), loose);
    assert.equal(await first([base], []), base);
    assert.equal(await first([inner, outer], [outer]), undefined);
    // Its commit is reachable; the tag is not.
    assert.equal(await first([base, stray], [tip, outer]), stray);
    assert.equal(await first([tree], [tip]), tree);
    assert.equal(await first(['1'.repeat(40)], [tip]), '1'.repeat(40));
    // A tip that is a tree or a blob reaches no commit, and does no harm.
    assert.equal(await first([base], [tree, tip]), undefined);
    assert.equal(await first([inner], [tree, outer, tip]), undefined);
  });

  it('is not misled by commit dates', async () => {
    const { gitDir, tree } = repository;
    const at = (date: number, parents: Oid[]): Oid =>
      repository.commit(parents, tree, { GIT_COMMITTER_DATE: `${date} +0000` });
    const young = at(2_000_000_000, []);
    const want = at(1_000_000_000, [young]);
    const tip = at(1_500_000_000, []);
    const check = { git, objects, gitDir, tips: [tip] };
    assert.equal(await firstUnreachable({ ...check, wants: [want] }), want);
    assert.equal(await firstUnreachable({ ...check, wants: [tip, want] }), want);
  });

  it('answers for many wants with a bounded number of processes', async () => {
    const { gitDir } = repository;
    const chain: Oid[] = [];
    for (let n = 0; n < 30; n++) chain.push(repository.commit(chain.slice(-1)));
    const started: string[] = [];
    const counting: GitRunner = {
      ...git,
      version: git.version,
      running: 0,
      conversations: git.conversations,
      run: (command) => {
        started.push(command.args[0] ?? '');
        return git.run(command);
      },
    };
    const wants = chain.slice(0, -1);
    const tips = chain.slice(-1);
    const check = { git: counting, objects, gitDir, wants, tips };
    assert.equal(await firstUnreachable(check), undefined);
    assert.deepEqual(started, ['rev-list']);
  });
});
