import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { buildPack, objectId, treeOf } from '../backends/git/testing/build-pack.js';
import type { PackEntry } from '../backends/git/testing/build-pack.js';
import { HostileGround } from './hostile-ground.js';

const blob = Buffer.from('blob\n');
const blobId = objectId('blob', blob);
const person = 'A <a@example.org> 1 +0000';

interface BadObjects {
  readonly desc: string;
  /** git-fsck(1)'s message id. */
  readonly id: string;
  readonly entries: readonly PackEntry[];
  readonly tip: string;
}

/** A commit of a tree with these entries. */
function withTree(
  desc: string,
  id: string,
  entries: Parameters<typeof treeOf>[0],
  ...more: readonly PackEntry[]
): BadObjects {
  return withCommit(desc, id, { tree: treeOf(entries), more });
}

function withCommit(
  desc: string,
  id: string,
  parts: { tree?: Buffer; more?: readonly PackEntry[]; text?: (tree: string) => string },
): BadObjects {
  const tree = parts.tree ?? treeOf([['100644', 'file', blobId]]);
  const treeId = objectId('tree', tree);
  const text = parts.text ?? ((of) => `tree ${of}\nauthor ${person}\ncommitter ${person}\n\nx\n`);
  const commit = Buffer.from(text(treeId));
  const entries: PackEntry[] = [
    { type: 'commit', content: commit },
    { type: 'tree', content: tree },
    { type: 'blob', content: blob },
    ...(parts.more ?? []),
  ];
  return { desc, id, entries, tip: objectId('commit', commit) };
}

const evilModules = Buffer.from('[submodule "x"]\n\tpath = x\n\turl = -u./payload\n');
const evilName = Buffer.from('[submodule "../../x"]\n\tpath = x\n\turl = http://x/y\n');

const table: readonly BadObjects[] = [
  withTree('a mode with a zero before it', 'zeroPaddedFilemode', [['0100644', 'file', blobId]]),
  withTree('an entry .git', 'hasDotgit', [['100644', '.git', blobId]]),
  withTree('an entry .GIT', 'hasDotgit', [['100644', '.GIT', blobId]]),
  withTree('an entry git~1', 'hasDotgit', [['100644', 'git~1', blobId]]),
  withTree('an entry that HFS+ takes for .git', 'hasDotgit', [
    ['100644', '.g\xe2\x80\x8cit', blobId],
  ]),
  withTree('an entry ..', 'hasDotdot', [['100644', '..', blobId]]),
  withTree('an entry .', 'hasDot', [['100644', '.', blobId]]),
  withTree('an entry with a slash', 'fullPathname', [['100644', 'a/b', blobId]]),
  withTree('an entry twice', 'duplicateEntries', [
    ['100644', 'a', blobId],
    ['100644', 'a', blobId],
  ]),
  withTree('entries out of order', 'treeNotSorted', [
    ['100644', 'b', blobId],
    ['100644', 'a', blobId],
  ]),
  withTree(
    '.gitmodules with an option as URL',
    'gitmodulesUrl',
    [['100644', '.gitmodules', objectId('blob', evilModules)]],
    { type: 'blob', content: evilModules },
  ),
  withTree(
    '.gitmodules with a name that climbs',
    'gitmodulesName',
    [['100644', '.gitmodules', objectId('blob', evilName)]],
    { type: 'blob', content: evilName },
  ),
  withTree('.gitmodules that is a link', 'gitmodulesSymlink', [['120000', '.gitmodules', blobId]]),
  withCommit('a commit without an author', 'missingAuthor', {
    text: (tree) => `tree ${tree}\ncommitter ${person}\n\nx\n`,
  }),
  withCommit('a commit with two authors', 'multipleAuthors', {
    text: (tree) => `tree ${tree}\nauthor ${person}\nauthor ${person}\ncommitter ${person}\n\nx\n`,
  }),
  withCommit('a bad time zone', 'badTimezone', {
    text: (tree) => `tree ${tree}\nauthor A <a@example.org> 1 +00\ncommitter ${person}\n\nx\n`,
  }),
  withCommit('a name without an address', 'missingEmail', {
    text: (tree) => `tree ${tree}\nauthor A 1 +0000\ncommitter ${person}\n\nx\n`,
  }),
];

describe('objects that git fsck complains about', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  for (const { desc, id, entries, tip } of table) {
    test(`${desc}: refused, and taken with receive.fsck.ignore=${id}`, async () => {
      const { scene, server } = ground;
      const command = { ref: 'refs/heads/odd', newOid: tip };
      const pack = buildPack(entries);
      const refused = await ground.push([command], pack);
      assert.match(refused.unpack, new RegExp(`\\b${id}\\b`, 'i'));
      assert.equal(refused.refs[0]?.status, 'ng');
      await ground.assertUnharmed();

      const name = `odd-${id.toLowerCase()}-${tip.slice(0, 6)}`;
      await scene.admin(server, 'repo', 'create', name);
      await scene.admin(server, 'repo', 'set', name, `receive.fsck.ignore=${id}`);
      const taken = await ground.push([command], pack, { repository: `/${name}.git` });
      assert.deepEqual(taken, { unpack: 'ok', refs: [{ ref: command.ref, status: 'ok' }] });
      const listed = await scene.git([
        'ls-remote',
        server.httpUrl(`${name}.git`),
        'refs/heads/odd',
      ]);
      assert.equal(listed.slice(0, 40), tip);
      await ground.settle();
    });
  }
});
