import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { digestOf } from './digest.js';
import { parseRefListing } from './ref-listing.js';
import { compareBytewise } from './ref-order.js';
import { createRefSnapshot, nextSnapshot, readRefSnapshot } from './ref-snapshot.js';
import { readRefsOnDisk } from './refs-on-disk.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, TestRepository, zero } from './testing/repository.js';

describe('ref snapshot', () => {
  let git: GitRunner;
  before(async () => {
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  });
  after(() => git.close());

  it('of an empty repository has an unborn HEAD', async () => {
    await withRepository(async ({ gitDir }) => {
      const snapshot = await readRefSnapshot({ git, gitDir, generation: 7 });
      assert.deepEqual(
        [snapshot.generation, snapshot.head, snapshot.refs],
        [7, { symref: 'refs/heads/main' }, []],
      );
    });
  });

  it('peels tags of tags, follows symbolic refs, reads loose and packed refs', async () => {
    await withRepository(async (repository) => {
      const commit = repository.commit();
      const inner = repository.tag('inner', commit);
      const outer = repository.tag('outer', inner, 'tag');
      repository.git(['update-ref', 'refs/heads/main', commit]);
      repository.git(['update-ref', 'refs/tags/outer', outer]);
      repository.git(['update-ref', 'refs/tags/inner', inner]);
      repository.git(['symbolic-ref', 'refs/remotes/o/HEAD', 'refs/heads/main']);
      const expected = [
        { name: 'refs/heads/main', oid: commit },
        { name: 'refs/remotes/o/HEAD', oid: commit, symref: 'refs/heads/main' },
        { name: 'refs/tags/inner', oid: inner, peeled: commit },
        { name: 'refs/tags/outer', oid: outer, peeled: commit },
      ];
      const { gitDir } = repository;
      const loose = await readRefSnapshot({ git, gitDir, generation: 1 });
      assert.deepEqual(loose.refs, expected);
      repository.git(['pack-refs', '--all']);
      const packed = await readRefSnapshot({ git, gitDir, generation: 1 });
      assert.deepEqual(packed.refs, expected);
      assert.deepEqual(packed.head, { symref: 'refs/heads/main' });
    });
  });

  it('shows refs that the repository hides, and a detached HEAD', async () => {
    await withRepository(async (repository) => {
      const commit = repository.commit();
      repository.git(['update-ref', 'refs/heads/main', commit]);
      repository.git(['update-ref', 'refs/internal/x', commit]);
      repository.git(['config', 'transfer.hideRefs', 'refs/internal']);
      repository.git(['config', 'uploadpack.hideRefs', 'refs/']);
      repository.git(['update-ref', '--no-deref', 'HEAD', commit]);
      const snapshot = await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 });
      assert.deepEqual(
        snapshot.refs.map(({ name }) => name),
        ['refs/heads/main', 'refs/internal/x'],
      );
      assert.deepEqual(snapshot.head, { oid: commit });
    });
  });

  it('leaves broken and dangling refs out, and keeps one whose object is missing', async () => {
    await withRepository(async (repository) => {
      repository.git(['update-ref', 'refs/heads/main', repository.commit()]);
      const files = {
        'refs/heads/garbage': 'not an object id\n',
        'refs/heads/empty': '',
        'refs/heads/missing': `${'1'.repeat(40)}\n`,
        'refs/heads/dangling': 'ref: refs/heads/nowhere\n',
        'refs/heads/bad..name': `${'1'.repeat(40)}\n`,
      };
      for (const [name, content] of Object.entries(files)) {
        mkdirSync(dirname(join(repository.gitDir, name)), { recursive: true });
        writeFileSync(join(repository.gitDir, name), content);
      }
      const snapshot = await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 });
      assert.deepEqual(
        snapshot.refs.map(({ name }) => name),
        ['refs/heads/main', 'refs/heads/missing'],
      );
      // What names a broken ref, or what git can take for no ref.
      for (const name of ['garbage', 'mai~', 'main.', 'main.lock', 'a//b']) {
        writeFileSync(join(repository.gitDir, 'HEAD'), `ref: refs/heads/${name}\n`);
        await assert.rejects(readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 }), {
          code: 'data-corrupt',
        });
      }
      writeFileSync(join(repository.gitDir, 'HEAD'), 'garbage\n');
      await assert.rejects(readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 }), {
        code: 'storage-failure',
      });
    });
  });

  it('is told without git as well, whatever the names', async () => {
    await withRepository(async (repository) => {
      const commit = repository.commit();
      const names = ['main', 'a\u{2028}b', 'a\u{85}b', '\u{fffd}', '\u{feff}', "it's", '\u{1f600}'];
      for (const name of names) repository.git(['update-ref', `refs/heads/${name}`, commit]);
      repository.git(['tag', '-a', '-m', 'x', 'v1', commit]);
      for (const packed of [false, true]) {
        if (packed) repository.git(['pack-refs', '--all']);
        const snapshot = await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 });
        const { head, refs } = await readRefsOnDisk(repository.gitDir);
        assert.ok(head);
        const onDisk = createRefSnapshot({ generation: 1, head, refs });
        assert.equal(snapshot.refs.length, names.length + 1);
        assert.equal(digestOf(onDisk), digestOf(snapshot), packed ? 'packed' : 'loose');
      }
    });
  });

  it('of a SHA-256 repository', async () => {
    await withRepository(async (repository) => {
      const commit = repository.commit();
      repository.git(['update-ref', 'refs/heads/main', commit]);
      const snapshot = await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 });
      assert.deepEqual(snapshot.refs, [{ name: 'refs/heads/main', oid: commit }]);
      assert.equal(commit.length, 64);
    }, 'sha256');
  });

  it('sorts 50,000 refs as git does, by bytes, and finds each', async () => {
    await withRepository(async (repository) => {
      const commit = repository.commit();
      const odd = ['\u{e9}', '\u{ff5e}', '\u{fffd}', '\u{1f600}', 'a-b', 'a/b', 'a.b', 'Z'];
      const names = [
        ...odd.map((name) => `refs/heads/${name}`),
        ...Array.from({ length: 50_000 }, (_, index) => `refs/tags/t${index}`),
      ];
      const sorted = names.map((name) => Buffer.from(name)).sort((a, b) => Buffer.compare(a, b));
      writeFileSync(
        join(repository.gitDir, 'packed-refs'),
        `# pack-refs with: peeled fully-peeled sorted \n${sorted.map((name) => `${commit} ${name.toString()}\n`).join('')}`,
      );
      const snapshot = await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 });
      assert.deepEqual(
        snapshot.refs.map(({ name }) => name),
        repository.git(['for-each-ref', '--format=%(refname)']).split('\n'),
      );
      for (const name of names) assert.equal(snapshot.find(name)?.name, name);
    });
  });

  it('refuses a listing that was cut short', () => {
    const line = `${'a'.repeat(40)} refs/heads/m\n`;
    const good = Buffer.from(`${(line.length + 4).toString(16).padStart(4, '0')}${line}0000`);
    assert.equal(parseRefListing(good).refs.length, 1);
    for (let end = 0; end < good.length; end++) {
      assert.throws(() => parseRefListing(good.subarray(0, end)), { code: 'storage-failure' });
    }
  });
});

describe('snapshot in memory', () => {
  const head = { symref: 'refs/heads/main' };

  it('compares names by their bytes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), (a, b) => {
        const expected = Buffer.compare(Buffer.from(a), Buffer.from(b));
        assert.equal(Math.sign(compareBytewise(a, b)), expected);
      }),
    );
    assert.ok(compareBytewise('\u{ff5e}', '\u{1f600}') < 0);
  });

  it('finds ranges of a prefix', () => {
    const unit = fc.constantFrom('a', 'b', '/', '\u{ff5e}', '\u{1f600}');
    const name = fc.string({ unit, maxLength: 4 });
    fc.assert(
      fc.property(fc.uniqueArray(name, { maxLength: 20 }), name, (names, prefix) => {
        const refs = names.map((each) => ({ name: each, oid: oid(1) }));
        const snapshot = createRefSnapshot({ generation: 1, head, refs });
        const [start, end] = snapshot.prefixRange(prefix);
        assert.deepEqual(
          snapshot.refs.slice(start, end).map((each) => each.name),
          snapshot.refs.map((each) => each.name).filter((each) => each.startsWith(prefix)),
        );
      }),
    );
  });

  it('knows its tips', () => {
    const snapshot = createRefSnapshot({
      generation: 1,
      head,
      refs: [{ name: 'refs/tags/t', oid: oid(1), peeled: oid(2) }],
    });
    assert.deepEqual(
      [1, 2].map((digit) => snapshot.hasTip(oid(digit))),
      [true, false],
    );
  });

  it('moves on: tags are peeled, symbolic refs follow, the old one stays', () => {
    const before = createRefSnapshot({
      generation: 1,
      head,
      refs: [
        { name: 'refs/heads/main', oid: oid(1) },
        { name: 'refs/heads/x', oid: oid(1) },
        { name: 'refs/remotes/main', oid: oid(1), symref: 'refs/heads/main' },
        { name: 'refs/remotes/x', oid: oid(1), symref: 'refs/heads/x' },
      ],
    });
    const next = nextSnapshot(before, {
      generation: 2,
      updates: [
        { ref: 'refs/heads/main', oldOid: oid(1), newOid: oid(2) },
        { ref: 'refs/heads/x', oldOid: oid(1), newOid: zero },
        { ref: 'refs/tags/t', oldOid: zero, newOid: oid(3) },
      ],
      head: { symref: 'refs/heads/other' },
      peeled: new Map([[oid(3), oid(2)]]),
    });
    assert.deepEqual(next.refs, [
      { name: 'refs/heads/main', oid: oid(2) },
      { name: 'refs/remotes/main', oid: oid(2), symref: 'refs/heads/main' },
      { name: 'refs/tags/t', oid: oid(3), peeled: oid(2) },
    ]);
    assert.deepEqual([next.generation, next.head], [2, { symref: 'refs/heads/other' }]);
    assert.equal(before.refs.length, 4);
    assert.equal(before.find('refs/heads/main')?.oid, oid(1));
  });
});

function oid(digit: number): Oid {
  return String(digit).repeat(40);
}

async function withRepository(
  test: (repository: TestRepository) => Promise<void>,
  format: 'sha1' | 'sha256' = 'sha1',
): Promise<void> {
  const repository = new TestRepository(format);
  try {
    await test(repository);
  } finally {
    repository.remove();
  }
}
