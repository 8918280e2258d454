/** The worker's rules against git's own: whatever they let pass, `git index-pack --strict` lets pass. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type { ObjectType } from '../../contract/objects.js';
import { createPackIndexer } from '../indexer.js';
import type { PackIndexer } from '../pack-indexer.js';
import { buildPack, treeOf } from '../testing/build-pack.js';
import {
  createFixture,
  idleMeter,
  silentLogger,
  type Fixture,
} from '../testing/indexer-fixture.js';
import { recogniseCommit, recogniseTag, recogniseTree } from './object-rules.js';

let fixture: Fixture;
let both: PackIndexer;
let gitOnly: PackIndexer;

/** Objects that are in the repository, for the odd ones to name. Filled in before the tests run. */
const known = { blob: '', tree: '', commit: '', attributes: '', longAttributes: '', modules: '' };

before(async () => {
  fixture = await createFixture();
  const { git } = fixture;
  both = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 1 });
  gitOnly = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 0 });
  known.blob = fixture.write('blob', 'hello');
  known.attributes = fixture.write('blob', '*.c text\n');
  known.longAttributes = fixture.write('blob', `*.c ${'x'.repeat(3000)}\n`);
  known.modules = fixture.write('blob', '[submodule "a"]\n\tpath = a\n\turl = -evil\n');
  known.tree = fixture.write('tree', treeOf([['100644', 'file', known.blob]]));
  known.commit = fixture.write('commit', commitOf());
});

after(async () => {
  await both.close();
  await gitOnly.close();
  await fixture.close();
});

const ident = 'A U Thor <a@example.org> 1700000000 +0100';

function commitOf(
  parts: {
    tree?: string;
    parents?: string[];
    author?: string;
    committer?: string;
    rest?: string;
  } = {},
): Buffer {
  const { tree = known.tree, parents = [], author = ident, committer = ident } = parts;
  const lines = [`tree ${tree}`, ...parents.map((parent) => `parent ${parent}`)];
  lines.push(`author ${author}`, `committer ${committer}`);
  return Buffer.from(`${lines.join('\n')}\n${parts.rest ?? '\nmessage\n'}`, 'latin1');
}

function tagOf(
  parts: { object?: string; type?: string; tag?: string; rest?: string } = {},
): Buffer {
  const { object = known.commit, type = 'commit', tag = 'v1.0' } = parts;
  const rest = parts.rest ?? `tagger ${ident}\n\nmessage\n`;
  return Buffer.from(`object ${object}\ntype ${type}\ntag ${tag}\n${rest}`, 'latin1');
}

const entry = (name: string, mode = '100644'): Buffer =>
  treeOf([[mode, name, mode === '40000' ? known.tree : known.blob]]);
const utf8 = (text: string): string => Buffer.from(text).toString('latin1');

type Row = readonly [desc: string, type: ObjectType, content: () => Buffer];

/** What people push every day: it must not need a second opinion. */
const plain: readonly Row[] = [
  ['a commit', 'commit', () => commitOf()],
  ['a merge', 'commit', () => commitOf({ parents: [known.commit, known.commit] })],
  [
    'a commit in another encoding',
    'commit',
    () => commitOf({ rest: 'encoding latin1\n\nm\xe9\n' }),
  ],
  [
    'a signed commit',
    'commit',
    () => commitOf({ rest: 'gpgsig -----BEGIN-----\n \n abc\n -----END-----\n\nm\n' }),
  ],
  ['an empty name', 'commit', () => commitOf({ author: ' <a@b> 0 +0000' })],
  ['no message', 'commit', () => commitOf({ rest: '\n' })],
  ['a tag', 'tag', () => tagOf()],
  ['a tag with slashes', 'tag', () => tagOf({ tag: 'release/1.0-rc_1+2' })],
  ['a tag of a tree', 'tag', () => tagOf({ object: known.tree, type: 'tree' })],
  ['the empty tree', 'tree', () => Buffer.alloc(0)],
  [
    'executables, links, directories, submodules',
    'tree',
    () =>
      treeOf([
        ['100755', 'a', known.blob],
        ['120000', 'b', known.blob],
        ['40000', 'c', known.tree],
        ['160000', 'd', '12'.repeat(20)],
      ]),
  ],
  [
    'a directory sorted behind a.b',
    'tree',
    () =>
      treeOf([
        ['100644', 'a.b', known.blob],
        ['40000', 'a', known.tree],
        ['100644', 'a0', known.blob],
      ]),
  ],
  [
    '.github, .gitignore, .gitkeep, .gitlab-ci.yml, .mailmap',
    'tree',
    () =>
      treeOf(
        ['.github', '.gitignore', '.gitkeep', '.gitlab-ci.yml', '.mailmap', 'git'].map(
          (name) => ['100644', name, known.blob] as const,
        ),
      ),
  ],
  ['.gitattributes', 'tree', () => treeOf([['100644', '.gitattributes', known.attributes]])],
  ['a name in UTF-8', 'tree', () => entry(utf8('größe 大.txt'))],
];

/** Verdicts of git 2.39 differ among these; both paths have to give the same. */
const odd: readonly Row[] = [
  ...[
    '.git',
    '.GIT',
    '.Git',
    '.git.',
    '.git ',
    '.git...',
    '.git::$INDEX_ALLOCATION',
    'git~1',
    'GIT~1',
    'a\\.git',
    '.gitmodules',
    '.GITMODULES',
    '.gitmodules ',
    'gitmod~1',
    'GITMOD~4',
    'gi7eba~1',
    'GI7D29~1',
    '~1000000',
    'gitatt~1',
    'mailma~1',
    'maba30~1',
    '.gitattributes.',
    '.',
    '..',
    '',
    'a/b',
    '\\',
    'a\\b',
    '.gi\xe2\x80\x8ct',
    '.\xe2\x80\x8dgit',
    '.git\xef\xbb\xbf',
    '.g\xe2\x80\xaait',
    '.git\xe2\x81\xaf',
    '\xff\xfe',
    '.gitx\xff',
    'x'.repeat(1025),
    'x'.repeat(5000),
    'g~',
    'main.c~',
  ].map((name): Row => [
    `tree entry ${JSON.stringify(name.slice(0, 30))}`,
    'tree',
    () => entry(name),
  ]),
  ...['.gitmodules', '.gitattributes', '.gitignore', '.mailmap', '.git'].flatMap((name): Row[] => [
    [`symbolic link ${name}`, 'tree', () => entry(name, '120000')],
    [`directory ${name}`, 'tree', () => entry(name, '40000')],
  ]),
  [
    '.gitattributes with a long line',
    'tree',
    () => treeOf([['100644', '.gitattributes', known.longAttributes]]),
  ],
  [
    '.gitattributes that is not there',
    'tree',
    () => treeOf([['100644', '.gitattributes', '34'.repeat(20)]]),
  ],
  [
    '.gitmodules with an option as its URL',
    'tree',
    () => treeOf([['100644', '.gitmodules', known.modules]]),
  ],
  ...[
    '100664',
    '100600',
    '0100644',
    '040000',
    '0',
    '',
    '644',
    '100645',
    '170000',
    '1000000644',
  ].map((mode): Row => [`mode ${JSON.stringify(mode)}`, 'tree', () => entry('a', mode)]),
  [
    'not sorted',
    'tree',
    () =>
      treeOf([
        ['100644', 'b', known.blob],
        ['100644', 'a', known.blob],
      ]),
  ],
  [
    'not sorted as directories are',
    'tree',
    () =>
      treeOf([
        ['40000', 'a', known.tree],
        ['100644', 'a.b', known.blob],
      ]),
  ],
  [
    'twice',
    'tree',
    () =>
      treeOf([
        ['100644', 'a', known.blob],
        ['100644', 'a', known.blob],
      ]),
  ],
  [
    'a file and a directory of one name',
    'tree',
    () =>
      treeOf([
        ['100644', 'a', known.blob],
        ['40000', 'a', known.tree],
      ]),
  ],
  [
    'a file and a directory of one name, apart',
    'tree',
    () =>
      treeOf([
        ['100644', 'a', known.blob],
        ['100644', 'a-', known.blob],
        ['40000', 'a', known.tree],
      ]),
  ],
  ['null oid', 'tree', () => treeOf([['100644', 'a', '0'.repeat(40)]])],
  ['cut in the id', 'tree', () => entry('a').subarray(0, -3)],
  ['cut in the name', 'tree', () => Buffer.from('100644 abc')],
  ['cut in the mode', 'tree', () => Buffer.from('1006')],
  ['a missing blob', 'tree', () => treeOf([['100644', 'a', '56'.repeat(20)]])],
  ['a blob that is a tree', 'tree', () => treeOf([['100644', 'a', known.tree]])],
  ['a tree that is a blob', 'tree', () => treeOf([['40000', 'a', known.blob]])],
  [
    'one id, both kinds',
    'tree',
    () =>
      treeOf([
        ['100644', 'a', known.blob],
        ['40000', 'b', known.blob],
      ]),
  ],
  ['a missing tree', 'commit', () => commitOf({ tree: '78'.repeat(20) })],
  ['a tree that is a blob', 'commit', () => commitOf({ tree: known.blob })],
  ['a null tree', 'commit', () => commitOf({ tree: '0'.repeat(40) })],
  ['a missing parent', 'commit', () => commitOf({ parents: ['9a'.repeat(20)] })],
  ['a parent that is a tree', 'commit', () => commitOf({ parents: [known.tree] })],
  ['a short tree id', 'commit', () => commitOf({ tree: known.tree.slice(1) })],
  ['an upper case tree id', 'commit', () => commitOf({ tree: known.tree.toUpperCase() })],
  ...[
    '<a@b> 1 +0000',
    'A<a@b> 1 +0000',
    'A <a@b>1 +0000',
    'A <a@b> 01 +0000',
    'A <a@b> 1  +0000',
    'A <a@b> +0000',
    'A <a@b> 1',
    'A <a@b> 1 0000',
    'A <a@b> 1 +000',
    'A <a@b> 1 +00000',
    'A a@b 1 +0000',
    'A <a@b 1 +0000',
    'A <a<b> 1 +0000',
    'A >a@b> 1 +0000',
    'A <a@b> -1 +0000',
    'A <a@b> 1 +0000 ',
    'A <a@b> 99999999999999999999 +0000',
    'A <a@b> 9223372036854775808 +0000',
    'A <a@b> 10000000000 +0000',
    '',
  ].flatMap((who): Row[] => [
    [`author ${JSON.stringify(who)}`, 'commit', () => commitOf({ author: who })],
    [`committer ${JSON.stringify(who)}`, 'commit', () => commitOf({ committer: who })],
    [`tagger ${JSON.stringify(who)}`, 'tag', () => tagOf({ rest: `tagger ${who}\n\nm\n` })],
  ]),
  ['two authors', 'commit', () => commitOf({ author: `${ident}\nauthor ${ident}` })],
  ['NUL in the message', 'commit', () => commitOf({ rest: '\na\0b' })],
  ['NUL in the header', 'commit', () => commitOf({ rest: 'x \0\n\na' })],
  ['no end of the header', 'commit', () => commitOf({ rest: 'x' })],
  ['no blank line', 'commit', () => commitOf({ rest: '' })],
  ['an empty commit', 'commit', () => Buffer.alloc(0)],
  ['CR LF', 'commit', () => Buffer.from(commitOf().toString('latin1').replaceAll('\n', '\r\n'))],
  ...[
    'a..b',
    'a.lock',
    'a b',
    '-a',
    'a~b',
    'a^',
    'a:b',
    'a?',
    '.a',
    'a.',
    'a//b',
    '/a',
    'a/',
    '@{',
    '@',
    '',
    'a\\b',
    'a/.b',
    'a.lock/b',
    utf8('größe'),
  ].map((tag): Row => [`tag name ${JSON.stringify(tag)}`, 'tag', () => tagOf({ tag })]),
  ['no tagger', 'tag', () => tagOf({ rest: '\nm\n' })],
  ['an extra header', 'tag', () => tagOf({ rest: `tagger ${ident}\nextra x\n\nm\n` })],
  ['an unknown type', 'tag', () => tagOf({ type: 'thing' })],
  ['the wrong type', 'tag', () => tagOf({ type: 'tree' })],
  ['a missing object', 'tag', () => tagOf({ object: 'bc'.repeat(20) })],
  ['no type', 'tag', () => Buffer.from(`object ${known.commit}\ntag x\ntagger ${ident}\n\nm\n`)],
  ['NUL in the message', 'tag', () => tagOf({ rest: `tagger ${ident}\n\na\0b` })],
];

describe('objects as people push them', () => {
  for (const [desc, type, content] of plain) {
    test(desc, async () => {
      const pack = buildPack([{ type, content: content() }]);
      const [one, other] = [await fixture.index(both, pack), await fixture.index(gitOnly, pack)];
      assert.equal(one.result?.engine, 'libgit2', `${desc}: ${one.message}`);
      assert.equal(other.result?.engine, 'git', `${desc}: ${other.message}`);
    });
  }
});

test('odd objects get the verdict of git index-pack --strict', async () => {
  const verdicts = new Set<string>();
  for (const [desc, type, content] of odd) {
    const pack = buildPack([{ type, content: content() }]);
    const [one, other] = [await fixture.index(both, pack), await fixture.index(gitOnly, pack)];
    assert.equal(one.code, other.code, `${type}, ${desc}: ${one.message} / ${other.message}`);
    verdicts.add(one.code ?? 'taken');
  }
  assert.deepEqual([...verdicts].sort(), ['invalid-argument', 'taken']);
});

test('a message id on the allow list lets the object pass', async () => {
  const pack = buildPack([{ type: 'commit', content: commitOf({ author: 'A <a@b> 01 +0000' }) }]);
  const fsck = { enabled: true, ignore: ['ZEROPADDEDDATE', 'madeUp'] };
  assert.equal((await fixture.index(both, pack, { fsck })).code, undefined);
  assert.equal((await fixture.index(both, pack)).code, 'invalid-argument');
});

test('without fsck odd objects pass, and are still read back', async () => {
  const pack = buildPack([{ type: 'tree', content: entry('.git') }]);
  const { result } = await fixture.index(both, pack, { fsck: { enabled: false, ignore: [] } });
  assert.equal(result?.engine, 'libgit2');
});

const MUTANTS = 4000;

test('what the rules recognise among mutated objects, git takes', async () => {
  const seed = randomInt(2 ** 31);
  const random = lcg(seed);
  const judges = [
    ['commit', recogniseCommit],
    ['tag', recogniseTag],
    ['tree', recogniseTree],
  ] as const;
  const taken = new Map<string, { type: ObjectType; content: Buffer }>();
  for (let i = 0; i < MUTANTS; i++) {
    const [, type, content] = plain[random(plain.length)] ?? plain[0] ?? assert.fail();
    const mutant = mutate(content(), random);
    const judge = judges.find(([name]) => name === type) ?? assert.fail();
    const verdict = judge[1](mutant);
    if ('undecided' in verdict) continue;
    // Links are another matter: only objects whose links are there say something about the rules.
    const reachable = verdict.links.every(
      ({ oid, type: wanted }) =>
        (wanted !== 'tag' && oid === known[wanted]) ||
        (wanted === 'blob' && oid === known.attributes),
    );
    if (!reachable || verdict.attributes.some((oid) => oid !== known.attributes)) continue;
    taken.set(mutant.toString('latin1'), { type, content: mutant });
  }
  assert.ok(taken.size > 50, `only ${taken.size} mutants were recognised, seed ${seed}`);
  const ending = await fixture.index(gitOnly, buildPack([...taken.values()]));
  assert.equal(ending.code, undefined, `seed ${seed}: ${ending.message}`);
});

/** Numbers below n; the same seed gives the same ones. */
function lcg(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return Math.floor((state / 0x80000000) * n);
  };
}

const spices = [
  '.git',
  '~',
  '\n',
  '\0',
  ' ',
  '<',
  '>',
  '.',
  '0',
  '/',
  '\\',
  '\xe2\x80\x8c',
  'g',
  ':',
];

function mutate(content: Buffer, random: (n: number) => number): Buffer {
  let bytes = content.toString('latin1');
  for (let i = random(3); i >= 0; i--) {
    const at = random(bytes.length + 1);
    const spice = spices[random(spices.length)] ?? '';
    const cut = random(3);
    bytes = bytes.slice(0, at) + (random(4) === 0 ? '' : spice) + bytes.slice(at + cut);
  }
  return Buffer.from(bytes, 'latin1');
}
