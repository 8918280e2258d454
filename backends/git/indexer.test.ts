import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createPackIndexer } from './indexer.js';
import type { PackIndexer } from './pack-indexer.js';
import { buildPack, copyDelta, objectId, sealPack } from './testing/build-pack.js';
import {
  createFixture,
  idleMeter,
  silentLogger,
  type Ending,
  type Fixture,
} from './testing/indexer-fixture.js';
import { until } from '../contract/testing/until.js';

let fixture: Fixture;
let both: PackIndexer;
let gitOnly: PackIndexer;
/** A push of two commits and a tag, with a delta against the repository's blob, made by git. */
let thin: Buffer;
let thick: Buffer;
/** All of the history, from its first commit. */
let whole: Buffer;
let baseBlob: string;

before(async () => {
  fixture = await createFixture();
  const { git } = fixture;
  both = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 1 });
  gitOnly = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 0 });
  const text = Array.from({ length: 2000 }, (_, i) => `line ${i}\n`).join('');
  const first = commit({ 'big.txt': text }, []);
  fixture.run(['update-ref', 'refs/heads/main', first]);
  baseBlob = fixture.run(['rev-parse', 'main:big.txt']).toString().trim();
  const second = commit({ 'big.txt': `${text}more\n`, '.gitattributes': '*.c text\n' }, [first]);
  const third = commit({ 'big.txt': `${text}more and more\n`, '.gitignore': 'x\n' }, [second]);
  thin = packObjects(['--thin', '--revs'], `${third}\n^${first}\n`);
  thick = packObjects(['--revs'], `${third}\n^${first}\n`);
  whole = packObjects(['--revs'], `${third}\n`);
  // What the tests push must not be there before.
  fixture.run(['prune', '--expire=now']);
});

after(async () => {
  await both.close();
  await gitOnly.close();
  await fixture.close();
});

function commit(files: Record<string, string>, parents: string[]): string {
  const entries = Object.keys(files)
    .sort()
    .map((name) => `100644 blob ${fixture.write('blob', files[name] ?? '')}\t${name}\n`);
  const tree = fixture.run(['mktree'], entries.join('')).toString().trim();
  const options = parents.flatMap((parent) => ['-p', parent]);
  return fixture
    .run(['commit-tree', tree, '-m', 'x', ...options])
    .toString()
    .trim();
}

function packObjects(options: string[], input: string): Buffer {
  return fixture.run(['pack-objects', '--stdout', '-q', ...options], input);
}

/** Names nothing at all, and yet what it stands on was in the repository. */
function thinBlob(): Buffer {
  const baseBytes = fixture.run(['cat-file', 'blob', baseBlob]).length;
  const delta = copyDelta({ baseBytes, resultBytes: 5, copyBytes: 5, times: 1 });
  return buildPack([{ type: 'ref-delta', base: baseBlob, delta }]);
}

const blob = (text: string) => ({ type: 'blob', content: Buffer.from(text) }) as const;

/** Indexes with both, requires the same ending, and gives the first one's. */
async function sameEnding(
  pack: Uint8Array,
  more: Parameters<Fixture['index']>[2] = {},
): Promise<Ending> {
  const one = await fixture.index(both, pack, more);
  const other = await fixture.index(gitOnly, pack, more);
  assert.equal(one.code, other.code, `${one.message} / ${other.message}`);
  assert.equal(one.result?.objectCount, other.result?.objectCount);
  assert.equal(one.result?.name === undefined, other.result?.name === undefined);
  return one;
}

describe('packs that are taken', () => {
  test('the description names both engines', () => {
    assert.match(both.description, /^libgit2 1\.\d+\.\d+ \+ git \d/);
    assert.match(gitOnly.description, /^git \d\S* \(libgit2 off\)$/);
  });

  for (const [desc, pack, count] of [
    ['thick', () => thick, 8],
    ['thin, completed with its base', () => thin, 9],
    ['one blob', () => buildPack([blob('hello')]), 1],
    ['version 3', () => buildPack([blob('hello')], { version: 3 }), 1],
  ] as const) {
    test(desc, async () => {
      const { result, files } = await sameEnding(pack());
      assert.ok(result?.name);
      assert.equal(result.objectCount, count);
      assert.deepEqual(files, [`${result.name}.idx`, `${result.name}.pack`]);
      assert.equal(result.engine, desc === 'version 3' ? 'git' : 'libgit2');
    });
  }

  for (const [desc, pack, selfContained] of [
    ['a history from its first commit', () => whole, true],
    ['commits on one that the repository has', () => thick, undefined],
    ['a thin pack, completed from the repository', () => thin, undefined],
    ['a blob that a delta completes from the repository', () => thinBlob(), undefined],
  ] as const) {
    test(`git tells whether a pack stands alone: ${desc}`, async () => {
      const { result } = await fixture.index(gitOnly, pack());
      assert.ok(result?.name);
      assert.equal(result.selfContained, selfContained);
    });
  }

  test('without fsck rules nothing is said of standing alone', async () => {
    const { result } = await fixture.index(gitOnly, whole, {
      fsck: { enabled: false, ignore: [] },
    });
    assert.ok(result?.name);
    assert.equal(result.selfContained, undefined);
  });

  for (const name of ['both', 'gitOnly'] as const) {
    test(`what ${name} stores is a sound pack of the size it says`, async () => {
      const indexer = name === 'both' ? both : gitOnly;
      const kept: string[] = [];
      const indexed = await indexer.index({
        pack: oneChunk(thin),
        quarantinePackDir: fixture.packDir,
        objectsDir: fixture.objectsDir,
        objectFormat: 'sha1',
        maxPackBytes: thin.byteLength,
        maxObjectBytes: 1_000_000,
        fsck: { enabled: true, ignore: ['zeroPaddedFilemode', 'notKnownToGit'] },
        signal: new AbortController().signal,
        progress: (text) => kept.push(Buffer.from(text).toString()),
      });
      const base = join(fixture.packDir, indexed.name ?? '');
      const verified = fixture.run(['verify-pack', '-v', `${base}.idx`]).toString();
      assert.ok(verified.includes(baseBlob), 'the base is in the pack');
      assert.equal(indexed.sizeBytes, statSync(`${base}.pack`).size);
      if (name === 'gitOnly') assert.match(kept.join(''), /^Resolving deltas: /);
      assert.ok(kept.every((line) => line.startsWith('Resolving deltas')));
      for (const file of readdirSync(fixture.packDir)) rmSync(join(fixture.packDir, file));
    });
  }

  test('libgit2 finds what came since it looked last, and what was packed anew', async () => {
    await fixture.index(both, thick);
    let parent = fixture.run(['rev-parse', 'main']).toString().trim();
    for (const round of ['loose', 'packed']) {
      const child = commit({ [round]: `${round}\n` }, [parent]);
      fixture.run(['update-ref', `refs/heads/${round}`, child]);
      if (round === 'packed') fixture.run(['repack', '-a', '-d', '-q']);
      const pushed = commit({ [round]: `${round}\n`, more: `${round}\n` }, [child]);
      const pack = packObjects(['--thin', '--revs'], `${pushed}\n^${child}\n`);
      const { result } = await fixture.index(both, pack);
      assert.equal(result?.engine, 'libgit2');
      assert.deepEqual(result.closure, { commits: [pushed], tags: [], boundary: [child] });
      parent = child;
    }
  });

  test('an empty pack leaves nothing and has no name', async () => {
    const { result, files } = await sameEnding(buildPack([]));
    assert.deepEqual(
      { ...result, engine: '' },
      { name: undefined, objectCount: 0, sizeBytes: 0, engine: '' },
    );
    assert.deepEqual(files, []);
  });

  test('a pack above the threshold goes to git, also past the chunk that crosses it', async () => {
    const small = await createPackIndexer({
      git: fixture.git,
      logger: silentLogger,
      meter: idleMeter,
      workers: 1,
      smallPackBytes: 100,
    });
    try {
      const { result } = await fixture.index(small, thick);
      assert.equal(result?.engine, 'git');
      assert.equal(result?.objectCount, 8);
    } finally {
      await small.close();
    }
  });

  test('sha256 repositories are served by git', async () => {
    const other = await createFixture('sha256');
    try {
      const oid = other.write('blob', 'hello');
      const pack = other.run(['pack-objects', '--stdout', '-q'], `${oid}\n`);
      const ending = await other.index(both, pack);
      assert.equal(ending.result?.engine, 'git', ending.message);
      const empty = await other.index(both, other.run(['pack-objects', '--stdout', '-q']));
      assert.equal(empty.result?.name, undefined);
      assert.equal(empty.code, undefined);
    } finally {
      await other.close();
    }
  });

  test('without libgit2 git does everything, and the description says so', async () => {
    const without = await createPackIndexer({
      git: fixture.git,
      logger: silentLogger,
      meter: idleMeter,
      libraryNames: ['libgit2-that-is-not-there.so'],
    });
    assert.match(without.description, /^git \S+ \(libgit2 not found\)$/);
    const { result } = await fixture.index(without, thin);
    assert.equal(result?.engine, 'git');
    await without.close();
  });
});

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function flipped(pack: Buffer, at: number): Buffer {
  const copy = Buffer.from(pack);
  copy[at] = (copy[at] ?? 0) ^ 0xff;
  return copy;
}

const delta = copyDelta({ baseBytes: 5, resultBytes: 5, copyBytes: 5, times: 1 });
const unknown = '12'.repeat(20);

describe('packs that are refused, by both engines alike, leaving nothing', () => {
  const table: readonly (readonly [desc: string, pack: () => Buffer, code?: string])[] = [
    ['no bytes', () => Buffer.alloc(0)],
    ['not a pack', () => Buffer.from('<html>no pack at all, but long enough to be one</html>')],
    ['a flipped byte in an object', () => flipped(thick, 40)],
    ['cut in the middle', () => thick.subarray(0, thick.length >> 1)],
    ['cut by one byte', () => thick.subarray(0, -1)],
    ['trailing garbage', () => Buffer.concat([thick, Buffer.from('garbage')])],
    ['much trailing garbage', () => Buffer.concat([thick, Buffer.alloc(300_000, 'x')])],
    ['a thin pack and trailing garbage', () => Buffer.concat([thin, Buffer.from('garbage')])],
    ['bytes between objects and checksum', () => hiddenBytes(thick)],
    ['bytes between objects and checksum, thin', () => hiddenBytes(thin)],
    ['wrong checksum', () => flipped(thick, thick.length - 1)],
    ['wrong checksum of an empty pack', () => flipped(buildPack([]), 30)],
    ['bad magic', () => sealPack(flipped(thick, 0).subarray(0, -20))],
    ['version 4', () => buildPack([blob('hello')], { version: 4 })],
    ['more objects declared than there are', () => buildPack([blob('a')], { count: 2 })],
    [
      'fewer objects declared than there are',
      () => buildPack([blob('a'), blob('b')], { count: 1 }),
    ],
    ['four billion objects declared', () => buildPack([blob('a')], { count: 0xffffffff })],
    ['a base that is nowhere', () => buildPack([{ type: 'ref-delta', base: unknown, delta }])],
    ['a cycle of deltas', () => deltaCycle()],
    ['an offset before the pack', () => buildPack([{ type: 'ofs-delta', distance: 4096, delta }])],
    ['an offset of zero', () => buildPack([{ type: 'ofs-delta', distance: 0, delta }])],
    [
      'an offset into the middle of an object',
      () => buildPack([blob('a long enough blob'), { type: 'ofs-delta', distance: 3, delta }]),
    ],
    [
      'a size beyond all memory',
      () => buildPack([{ type: 'blob', content: Buffer.alloc(4), declaredBytes: 2 ** 52 }]),
    ],
    [
      'a size larger than the content',
      () => buildPack([{ type: 'blob', content: Buffer.alloc(4), declaredBytes: 5 }]),
    ],
    [
      'a size smaller than the content',
      () => buildPack([{ type: 'blob', content: Buffer.alloc(40), declaredBytes: 5 }]),
    ],
    ['a delta that makes 64 GiB', () => deltaBomb(), 'resource-exhausted'],
    ['type 5, which is none', () => sealPack(Buffer.from('5041434b000000020000000150', 'hex'))],
  ];
  for (const [desc, pack, code = 'invalid-argument'] of table) {
    test(desc, async () => {
      const ending = await sameEnding(pack());
      assert.equal(ending.code, code, ending.message);
      assert.deepEqual(ending.files, []);
      assert.ok(!ending.message?.includes(fixture.root), ending.message);
    });
  }

  test('garbage that comes when git is done', async () => {
    const late = (async function* () {
      yield thin;
      await until('git is done', () => fixture.git.running === 0);
      yield Buffer.from('garbage');
    })();
    const streaming = await createPackIndexer({
      git: fixture.git,
      logger: silentLogger,
      meter: idleMeter,
      workers: 0,
      smallPackBytes: 1,
    });
    const ending = await fixture.index(streaming, late);
    assert.equal(ending.code, 'invalid-argument', ending.message);
    assert.deepEqual(ending.files, []);
  });

  test('an object above the limit, inflated from a small pack', async () => {
    const bomb = buildPack([{ type: 'blob', content: Buffer.alloc(200_000_000) }]);
    assert.ok(bomb.length < 1_000_000);
    const ending = await sameEnding(bomb, { maxObjectBytes: 100_000_000 });
    assert.equal(ending.code, 'resource-exhausted', ending.message);
    assert.deepEqual(ending.files, []);
  });

  test('many bombs at once: few gits look at them, each with little memory', async () => {
    const byGit = await createPackIndexer({
      git: fixture.git,
      logger: silentLogger,
      meter: idleMeter,
      workers: 0,
    });
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, fixture.git.running)), 1);
    const bomb = buildPack([{ type: 'blob', content: Buffer.alloc(50_000_000) }]);
    const endings = await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        fixture.index(byGit, bomb, { maxObjectBytes: 1_000, quarantinePackDir: ownQuarantine(n) }),
      ),
    );
    clearInterval(watch);
    assert.deepEqual(new Set(endings.map(({ code }) => code)), new Set(['resource-exhausted']));
    assert.ok(most > 0 && most <= 4, `${most} gits at once`);
    // 16 MiB as its own copy 120 times: nearly 2 GB from 16 KB.
    const content = Buffer.alloc(0xff_ffff);
    const [baseBytes, times] = [content.length, 120];
    const delta = copyDelta({
      baseBytes,
      resultBytes: baseBytes * times,
      copyBytes: baseBytes,
      times,
    });
    const base = objectId('blob', content);
    const grows = buildPack([
      { type: 'blob', content },
      { type: 'ref-delta', base, delta },
    ]);
    assert.ok(grows.length < 20_000);
    assert.notEqual((await sameEnding(grows)).code, undefined);
  });

  test('an object above the limit that is a delta', async () => {
    const base = fixture.write('blob', 'x'.repeat(60_000));
    const big = copyDelta({
      baseBytes: 60_000,
      resultBytes: 600_000,
      copyBytes: 60_000,
      times: 10,
    });
    const pack = buildPack([{ type: 'ref-delta', base, delta: big }]);
    assert.equal((await sameEnding(pack, { maxObjectBytes: 600_000 })).code, undefined);
    const ending = await sameEnding(pack, { maxObjectBytes: 599_999 });
    assert.equal(ending.code, 'resource-exhausted', ending.message);
  });

  test('a pack above the limit', async () => {
    const ending = await sameEnding(thick, { maxPackBytes: thick.length - 1 });
    assert.equal(ending.code, 'resource-exhausted');
    assert.deepEqual(ending.files, []);
    assert.equal((await sameEnding(thick, { maxPackBytes: thick.length })).code, undefined);
  });
});

/** The runs of one test, side by side. */
function ownQuarantine(n: number): string {
  const directory = join(fixture.root, `quarantine-${n}`, 'pack');
  mkdirSync(directory, { recursive: true });
  return directory;
}

/** The checksum is right, and seven bytes before it belong to no object. */
function hiddenBytes(pack: Buffer): Buffer {
  return sealPack(Buffer.concat([pack.subarray(0, -20), Buffer.from('garbage')]));
}

function deltaCycle(): Buffer {
  // Each names the other's id; whatever the ids really are, neither has a base.
  const a = objectId('blob', Buffer.from('aaaaa'));
  const b = objectId('blob', Buffer.from('bbbbb'));
  return buildPack([
    { type: 'ref-delta', base: b, delta },
    { type: 'ref-delta', base: a, delta },
  ]);
}

function deltaBomb(): Buffer {
  const base = Buffer.alloc(65_535);
  const huge = copyDelta({
    baseBytes: base.length,
    resultBytes: 64 * 2 ** 30,
    copyBytes: base.length,
    times: 1000,
  });
  const first = { type: 'blob', content: base } as const;
  return buildPack([first, { type: 'ref-delta', base: objectId('blob', base), delta: huge }]);
}

describe('interruptions', () => {
  for (const [desc, smallPackBytes] of [
    ['while it is buffered', 1_000_000],
    ['while git reads it', 20],
  ] as const) {
    test(`the signal aborts ${desc}, and the sender stays silent`, async () => {
      const indexer = await createPackIndexer({
        git: fixture.git,
        logger: silentLogger,
        meter: idleMeter,
        workers: 1,
        smallPackBytes,
      });
      const controller = new AbortController();
      const endless = (async function* () {
        yield thick.subarray(0, 60);
        setImmediate(() => controller.abort());
        await new Promise(() => {});
      })();
      const ending = await fixture.index(indexer, endless, { signal: controller.signal });
      assert.equal(ending.code, 'cancelled');
      assert.deepEqual(ending.files, []);
      assert.equal(fixture.git.running, 0);
      await indexer.close();
    });

    test(`the source fails ${desc}`, async () => {
      const indexer = await createPackIndexer({
        git: fixture.git,
        logger: silentLogger,
        meter: idleMeter,
        workers: 1,
        smallPackBytes,
      });
      const failing = (async function* () {
        yield thick.subarray(0, 60);
        throw new Error('connection reset');
      })();
      const ending = await fixture.index(indexer, failing);
      assert.equal(ending.code, 'cancelled');
      assert.deepEqual(ending.files, []);
      await indexer.close();
    });
  }

  test('the quarantine cannot be written', async () => {
    const file = join(fixture.root, 'a-file');
    writeFileSync(file, '');
    for (const indexer of [both, gitOnly]) {
      const ending = await fixture.index(indexer, thick, {
        quarantinePackDir: join(file, 'pack'),
      });
      assert.equal(ending.code, 'storage-failure', ending.message);
    }
  });
});
